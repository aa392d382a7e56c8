import errno
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_fakes import SHAPE, FakeCamera, FakeDrive, FakeTime, loses, picture

import acquisition.scan.paths
import acquisition.scan.tiff_output
from acquisition.recording import open_stack
from acquisition.scan.journal import Journal, ScanHeader
from acquisition.scan.paths import ScanPaths
from acquisition.scan.plan import plan_scan, planned_positions
from acquisition.scan.plane import PlaneTaker
from acquisition.scan.tiff_output import TiffOutput
from acquisition.scan.zscan import ZScan
from acquisition.settings import LimitsSettings, ScanSettings
from stream.errors import ConfigurationError, LivePTVError, OutputError

FORMATS = ["scan.ome.tif", "scan.ome.zarr"]


class Killed(BaseException):
    """The process is gone: nothing is tidied up."""


def kill(_burst):
    raise Killed


def header_of(scan_settings, focus_um=0.0, **changes):
    plan = plan_scan(scan_settings, LimitsSettings(), focus_um)
    values = {
        "positions_um": tuple(planned_positions(plan)),
        "images": scan_settings.images,
        "step_um": scan_settings.step_um,
        "height": SHAPE[0],
        "width": SHAPE[1],
        "dtype": "uint8",
        "pixel_size_um": 0.8,
        "settings": {"exposure_ms": 2.0, "camera": "Camera"},
        "focus_um": focus_um,
        "began_s": 1e9,
        "run_id": "run",
    }
    return ScanHeader(**{**values, **changes})


def take_scan(paths, scan_settings, misfortunes=None, *, resume=False, off_um=0.0, **changes):
    """Run a scan with a drive that ends `off_um` beyond its target; returns its progress."""
    time = FakeTime()
    drive = FakeDrive(time, off_um=off_um)
    taker = PlaneTaker(
        drive, FakeCamera(time, drive, misfortunes), scan_settings, clock=time.clock, sleep=time.sleep
    )
    shown = []
    scan = None
    if resume:
        scan = ZScan.resume(paths, lambda focus_um: header_of(scan_settings, focus_um, **changes))
    if scan is None:
        paths.discard_unfinished()
        scan = ZScan.begin(paths, header_of(scan_settings, **changes))
    try:
        scan.take(taker, scan_settings, shown.append)
        scan.finish({})
    finally:
        scan.close()
    return shown


def contents(path):
    """Images and positions, in the order of z and t."""
    stack = open_stack(path)
    try:
        found = [stack.read(index) for index in range(stack.info.planes)]
        images = np.stack([plane.image for plane in found]).reshape(*stack.info.lead, *SHAPE)
        focus_um = np.array([plane.focus_um for plane in found]).reshape(stack.info.lead)
        if stack.info.axes == "TZ":
            images, focus_um = images.swapaxes(0, 1), focus_um.swapaxes(0, 1)
        return images, focus_um
    finally:
        stack.close()


SCAN = ScanSettings(start_um=0, stop_um=30, images=3)


@pytest.mark.parametrize("name", FORMATS)
def test_a_scan_comes_back_with_its_images_and_exact_read_back_positions(tmp_path, name):
    paths = ScanPaths(tmp_path / name)
    shown = take_scan(paths, SCAN, off_um=1 / 7)
    images, focus_um = contents(paths.whole)
    assert images.shape == (11, 3, *SHAPE)
    for plane in range(11):
        for image in range(3):
            assert focus_um[plane, image] == 3.0 * plane + 1 / 7
            np.testing.assert_array_equal(images[plane, image], picture(3.0 * plane + 1 / 7, image))
    assert [progress.planes for progress in shown] == list(range(1, 12))
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_tifffile_reads_the_scan_with_its_axes_sizes_and_positions(tmp_path):
    paths = ScanPaths(tmp_path / "scan.ome.tif")
    take_scan(paths, SCAN, off_um=0.1)
    with tifffile.TiffFile(paths.whole) as file:
        assert (file.series[0].axes, file.series[0].shape) == ("ZTYX", (11, 3, *SHAPE))
        assert not file.is_bigtiff
        np.testing.assert_array_equal(file.asarray()[4, 2], picture(12.1, 2))
        pixels = ElementTree.fromstring(file.ome_metadata).find("{*}Image/{*}Pixels")
    assert pixels is not None
    assert (pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeZ"), pixels.get("SizeC")) == (
        "0.8",
        "3.0",
        "1",
    )
    planes = pixels.findall("{*}Plane")
    assert [(p.get("TheZ"), p.get("TheT")) for p in planes[:4]] == [
        ("0", "0"),
        ("0", "1"),
        ("0", "2"),
        ("1", "0"),
    ]
    assert [float(p.get("PositionZ")) for p in planes] == [3.0 * z + 0.1 for z in range(11) for _ in range(3)]
    assert {p.get("ExposureTime") for p in planes} == {"2.0"}
    assert all(p.get("DeltaT") for p in planes)


def test_a_scan_without_a_known_pixel_size_does_not_invent_one(tmp_path):
    paths = ScanPaths(tmp_path / "scan.ome.tif")
    take_scan(paths, SCAN, pixel_size_um=None)
    stack = open_stack(paths.whole)
    assert np.isnan(stack.info.pixel_size_um)
    stack.close()


def test_a_scan_beyond_four_gigabytes_is_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(acquisition.scan.tiff_output, "CLASSIC_TIFF_BYTES", 1000)
    paths = ScanPaths(tmp_path / "scan.ome.tif")
    take_scan(paths, SCAN)
    with tifffile.TiffFile(paths.whole) as file:
        assert file.is_bigtiff
    assert contents(paths.whole)[1][10, 0] == 30.0


def test_the_zarr_is_what_ome_says(tmp_path):
    paths = ScanPaths(tmp_path / "scan.ome.zarr")
    take_scan(paths, SCAN)
    group = zarr.open_group(str(paths.whole), mode="r")
    image = group.attrs["multiscales"][0]
    assert (image["version"], [axis["name"] for axis in image["axes"]]) == ("0.4", ["t", "z", "y", "x"])
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 3.0, 0.8, 0.8]
    assert group["0"].chunks == (1, 1, *SHAPE)
    assert json.dumps(dict(group.attrs), allow_nan=False)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(FORMATS),
    deaths=st.lists(st.integers(0, 11), min_size=1, max_size=4),
    cut=st.integers(0, 400),
    spoilt=st.integers(0, 10),
)
def test_a_scan_that_was_killed_and_resumed_is_the_same_as_one_that_was_not(
    tmp_path_factory, name, deaths, cut, spoilt
):
    folder = tmp_path_factory.mktemp("scan")
    whole, broken = ScanPaths(folder / f"whole-{name}"), ScanPaths(folder / f"broken-{name}")
    take_scan(whole, SCAN, off_um=0.2)
    resume = False
    for death in deaths:
        try:
            take_scan(broken, SCAN, {death: kill, 1: loses(1)}, resume=resume, off_um=0.2)
            break
        except Killed:
            resume = True
        cut_tail(broken.journal, cut)
        spoil(broken, spoilt)
    if not broken.whole.exists():
        take_scan(broken, SCAN, resume=True, off_um=0.2)
    for mine, theirs in zip(contents(whole.whole), contents(broken.whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not broken.journal.exists()
    assert not broken.partial.exists()
    shutil.rmtree(folder)


def cut_tail(path, count):
    """The last bytes never reached the disk."""
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - count)])


def spoil(paths, plane):
    """The images of a plane never reached the disk."""
    if paths.is_zarr:
        zarr.open_group(str(paths.partial), mode="r+")["0"][1, plane] = 0
    else:
        stack = tifffile.memmap(paths.partial, series=0, mode="r+")
        stack[plane, 1] = 0
        stack.flush()


def test_resuming_takes_only_what_is_missing(tmp_path):
    paths = ScanPaths(tmp_path / "scan.ome.tif")
    with pytest.raises(Killed):
        take_scan(paths, SCAN, {7: kill})
    shown = take_scan(paths, SCAN, resume=True)
    assert [progress.planes for progress in shown] == [8, 9, 10, 11]


@pytest.mark.parametrize(
    ("other", "changes", "what"),
    [
        ({"step_um": 2}, {}, "step_um: 3.0, 2.0"),
        ({"images": 5}, {}, "images: 3, 5"),
        ({"stop_um": 33}, {}, "planes: 11, 12"),
        ({}, {"width": 99}, "width: 16, 99"),
        ({}, {"settings": {"exposure_ms": 4.0, "camera": "Camera"}}, "exposure_ms: 2.0, 4.0"),
    ],
)
def test_another_scan_is_not_gone_on_with(tmp_path, other, changes, what):
    paths = ScanPaths(tmp_path / "scan.ome.tif")
    with pytest.raises(Killed):
        take_scan(paths, SCAN, {2: kill})
    changed = ScanSettings(**{"start_um": 0, "stop_um": 30, "images": 3, **other})
    with pytest.raises(ConfigurationError, match=what):
        take_scan(paths, changed, resume=True, **changes)
    take_scan(paths, SCAN, resume=True)
    assert paths.whole.exists()


def test_a_range_around_the_focus_stays_where_it_was_begun(tmp_path):
    paths = ScanPaths(tmp_path / "scan.ome.tif")
    around = ScanSettings(range_um=12, images=2)
    with pytest.raises(Killed):
        take_scan(paths, around, {2: kill}, focus_um=50.0)
    take_scan(paths, around, resume=True)
    assert contents(paths.whole)[1][:, 0].tolist() == [44, 47, 50, 53, 56]


def test_a_plane_that_cannot_be_taken_leaves_the_rest_to_be_gone_on_with(tmp_path):
    paths = ScanPaths(tmp_path / "scan.ome.tif")
    with pytest.raises(LivePTVError, match="plane 4 at 12 um"):
        take_scan(paths, SCAN, dict.fromkeys(range(4, 99), loses(1)))
    with tifffile.TiffFile(paths.partial) as file:
        np.testing.assert_array_equal(file.asarray()[3, 2], picture(9.0, 2))
    take_scan(paths, SCAN, resume=True)
    assert contents(paths.whole)[0].shape[0] == 11


@pytest.mark.parametrize("name", FORMATS)
def test_a_scan_that_the_disk_has_no_room_for_is_refused_before_it_begins(tmp_path, monkeypatch, name):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(acquisition.scan.paths.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"needs .* GB, but .* has only 0\.00 GB left"):
        take_scan(ScanPaths(tmp_path / name), SCAN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_that_fills_up_during_the_scan_costs_only_the_plane_at_hand(tmp_path, monkeypatch, name):
    paths = ScanPaths(tmp_path / name)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(_burst):
        if paths.is_zarr:
            monkeypatch.setattr(zarr.Array, "__setitem__", full)
        else:
            monkeypatch.setattr(TiffOutput, "_seek", full)

    with pytest.raises(OutputError, match="No space left on device"):
        take_scan(paths, SCAN, {5: fill})
    monkeypatch.undo()
    assert take_scan(paths, SCAN, resume=True)[0].planes == 6
    assert contents(paths.whole)[1][:, 0].tolist() == [3.0 * plane for plane in range(11)]


def test_a_scan_that_cannot_begin_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OutputError("the journal cannot be written")

    monkeypatch.setattr(Journal, "create", fail)
    with pytest.raises(OutputError):
        take_scan(ScanPaths(tmp_path / "scan.ome.tif"), SCAN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["scan.tif", "scan.zarr", "scan", ".ome.tif", "scan.ome.png"])
def test_the_format_is_chosen_by_the_suffix(tmp_path, name):
    with pytest.raises(ConfigurationError, match=r"NAME\.ome\.tif"):
        ScanPaths(tmp_path / name)


def test_references_lie_beside_the_scan():
    assert ScanPaths(Path("x/bead.OME.tiff")).reference("dark") == Path("x/bead.dark.tif")


def test_a_journal_that_is_none_is_refused(tmp_path):
    paths = ScanPaths(tmp_path / "scan.ome.tif")
    with pytest.raises(Killed):
        take_scan(paths, SCAN, {2: kill})
    paths.journal.write_text('{"version": 1, "something": "else"}\n')
    with pytest.raises(OutputError, match="not the journal of a scan"):
        take_scan(paths, SCAN, resume=True)
