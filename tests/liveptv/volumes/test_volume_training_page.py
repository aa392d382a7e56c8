"""The page of a trained network for volumes shows how it was trained and what it finds at each SNR."""

from matplotlib.colors import to_hex

from engines.volumes.network.model_card import NoiseCard, VolumeCard
from liveptv.reports.volume_training_page import by_snr, course_figure, write_volume_training_page

CARD = VolumeCard(
    noise=NoiseCard(gain=1.0, offset=0.0, read_variance=1.0), light=20.0, size="small", made_from="beads"
)


def course():
    rows = []
    for k in range(8):
        row = {"trained_s": 60.0 * (k + 1), "loss": 3.0 / (k + 1), "held_out_loss": 3.3 / (k + 1)}
        for snr, most in ((1, 0.6), (2, 0.95), (4, 0.99), (7, 1.0)):
            row[f"f1_snr{snr}"] = most * (1 - 0.5 ** (k + 1))
            row[f"rmse_snr{snr}"] = None if k == 0 and snr == 1 else 1.5 / snr / (k + 1) ** 0.3
        rows.append(row)
    return rows


def test_the_page_has_the_scores_by_snr_and_a_line_for_each_in_the_figure(tmp_path):
    page = write_volume_training_page(tmp_path / "volumes.onnx", CARD, course(), course()[-1])
    text = page.read_text(encoding="utf-8")
    assert "By signal-to-noise ratio" in text
    assert all(f">{f1:.3f}<" in text for _, f1, _ in by_snr(course()[-1]))
    assert "made from beads" in text
    loss, found, errors = course_figure(course()).axes
    assert [len(axes.lines) for axes in (loss, found, errors)] == [2, 4, 4]
    assert len({to_hex(line.get_color()) for line in found.lines}) == 4


def test_a_network_that_finds_nothing_is_called_that(tmp_path):
    nothing = {"f1_snr1": 0.0, "rmse_snr1": None}
    page = write_volume_training_page(tmp_path / "volumes.onnx", CARD, [], nothing)
    assert "found none of the particles" in page.read_text(encoding="utf-8")
