"""A detector of a user's own: how its file is loaded, what it may return, what becomes of a frame that fails."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.engine import DetectionError, failed_frames
from engines.factory import open_engine
from engines.own.answers import AnswerError, table_of
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import Detections, Frame, FrameInfo

EXAMPLES = Path(__file__).parents[2] / "examples" / "detectors"
SHAPE, PIXEL_UM = (40, 60), 0.5


def frame(number, image=None):
    image = np.zeros(SHAPE, np.uint16) if image is None else image
    return Frame(FrameInfo("r", number, number, number / 10, 0, 0.0, pixel_size_um=PIXEL_UM), image)


@pytest.fixture
def write(tmp_path):
    def written(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return written


def opened(file, said=None, **settings):
    say = (lambda _: None) if said is None else said.append
    return open_engine(DetectorSettings(file=file, **settings), model=None, pixel_size_um=PIXEL_UM, say=say)


def run(engine, frames):
    """What the engine finds in the frames, and the numbers of those in which it failed."""
    found, failed = [], []
    for each in frames:
        engine.submit(each)
        found += engine.results(0.0)
        failed += failed_frames(engine)
    while engine.pending:
        found += engine.results(1.0)
        failed += failed_frames(engine)
    return found, failed


def answer(text, tmp_path_write, **settings):
    """The detections of one frame for which the user's function returns the expression `text`."""
    said = []
    file = tmp_path_write(f"import numpy as np\ndef find(image, info):\n    return {text}\n")
    with closing(opened(file, said, **settings)) as engine:
        found, failed = run(engine, [frame(3)])
    return (found[0] if found else None), failed, said


# what it may return


def test_an_array_of_two_columns_is_x_and_y_in_um_and_the_rest_is_not_known(write):
    found, _, _ = answer("np.array([[1.5, 2.0], [3.0, 4.0]])", write)
    assert found.x_um.tolist() == [1.5, 3.0]
    assert found.y_um.tolist() == [2.0, 4.0]
    assert np.isnan(found.z_um).all()
    assert np.isnan(found.sigma_x_um).all()
    assert found.flags.tolist() == [0, 0]


def test_a_third_column_is_the_depth(write):
    found, _, _ = answer("[(1.5, 2.0, -7.5)]", write)
    assert found.z_um.tolist() == [-7.5]


def test_columns_in_pixels_become_um_from_the_centre_of_the_first_pixel(write):
    found, _, _ = answer(
        "{'x_px': [0.0, 10.0], 'y_px': [0.0, 4.0], 'sigma_x_px': 0.2, 'sigma_y_um': 0.3}", write
    )
    assert found.x_um.tolist() == [0.0, 5.0]
    assert found.y_um.tolist() == [0.0, 2.0]
    assert found.sigma_x_um == pytest.approx([0.1, 0.1])
    assert found.sigma_y_um == pytest.approx([0.3, 0.3])


def test_a_table_of_pandas_is_read_by_its_columns():
    table = pd.DataFrame({"x_um": [1.0, 2.0], "y_um": [3.0, 4.0], "z_um": [np.nan, 5.0], "kind": [0, 1]})
    found, _, left_out = table_of(table, SHAPE, PIXEL_UM, 0.5)
    assert found.shape == (len(Detections.COLUMNS), 2)
    assert found[Detections.COLUMNS.index("kind")].tolist() == [0, 1]
    assert np.isnan(found[2, 0])
    assert not left_out


@pytest.mark.parametrize("nothing", ["[]", "{}", "np.empty((0, 2))", "{'x_um': [], 'y_um': []}"])
def test_no_rows_are_no_particles_which_is_no_failure(nothing, write):
    found, failed, said = answer(nothing, write)
    assert len(found) == 0
    assert not failed
    assert not said


def test_masked_values_and_errors_without_bound_are_not_known(write):
    found, _, _ = answer(
        "{'x_um': [1.0, 2.0], 'y_um': [1.0, 2.0], 'z_um': np.ma.masked_array([1.0, 2.0], [True, False]),"
        " 'sigma_x_um': [np.inf, 0.1]}",
        write,
    )
    assert np.isnan(found.z_um[0])
    assert found.z_um[1] == 2.0
    assert np.isnan(found.sigma_x_um[0])


FAULTS = {
    "None": "returned None",
    "5": "shape ()",
    "'text'": "not numbers",
    "np.zeros((2, 4))": "shape (2, 4)",
    "[[1.0, 2.0], [3.0]]": "cannot be read as numbers",
    "{'x_um': [1.0], 'y_um': [1.0, 2.0]}": "differ in length: x_um 1, y_um 2",
    "{'x_um': [1.0], 'y_um': [1.0], 'mass': [3.0]}": "a column 'mass'",
    "{'x_um': [1.0]}": "no x and y",
    "{'x_um': [1.0], 'x_px': [1.0], 'y_um': [1.0]}": "x_um twice",
    "{'x_um': ['a'], 'y_um': [1.0]}": "not numbers",
    "{'x_um': [1j], 'y_um': [1.0]}": "not numbers",
    "{'x_um': [[1.0]], 'y_um': [1.0]}": "not one value for each particle",
    "{'x_um': [1.0, 2.0], 'y_um': 1.0, 'sigma_x_um': [0.1, -0.1]}": "sigma_x_um is negative in row 1 (-0.1)",
    "{'x_um': [1.0], 'y_um': [1.0], 'confidence': [7.0]}": "confidence is not between 0 and 1",
    "{'x_um': [1.0], 'y_um': [1.0], 'brightness': [np.inf]}": "brightness is infinite",
    "{'x_um': [1.0], 'y_um': [1.0], 'kind': [0.5]}": "kind is not a whole number",
    "[[1000.0, 3.0]]": "none of its 1 positions is in the image of 30 x 20 um: x is 1000 to 1000 um",
    "[[np.nan, 3.0]]": "none of its 1 positions is finite",
}


def test_what_else_it_measures_of_a_particle_goes_with_its_row(write):
    found, _, _ = answer(
        "{'x_um': [1.0, 2.0, 99.0], 'y_um': 1.0, 'confidence': [1.0, 0.0, 1.0], "
        "'properties': {'radius_um': (np.array([0.1, 0.2, 0.3]), 0.01), 'refractive_index': [1.4, 1.5, 1.6]}}",
        write,
        min_confidence=0.5,
    )
    assert found.properties.names == ("radius_um", "refractive_index")
    assert found.properties.values.tolist() == [[0.1], [1.4]]
    assert found.properties.error("radius_um").tolist() == [0.01]
    assert np.isnan(found.properties.error("refractive_index")).all()


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ("{'radius_um': [1.0]}", "radius_um has 1 values for 2 particles"),
        ("{'radius_um': ([1.0, 1.0], -0.1)}", "a standard error of radius_um is negative"),
        ("{'Radius': 1.0}", "cannot name a property"),
        ("{'x_um': 1.0}", "tables have such a column"),
        ("{'radius_um': (1.0, 1.0, 1.0)}", "has 3 parts"),
        ("[1.0, 2.0]", "return a dict from names"),
        ("{f'p{i}': 1.0 for i in range(9)}", "at most 8"),
        ("{'radius_um': 'large'}", "not numbers"),
    ],
)
def test_properties_that_cannot_be_make_the_frame_fail(properties, words, write):
    _, _, said = answer(
        f"{{'x_um': [1.0, 2.0], 'y_um': 1.0, 'properties': {properties}}}", write, failed_frames=5
    )
    assert words in said[0]


def test_other_properties_than_before_make_the_frame_fail(write):
    file = write(
        "def find(image, info):\n"
        "    return {'x_um': [1.0], 'y_um': 1.0, 'properties': {'ab'[info.frame]: 1.0}}\n"
    )
    said = []
    with closing(opened(file, said)) as engine:
        found, failed = run(engine, [frame(0), frame(1)])
    assert (len(found), failed) == (1, [1])
    assert "it returned the properties b, and a before" in said[0]


@pytest.mark.parametrize("text", FAULTS)
def test_a_faulty_answer_fails_its_frame_and_one_line_names_file_line_and_frame(text, write):
    found, failed, said = answer(text, write)
    assert found is None
    assert failed == [3]
    assert len(said) == 1
    assert "mine.py, line 2: " in said[0]
    assert "in frame 3" in said[0]
    assert FAULTS[text] in said[0]


def test_single_rows_that_cannot_be_used_are_left_out_counted_and_said_once(write):
    said = []
    file = write(
        "def find(image, info):\n    return [(1.0, 1.0), (float('nan'), 1.0), (-50.0, 1.0), (9.9, 2.0)]\n"
    )
    with closing(opened(file, said)) as engine:
        found, failed = run(engine, [frame(0), frame(1)])
        counts = engine.counts()
    assert [d.x_um.tolist() for d in found] == [[1.0, 9.9]] * 2
    assert not failed
    assert counts["no_position"] == 2
    assert counts["outside"] == 2
    assert len(said) == 2
    assert all("frame 0" in line for line in said)


@pytest.mark.parametrize(("x_px", "is_inside"), [(-0.5, True), (-0.51, False), (59.5, True), (59.51, False)])
def test_the_image_ends_half_a_pixel_beyond_the_centres_of_its_first_and_last_pixels(x_px, is_inside):
    table, _, left_out = table_of({"x_px": [x_px, 5.0], "y_px": 5.0}, SHAPE, PIXEL_UM, 0.5)
    assert table.shape[1] == 1 + is_inside
    assert left_out["outside"] == (not is_inside)


def test_the_faintest_beyond_max_particles_and_the_doubtful_are_left_out_and_counted(write):
    said = []
    file = write(
        "def find(image, info):\n"
        "    return {'x_um': [1, 2, 3, 4], 'y_um': 1, 'brightness': [9, 7, 8, 6], 'confidence': [1, 1, 0.2, 1]}\n"
    )
    with closing(opened(file, said, max_particles=2)) as engine:
        (found,), _ = run(engine, [frame(0)])
        counts = engine.counts()
    assert found.x_um.tolist() == [1, 2]
    assert counts["doubtful"] == 1
    assert counts["too_many"] == 1
    assert any("detector.max_particles is 2" in line for line in said)


NUMBERS = st.floats(width=64) | st.sampled_from([1e300, -1e300, np.inf, -np.inf, np.nan])


@given(
    st.dictionaries(
        st.sampled_from([*Detections.COLUMNS, "x_px", "y_px", "sigma_x_px"]),
        arrays(np.float64, st.integers(0, 3), elements=NUMBERS),
        max_size=6,
    )
    | arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(0, 4)), elements=NUMBERS)
)
def test_whatever_numbers_come_back_they_are_refused_or_make_detections_within_the_image(given_back):
    told = []
    try:
        table, _, _ = table_of(given_back, SHAPE, PIXEL_UM, 0.5)
    except AnswerError as error:
        told.append(str(error))
        return
    found = Detections(frame(0).info, table)
    assert (np.abs(found.x_um) <= 60).all()
    assert (np.abs(found.y_um) <= 60).all()
    for name in ("sigma_x_um", "sigma_y_um", "sigma_z_um", "brightness"):
        values = getattr(found, name)
        assert ((values >= 0) | np.isnan(values)).all()
        assert not np.isinf(values).any()


# a frame that fails

SOMETIMES = """
def find(image, info, bad=""):
    if str(info.frame) in bad.split():
        raise ValueError(f"frame {info.frame % 2} of two")
    return [(1.0 + info.frame, 1.0)]
"""


def test_a_frame_that_raises_is_left_out_and_those_around_it_are_not(write):
    said = []
    with closing(opened(write(SOMETIMES), said, options={"bad": "1 2"})) as engine:
        found, failed = run(engine, [frame(n) for n in range(5)])
        counts = engine.counts()
    assert [d.info.frame for d in found] == [0, 3, 4]
    assert failed == [1, 2]
    assert counts["failed_frames"] == 2
    assert len(said) == 2
    assert "failed in frame 1, which is left out: " in said[0]
    assert "mine.py, line 4: ValueError: frame 1 of two" in said[0]


def test_the_same_failure_is_told_once(write):
    said = []
    with closing(opened(write(SOMETIMES), said, options={"bad": "1 3 5"})) as engine:
        run(engine, [frame(n) for n in range(7)])
    assert len(said) == 1


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_one_more_failure_in_succession_than_allowed_ends_it_after_the_results_before(allowed, write):
    bad = " ".join(str(n) for n in range(2, 3 + allowed))
    found = []

    def take_all(engine):
        while engine.pending:
            found.extend(engine.results(1.0))

    with closing(opened(write(SOMETIMES), options={"bad": bad}, failed_frames=allowed)) as engine:
        for number in range(6 + allowed):
            engine.submit(frame(number))
        with pytest.raises(DetectionError, match=rf"failed_frames is {allowed}\).*mine.py, line 4") as error:
            take_all(engine)
    assert [d.info.frame for d in found] == [0, 1]
    assert "\n" not in str(error.value)


def test_a_success_between_failures_begins_the_count_anew(write):
    with closing(opened(write(SOMETIMES), options={"bad": "0 2 4 6"}, failed_frames=1)) as engine:
        found, failed = run(engine, [frame(n) for n in range(8)])
    assert len(found) == 4
    assert failed == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sys.exit(3)", "SystemExit: 3"),
        ("raise Exception('two\\nlines')", "Exception: two lines"),
        ("np.linalg.inv(np.zeros((2, 2)))", "LinAlgError"),
        ("raise type('Mute', (Exception,), {'__str__': lambda s: 1 / 0})()", "its text cannot be shown"),
    ],
)
def test_whatever_the_code_raises_is_one_line_with_the_line_of_the_users_file(line, words, write):
    said = []
    file = write(f"import sys\nimport numpy as np\ndef find(image, info):\n    {line}\n")
    with closing(opened(file, said)) as engine:
        _, failed = run(engine, [frame(9)])
    assert failed == [9]
    assert "mine.py, line 4: " in said[0]
    assert words in said[0]
    assert "\n" not in said[0]


def test_the_line_is_that_of_the_users_file_also_where_its_path_is_relative(write, tmp_path, monkeypatch):
    said = []
    write("import numpy as np\ndef find(image, info):\n    return np.linalg.inv(np.zeros((2, 2)))\n")
    monkeypatch.chdir(tmp_path)
    with closing(opened(Path("mine.py"), said)) as engine:
        run(engine, [frame(9)])
    assert "mine.py, line 3: LinAlgError" in said[0]


# how it is loaded


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = (", "SyntaxError"),
        ("import nothing_like_this", "line 1: ModuleNotFoundError"),
        ("import sys\nsys.exit()", "line 2: SystemExit"),
        ("x = 1", "found: none"),
        ("class A:\n  def find(self, i, j): ...\nclass B:\n  def find(self, i, j): ...", "found: A, B"),
        (
            "class A:\n  def __init__(self):\n    1 / 0\n  def find(self, i, j): ...",
            "line 3: ZeroDivisionError",
        ),
        ("class A:\n  def find(self, image): ...", "does not fit"),
        ("def find(image): ...", "does not fit"),
        ("threads = 0\ndef find(image, info): ...", "threads is 0"),
        ("class A:\n  threads = 'many'\n  def find(self, i, j): ...", "threads is 'many'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_the_start_in_one_line(text, words, write):
    with pytest.raises(ConfigurationError, match=r"mine\.py") as error:
        opened(write(text))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named_with_its_setting(tmp_path):
    with pytest.raises(ConfigurationError, match=r"detector\.file must name a .py file"):
        opened(tmp_path / "none.py")


def test_an_option_that_the_function_does_not_take_is_refused_at_the_start(write):
    with pytest.raises(ConfigurationError, match="colour"):
        opened(write(SOMETIMES), options={"colour": 1})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"options": {"a": 1}}, "give its file"),
        ({"file": "a.py", "model": "b.onnx"}, "does not use model"),
        ({"file": "a.py", "polarity": "dark"}, "does not use polarity"),
        ({"file": "a.py", "bright": "b.tif"}, "does not use bright"),
    ],
)
def test_settings_that_an_own_detector_would_ignore_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        DetectorSettings(**given)


# threads

STATEFUL = """
import threading
import time

class Counting:
    threads = {threads}
    made = 0
    busy = 0
    most = 0
    lock = threading.Lock()
    closed = []

    def __init__(self):
        Counting.made += 1
        self.calls = self.at_once = 0

    def warmup(self, height, width, dtype):
        self.shape = (height, width, dtype)

    def find(self, image, info):
        with self.lock:
            Counting.busy += 1
            Counting.most = max(Counting.most, Counting.busy)
        self.at_once += 1
        assert self.at_once == 1
        time.sleep(0.01)
        self.calls += 1
        image[:] = 7
        self.at_once -= 1
        with self.lock:
            Counting.busy -= 1
        assert self.shape == (*image.shape, image.dtype)
        return [(1.0, 2.0)]

    def close(self):
        self.closed.append(self.calls)
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_an_instance_a_thread_is_made_and_each_is_in_one_call_at_a_time(threads, write):
    import sys

    image = np.zeros(SHAPE, np.uint16)
    engine = opened(write(STATEFUL.format(threads=threads)), workers=threads)
    kept = sys.modules["liveptv_detector_mine"].Counting
    with closing(engine):
        engine.warmup(*SHAPE, np.dtype(np.uint16))
        found, failed = run(engine, [frame(n, image) for n in range(12)])
    assert [d.info.frame for d in found] == list(range(12))
    assert not failed
    assert kept.made == threads
    assert kept.most <= threads
    assert sum(kept.closed) == 12
    assert len(kept.closed) == threads
    assert not image.any()  # each call gets an image of its own
    assert engine.info.details["workers"] == threads
    assert all(d.info.detector_ms >= 10 for d in found)


def test_one_frame_at_a_time_unless_the_file_says_otherwise(write):
    with closing(opened(write(SOMETIMES))) as engine:
        assert engine.info.details["workers"] == 1
    with pytest.raises(ConfigurationError, match=r"takes 1 frame at a time; set `threads = 4`"):
        opened(write(SOMETIMES), workers=4)


# the examples


def spots(places, height=200.0, width_px=2.0, background=20.0, shape=(96, 128)):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    image = np.full(shape, background) + np.random.default_rng(1).normal(0, 2, shape)
    for x, y in places:
        image += height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width_px**2))
    return np.clip(np.rint(image), 0, 65535).astype(np.uint16)


PLACES = [(20.3, 30.6), (60.0, 12.2), (100.8, 70.5)]


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # trackpy 0.7 with pandas 3
def test_trackpy_as_a_detector_gives_what_trackpy_gives_when_called_directly():
    trackpy = pytest.importorskip("trackpy")
    image = spots(PLACES)
    file = EXAMPLES / "with_trackpy.py"
    with closing(opened(file, options={"diameter_px": 11, "minmass": 500.0})) as engine:
        (found,), _ = run(engine, [frame(0, image)])
        assert not engine.info.depth
    direct = trackpy.locate(image, 11, minmass=500.0, engine="numba")
    assert found.x_um.tolist() == (direct.x * PIXEL_UM).tolist()
    assert found.y_um.tolist() == (direct.y * PIXEL_UM).tolist()
    assert found.brightness.tolist() == direct.signal.tolist()
    assert sorted(found.x_um / PIXEL_UM) == pytest.approx(sorted(x for x, _ in PLACES), abs=0.1)


def test_the_shortest_example_finds_the_centres():
    with closing(opened(EXAMPLES / "threshold.py", options={"level": 6.0})) as engine:
        found, failed = run(engine, [frame(0, spots(PLACES)), frame(1, spots([]))])
    assert not failed
    at = found[0].x_um / PIXEL_UM
    assert all(min(abs(at - x)) < 0.5 for x, _ in PLACES)


def test_a_network_of_maps_with_weights_of_the_users_own(tmp_path):
    torch = pytest.importorskip("torch")
    from stream.own_code import load_module

    module = load_module(EXAMPLES / "network.py", "detector")
    torch.manual_seed(0)
    net = module.Net()
    weights = tmp_path / "mine.pt"
    torch.save(net.state_dict(), weights)
    options = {"weights": str(weights), "threshold": 0.0}
    with closing(opened(EXAMPLES / "network.py", options=options, min_confidence=0.0)) as engine:
        engine.warmup(96, 128, np.dtype(np.uint16))
        image = spots(PLACES)
        (found,), failed = run(engine, [frame(0, image)])
        assert engine.info.depth
    assert not failed
    net.eval()
    pixels = torch.from_numpy(image.astype(np.float32))
    with torch.inference_mode():
        maps = net(((pixels - pixels.mean()) / (pixels.std() + 1e-6))[None, None])[0].numpy()
    row, column = (round(float(v[0] / PIXEL_UM)) for v in (found.y_um, found.x_um))
    near = [(r, c) for r in range(max(row - 2, 0), row + 3) for c in range(max(column - 2, 0), column + 3)]
    logits = {maps[0, r, c]: (r, c) for r, c in near if r < 96 and c < 128}
    at = [logits[k] for k in logits if np.isclose(1 / (1 + np.exp(-k)), found.confidence[0], atol=1e-5)]
    assert any(
        np.isclose(c + maps[1, r, c], found.x_um[0] / PIXEL_UM, atol=1e-4)
        and np.isclose(maps[3, r, c], found.z_um[0], atol=1e-4)
        for r, c in at
    )
