"""One of several channels of a file is chosen behind `::`, whatever kind of file it is."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from acquisition.recording import open_recording
from stream.errors import SourceError

STACK = np.arange(4 * 2 * 20 * 30, dtype=np.uint16).reshape(4, 2, 20, 30)


def imagej(folder):
    tifffile.imwrite(folder / "video.tif", STACK, imagej=True, metadata={"axes": "TCYX"})
    return folder / "video.tif"


def plain(folder):
    tifffile.imwrite(folder / "video.tif", STACK, photometric="minisblack", metadata={"axes": "TCYX"})
    return folder / "video.tif"


def tiled(folder):
    tifffile.imwrite(
        folder / "video.tif", STACK, photometric="minisblack", metadata={"axes": "TCYX"}, tile=(16, 16)
    )
    return folder / "video.tif"


def ome(folder):
    tifffile.imwrite(
        folder / "video.ome.tif", STACK, ome=True, photometric="minisblack", metadata={"axes": "TCYX"}
    )
    return folder / "video.ome.tif"


def hdf5(folder):
    with h5py.File(folder / "video.h5", "w") as file:
        file.create_dataset("data", data=STACK, chunks=(1, 1, 20, 30)).attrs["axes"] = "TCYX"
    return folder / "video.h5"


def channels_first(folder):
    with h5py.File(folder / "video.h5", "w") as file:
        file.create_dataset("data", data=STACK.swapaxes(0, 1)).attrs["axes"] = "CTYX"
    return folder / "video.h5"


def ome_zarr(folder, labels=()):
    group = zarr.open_group(folder / "video.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=STACK[:, :, None], chunks=(1, 1, 1, 20, 30))
    image = {"version": "0.4", "axes": list("tczyx"), "datasets": [{"path": "0"}]}
    group.attrs["multiscales"] = [image]
    group.attrs["omero"] = {"channels": [{"label": label} for label in labels]}
    return folder / "video.zarr"


FORMATS = [imagej, plain, tiled, ome, hdf5, channels_first, ome_zarr]


def frames(path, **options):
    recording = open_recording(path, run_id="run", **options)
    found = []
    try:
        while not recording.ended:
            found.append(recording.read(0.1).image)
    finally:
        recording.close()
    return np.stack(found), recording


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("write", FORMATS)
def test_a_channel_is_chosen_by_its_number(tmp_path, write, channel):
    found, recording = frames(f"{write(tmp_path)}::channel={channel}")
    np.testing.assert_array_equal(found, STACK[:, channel])
    assert recording.info.frames == 4


@pytest.mark.parametrize("write", FORMATS)
def test_without_a_choice_the_command_asks_which_and_how(tmp_path, write):
    with pytest.raises(SourceError) as caught:
        frames(write(tmp_path))
    assert "contains 2 channels (0, 1)" in str(caught.value)
    assert f"{tmp_path.name}/video" in str(caught.value)
    assert "::channel=0" in str(caught.value)


@pytest.mark.parametrize("write", FORMATS)
def test_a_channel_that_is_not_there_is_refused_with_those_that_are(tmp_path, write):
    with pytest.raises(SourceError, match="has no channel '2', only 0, 1"):
        frames(f"{write(tmp_path)}::channel=2")


@pytest.mark.parametrize("write", [imagej, plain, ome, hdf5])
def test_a_channel_of_axes_that_the_user_names(tmp_path, write):
    path = write(tmp_path)
    np.testing.assert_array_equal(frames(f"{path}::channel=1", axes="TCYX")[0], STACK[:, 1])


def test_channels_of_an_ome_zarr_have_names(tmp_path):
    path = ome_zarr(tmp_path, ["DAPI", "GFP"])
    np.testing.assert_array_equal(frames(f"{path}::channel=GFP")[0], STACK[:, 1])
    with pytest.raises(SourceError, match=r"DAPI, GFP"):
        frames(path)


def test_a_dataset_and_a_channel_of_it(tmp_path):
    path = hdf5(tmp_path)
    with h5py.File(path, "a") as file:
        file["other"] = STACK
    np.testing.assert_array_equal(frames(f"{path}::data,channel=1")[0], STACK[:, 1])
    with pytest.raises(SourceError, match="no channel to choose"):
        frames(f"{path}::other,channel=1")


def test_frames_that_were_not_written_are_counted_in_the_channel_alone(tmp_path):
    path = ome_zarr(tmp_path)
    for name in ("2.0.0.0.0", "3.0.0.0.0", "1.1.0.0.0"):
        (path / "0" / name).unlink()
    found, recording = frames(f"{path}::channel=0")
    assert len(found) == 2
    assert any("only 2 of 4 frames were written" in text for text in recording.remarks)
    found, recording = frames(f"{path}::channel=1")
    assert len(found) == 4
    assert any("the first at frame 1" in text for text in recording.remarks)


def test_a_broken_file_names_the_first_missing_frame_of_the_channel(tmp_path):
    path = imagej(tmp_path)
    path.write_bytes(path.read_bytes()[: 384 + 5 * 1200 + 100])
    with pytest.raises(SourceError, match="at frame 2 of 4"):
        frames(f"{path}::channel=1")
