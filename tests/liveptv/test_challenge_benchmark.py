"""One command detects, tracks and scores the Particle Tracking Challenge's sequences, for who has them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import ptc
from volume_scene import expected

SHAPE = (96, 96)
FRAMES = 8


def moving(count, seed):
    """Particles (T, N, 2) that move by a pixel or so a frame and stay apart."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    grid = np.stack(np.meshgrid(*[np.linspace(20, 76, side)] * 2), axis=-1).reshape(-1, 2)[:count]
    steps = rng.uniform(-1, 1, (count, 2))
    return grid + np.arange(FRAMES)[:, None, None] * steps + rng.uniform(-2, 2, (count, 2))


def images_of(paths):
    rng = np.random.default_rng(1)
    peak = np.full(paths.shape[1], 400.0)
    found = []
    for places in paths:
        centres = np.concatenate([np.zeros((len(places), 1)), places], axis=1)
        light = expected(centres, peak, (1, *SHAPE), (1.0, 1.8, 1.8))[0]
        found.append(rng.poisson(light + 20).astype(np.uint16))
    return np.stack(found)


def xml_of(paths, offset=0.0):
    lines = ['<root><TrackContestISBI2012 SNR="7" density="low" scenario="VESICLE">']
    for particle in range(paths.shape[1]):
        lines.append("<particle>")
        for frame, (y, x) in enumerate(paths[:, particle] + offset):
            lines.append(f'<detection t="{frame}" x="{x:.3f}" y="{y:.3f}" z="0"/>')
        lines.append("</particle>")
    return "\n".join([*lines, "</TrackContestISBI2012></root>"])


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """Two sequences of images, one as a file and one as a folder, with their truth in another folder."""
    folder = tmp_path_factory.mktemp("challenge")
    (folder / "ground_truth").mkdir()
    for number, density in enumerate(("low", "mid")):
        paths = moving(9 if density == "low" else 16, number)
        name = f"VESICLE snr 7 density {density}"
        (folder / "ground_truth" / f"{name}.xml").write_text(xml_of(paths), encoding="utf-8")
        images = images_of(paths)
        if density == "low":
            tifffile.imwrite(folder / f"{name}.tif", images, imagej=True, metadata={"axes": "TYX"})
        else:
            (folder / name).mkdir()
            for frame, image in enumerate(images):
                tifffile.imwrite(folder / name / f"{name} t{frame:03d} z00.tif", image)
    return folder


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ptc.py", *map(str, arguments)])
    ptc.main()


def test_images_and_truth_are_found_wherever_they_lie(registered):
    found = ptc.find(registered)
    assert [s.name for s in found] == ["VESICLE snr 7 density low", "VESICLE snr 7 density mid"]
    assert [s.images.name for s in found] == ["VESICLE snr 7 density low.tif", "VESICLE snr 7 density mid"]


def test_bright_lone_particles_are_found_and_followed(registered, monkeypatch, capsys):
    call(monkeypatch, registered)
    kept = json.loads((registered / "liveptv.json").read_text(encoding="utf-8"))
    assert len(kept) == 2
    for row in kept.values():
        assert row["f1"] > 0.99
        assert row["rmse_voxels"] < 0.2
        assert row["alpha"] > 0.9
        assert row["jsc_tracks"] == 1
        assert max(map(abs, row["offset"])) < 0.05
    first = capsys.readouterr().out
    call(monkeypatch, registered)  # from what was kept
    assert capsys.readouterr().out == first
    assert first.count("VESICLE") == 2


def test_particles_are_found_and_followed_in_volumes(tmp_path, monkeypatch):
    """One sequence as a hyperstack and the same as a folder of slices; the truth has z in slices."""
    rng = np.random.default_rng(3)
    shape, frames = (12, 64, 64), 6
    at = [2.2, 9.1], [14.0, 32.0, 50.0], [14.0, 32.0, 50.0]
    start = np.stack(np.meshgrid(*at, indexing="ij"), -1).reshape(-1, 3)
    steps = np.cumsum(rng.normal(0, 0.3, (frames, len(start), 3)), axis=0)
    paths = start + steps
    stacks = np.stack(
        [
            rng.poisson(expected(places, np.full(len(places), 80.0), shape, (1.3, 1.3, 1.3)) + 10)
            for places in paths
        ]
    ).astype(np.uint8)
    lines = ['<root><TrackContestISBI2012 SNR="7" density="low" scenario="VIRUS">']
    for particle in range(len(start)):
        points = enumerate(paths[:, particle])
        inner = "".join(
            f'<detection t="{t}" x="{x:.3f}" y="{y:.3f}" z="{z:.3f}"/>' for t, (z, y, x) in points
        )
        lines.append(f"<particle>{inner}</particle>")
    lines.append("</TrackContestISBI2012></root>")
    for density in ("low", "mid"):
        name = f"VIRUS snr 7 density {density}"
        (tmp_path / f"{name}.xml").write_text("\n".join(lines), encoding="utf-8")
        if density == "low":
            tifffile.imwrite(tmp_path / f"{name}.tif", stacks, imagej=True, metadata={"axes": "TZYX"})
        else:
            (tmp_path / name).mkdir()
            for t, stack in enumerate(stacks):
                for z, slice_ in enumerate(stack):
                    tifffile.imwrite(tmp_path / name / f"{name} t{t:03d} z{z:02d}.tif", slice_)
    call(monkeypatch, tmp_path, "--detector", "spot_um=[1.3, 1.3, 1.3]")
    kept = json.loads((tmp_path / "liveptv.json").read_text(encoding="utf-8"))
    low, mid = kept.values()
    assert {**low, "sequence": ""} == {**mid, "sequence": ""}
    assert low["f1"] > 0.99
    assert low["rmse_voxels"] < 0.2
    assert low["alpha"] > 0.9
    assert low["jsc_tracks"] == 1


def test_the_offset_shows_a_truth_that_counts_from_the_corner(registered, tmp_path, monkeypatch):
    paths = moving(9, 0)
    name = "VESICLE snr 7 density low"
    (tmp_path / f"{name}.xml").write_text(xml_of(paths, 0.5), encoding="utf-8")
    (tmp_path / f"{name}.tif").write_bytes((registered / f"{name}.tif").read_bytes())
    call(monkeypatch, tmp_path)
    row = json.loads((tmp_path / "liveptv.json").read_text(encoding="utf-8"))[name]
    np.testing.assert_allclose(row["offset"], -0.5, atol=0.05)
    call(monkeypatch, tmp_path, "--origin", "0.5")
    row = json.loads((tmp_path / "liveptv.json").read_text(encoding="utf-8"))[name]
    np.testing.assert_allclose(row["offset"], 0, atol=0.05)


def test_results_of_another_program_are_scored_by_hand_counted_numbers(
    registered, tmp_path, monkeypatch, capsys
):
    """The truth less a particle, the rest 3 pixels off along x: what follows from the paper's definitions."""
    paths = moving(9, 0)
    off = paths[:, :-1].copy()
    off[..., 1] += 3
    (tmp_path / "VESICLE snr 7 density low.xml").write_text(xml_of(off), encoding="utf-8")
    call(monkeypatch, registered, "--results", tmp_path)
    assert "density mid: no result, left out" in capsys.readouterr().out
    row = json.loads((tmp_path / "liveptv.json").read_text(encoding="utf-8"))["VESICLE snr 7 density low"]
    assert row["f1"] == pytest.approx(2 * 8 / 17)
    assert row["rmse"] == row["rmse_voxels"] == pytest.approx(3)
    assert row["alpha"] == row["beta"] == pytest.approx(1 - (8 * 3 + 5) / (9 * 5))
    assert row["jsc"] == row["jsc_tracks"] == pytest.approx(8 / 9)


def test_a_folder_without_truth_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, tmp_path)
    assert "holds no truth of the challenge" in capsys.readouterr().err
