"""HDF5 files that claim what they do not have: every command says so in one line and allocates nothing for it."""

import shutil
import tracemalloc

import h5py
import numpy as np
import pytest
from calibration_files import small_calibration, write_small

from engines.classical.widths import WidthCurve
from engines.refine.psf import load_fit_model
from liveptv.cli import run_command_line
from stream.errors import ConfigurationError, SourceError
from stream.hdf5_reading import attribute, check_file, dataset, find, open_hdf5, values

MOST_ALLOCATED = 400 << 20
SHAPE = (40, 24, 32)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One good file of each kind that is HDF5."""
    folder = tmp_path_factory.mktemp("good")
    rng = np.random.default_rng(0)
    with h5py.File(folder / "table.h5", "w") as file:
        file["frame"] = np.repeat(np.arange(20), 3)
        file["x_um"] = np.tile([10.0, 30.0, 50.0], 20) + np.repeat(np.arange(20), 3)
        file["y_um"] = np.tile([10.0, 30.0, 50.0], 20)
    with h5py.File(folder / "stack.h5", "w") as file:
        file.create_dataset("images", data=rng.integers(0, 255, SHAPE, np.uint8), chunks=(1, *SHAPE[1:]))
        file["images"].attrs["pixel_size_um"] = 0.5
    assert run_command_line(["track", str(folder / "table.h5"), "-o", str(folder / "tracks.h5")]) == 0
    write_small(folder / "calibration.h5", small_calibration())
    return folder


def replaced(file, name, **how):
    """Put another dataset in the place of one, with its attributes."""
    attributes = dict(file[name].attrs)
    dtype, ndim = file[name].dtype, max(1, file[name].ndim)
    del file[name]
    how.setdefault("shape", ((10**13 if ndim == 1 else 10**9), *(1000,) * (ndim - 1)))
    made = file.create_dataset(name, dtype=how.pop("dtype", dtype), **how)
    made.attrs.update(attributes)


def claims_terabytes(file, name):
    ndim = max(1, file[name].ndim)
    replaced(file, name, chunks=(1, *(1000,) * (ndim - 1)) if ndim > 1 else (4096,))


def claims_terabytes_compressed(file, name):
    ndim = max(1, file[name].ndim)
    chunks = (1, *(1000,) * (ndim - 1)) if ndim > 1 else (4096,)
    replaced(file, name, chunks=chunks, compression="gzip")


def lies_in_another_file(file, name):
    del file[name]
    file[name] = h5py.ExternalLink("/etc/passwd", "/x")


def has_its_values_in_another_file(file, name):
    replaced(file, name, shape=(100,), dtype="f8", external=[("/etc/passwd", 0, 800)])


def is_virtual(file, name):
    dtype = file[name].dtype
    del file[name]
    layout = h5py.VirtualLayout((100,), dtype)
    layout[:] = h5py.VirtualSource("nothing.h5", "x", (100,), dtype)
    file.create_virtual_dataset(name, layout)


def is_a_loop(file, name):
    del file[name]
    file[name] = h5py.SoftLink(f"/{name}")


def is_a_group(file, name):
    del file[name]
    file.create_group(name)


def is_missing(file, name):
    del file[name]


def is_text(file, name):
    del file[name]
    file[name] = ["many", "words"]


def is_one_number(file, name):
    del file[name]
    file[name] = 3.0


def is_empty(file, name):
    del file[name]
    file[name] = h5py.Empty("f8")


ATTACKS = [
    claims_terabytes,
    claims_terabytes_compressed,
    lies_in_another_file,
    has_its_values_in_another_file,
    is_virtual,
    is_a_loop,
    is_a_group,
    is_missing,
    is_text,
    is_one_number,
    is_empty,
]
COMMANDS = {
    "table.h5": ["info FILE", "track FILE -o OUT.h5", "evaluate --truth FILE --found FILE"],
    "stack.h5": ["info FILE::images", "detect FILE::images -o OUT.csv", "info FILE"],
    "tracks.h5": [
        "info FILE",
        "export FILE -o OUT.csv",
        "report FILE --overwrite",
        "recover FILE",
        "evaluate --truth FILE --found FILE",
    ],
    "calibration.h5": ["info FILE", "report FILE --overwrite"],
}  # fmt: skip
PLACES = {
    "table.h5": ["x_um", "frame"],
    "stack.h5": ["images"],
    "tracks.h5": ["tracks/rows", "frames", "events"],
    "calibration.h5": ["model/coefficients", "particles/z_um", "particles/reason", "planes/used"],
}


def say(arguments, capsys):
    """Run a command; its status and what it said as an error, which is one line and took little memory."""
    capsys.readouterr()
    tracemalloc.start()
    try:
        status = run_command_line(arguments)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = capsys.readouterr().err.strip()
    assert most < MOST_ALLOCATED
    assert "\n" not in said
    assert "bug in liveptv" not in said
    return status, said


def filled(command, path, good):
    names = {"FILE": str(path), "OUT": str(path.with_name("out")), "STACK": f"{good / 'stack.h5'}"}
    for short, name in names.items():
        command = command.replace(short, name)
    return command.split()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", PLACES)
def test_a_file_that_claims_what_it_has_not_is_refused_in_one_line(tmp_path, good, capsys, kind, attack):
    for place in PLACES[kind]:
        path = tmp_path / kind
        shutil.copy(good / kind, path)
        with h5py.File(path, "r+") as file:
            attack(file, place)
        for command in COMMANDS[kind]:
            for left in tmp_path.glob("out*"):
                left.unlink()
            before = path.read_bytes()
            status, said = say(filled(command, path, good), capsys)
            harmless = "text" in attack.__name__ and place == "particles/reason"
            if harmless:
                assert status in {0, 1}
                continue
            assert status in {1, 2}, (command, place)
            assert said.startswith("error: ")
            assert path.read_bytes() == before


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("value", [np.zeros(3), "text", 1e300, b"\xff\xfe", np.array(["a", "b"], "S1")])
def test_attributes_of_another_type_are_an_error_of_one_line_or_do_no_harm(
    tmp_path, good, capsys, kind, value
):
    path = tmp_path / kind
    with h5py.File(good / kind) as file:
        names = [(place, name) for place in ("/", *PLACES[kind]) for name in file[place].attrs]
    for place, name in names:
        shutil.copy(good / kind, path)
        with h5py.File(path, "r+") as file:
            file[place].attrs[name] = value
        status, _ = say(filled(COMMANDS[kind][0], path, good), capsys)
        assert status in {0, 1}, (place, name)


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.97])
def test_a_file_cut_short_is_an_error_of_one_line(tmp_path, good, capsys, kind, share):
    path = tmp_path / kind
    data = (good / kind).read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    for command in COMMANDS[kind]:
        status, said = say(filled(command, path, good), capsys)
        assert (status, said[:7]) == (1, "error: "), command


def test_the_good_files_are_read(good, capsys, tmp_path):
    for kind in ("table.h5", "stack.h5", "tracks.h5", "calibration.h5"):
        status, said = say(["info", str(good / kind)], capsys)
        assert (status, said) == (0, "")


@pytest.fixture
def odd(tmp_path):
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["ok"] = np.arange(10.0)
        file["soft"] = h5py.SoftLink("/ok")
        file["away"] = h5py.SoftLink("/further")
        file["further"] = h5py.ExternalLink("/etc/passwd", "/x")
        nothing = file.create_dataset("nan", (10**6,), "f8", chunks=True, compression="gzip", shuffle=True)
        nothing[:] = np.nan
        bomb = file.create_dataset("bomb", (3 << 27,), "u1", chunks=(1 << 26,), compression="gzip")
        bomb[:] = 0
        file.attrs.update(whole=3, text="a", matlab=np.array([[2.5]]))
    return path


def test_what_is_as_it_should_be_is_read(odd):
    with open_hdf5(odd) as file:
        assert values(file, "ok", ndim=1).tolist() == list(range(10))
        assert values(file, "soft").tolist() == list(range(10))
        assert np.isnan(values(file, "nan")).all()  # compresses as much as anything can
        assert (attribute(file, "whole", int), attribute(file, "matlab", float)) == (3, 2.5)
        assert attribute(file, "missing", str) is None
        assert find(file, "nothing/at/all") is None


def test_a_link_to_a_link_to_another_file_is_not_followed(odd):
    with pytest.raises(SourceError, match="further lies in another file"), open_hdf5(odd) as file:
        find(file, "away")
    with pytest.raises(SourceError, match="another file"), open_hdf5(odd) as file:
        check_file(file)


def test_what_is_compressed_to_nothing_is_read_only_up_to_a_limit(odd):
    assert odd.stat().st_size < 2_000_000
    with (
        pytest.raises(SourceError, match=r"bomb has 403 MB, more than the 67\.1 MB allowed"),
        open_hdf5(odd) as file,
    ):
        dataset(file, "bomb", most_bytes=1 << 26)


@pytest.mark.parametrize(("name", "kind"), [("whole", str), ("text", float), ("matlab", int)])
def test_an_attribute_of_another_type_is_named(odd, name, kind):
    with pytest.raises(SourceError, match=f"the attribute {name} is"), open_hdf5(odd) as file:
        attribute(file, name, kind)


@pytest.mark.parametrize(
    ("place", "attack"),
    [
        (place, attack)
        for place in ("model/coefficients", "particles/brightness", "width_curve/z_um")
        for attack in ATTACKS
        if (place, attack) != ("model/coefficients", is_missing)  # a width curve alone is a model as well
    ],
)
def test_a_calibration_that_is_a_model_is_refused_in_one_line_too(tmp_path, good, attack, place):
    path = tmp_path / "calibration.h5"
    shutil.copy(good / "calibration.h5", path)
    with h5py.File(path, "r+") as file:
        attack(file, place)
    readers = [load_fit_model] if "width" not in place else [WidthCurve.load]
    for read in readers:
        with pytest.raises(ConfigurationError) as caught:
            read(path)
        assert "\n" not in str(caught.value)
