"""Which recordings a folder has: the files of one count once, and what is none is told."""

import json

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from batch_fakes import blobs, write_recording

from liveptv.batch.recordings.finding import find_recordings
from liveptv.batch.recordings.fingerprint import files_of, fingerprint_of, is_same
from tracking.trajectories.file import TrajectoryWriter


def found_in(folder, without=None):
    found = find_recordings(folder, without or folder / "results")
    return [path.relative_to(folder).as_posix() for path in found.paths], found.left_out


def test_stacks_are_found_in_all_folders_but_the_hidden_and_that_of_the_results(tmp_path):
    for place in ("a.tif", "day1/b.tif", "day1/deep/c.ome.tif", ".hidden/d.tif", "results/e.tif"):
        write_recording(tmp_path / place) if "ome" not in place else None
    (tmp_path / "day1/deep").mkdir()
    tifffile.imwrite(tmp_path / "day1/deep/c.ome.tif", blobs(4), metadata={"axes": "TYX"})
    assert found_in(tmp_path) == (["a.tif", "day1/b.tif", "day1/deep/c.ome.tif"], [])


def test_single_images_of_a_folder_are_one_recording(tmp_path):
    (tmp_path / "run").mkdir()
    for n, image in enumerate(blobs(12)):
        tifffile.imwrite(tmp_path / f"run/img_{n:03d}.tif", image)
    assert found_in(tmp_path)[0] == ["run"]


OME = """<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="80" SizeY="64" SizeZ="1" SizeC="1" SizeT="{count}">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>"""
PART = (
    '<TiffData FirstT="{first}" IFD="0" PlaneCount="{n}">'
    '<UUID FileName="{name}">urn:uuid:{own}</UUID></TiffData>'
)


@pytest.mark.parametrize("per_file", [1, 2])
def test_the_files_of_one_set_are_one_recording(tmp_path, per_file):
    stack = blobs(4)
    names = {f"00000000-0000-0000-0000-00000000000{n}": f"set_{n}.ome.tif" for n in range(4 // per_file)}
    data = "".join(
        PART.format(first=n * per_file, n=per_file, name=name, own=own)
        for n, (own, name) in enumerate(names.items())
    )
    for n, (own, name) in enumerate(names.items()):
        with tifffile.TiffWriter(tmp_path / name) as writer:
            for k in range(per_file):
                xml = OME.format(own=own, count=4, data=data) if k == 0 else None
                writer.write(stack[n * per_file + k], description=xml, metadata=None, contiguous=False)
    assert found_in(tmp_path) == (["set_0.ome.tif"], [])
    assert fingerprint_of(tmp_path / "set_0.ome.tif", sampled=False).files == len(names)


def test_a_zarr_is_one_recording_and_its_inside_is_not_searched(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(4, 8, 8), chunks=(1, 8, 8), dtype="u1")
    array[:] = blobs(4, shape=(8, 8), count=0)
    assert found_in(tmp_path)[0] == ["a.zarr"]


def test_a_recorded_run_is_one_recording(tmp_path):
    tifffile.imwrite(tmp_path / "tracks.frames.ome.tif", blobs(4), metadata={"axes": "TYX"})
    head = {
        "liveptv_recording": 1,
        "run_id": "a",
        "images": "tracks.frames.ome.tif",
        "trajectories": "tracks.h5",
    }
    (tmp_path / "tracks.frames.jsonl").write_text(json.dumps(head) + "\n")
    with TrajectoryWriter(tmp_path / "tracks.h5", run_id="a", attributes={}) as writer:
        writer.finalize({}, "done")
    assert found_in(tmp_path) == (["tracks.frames.ome.tif"], [])


def test_of_hdf5_files_only_those_with_images_are_recordings(tmp_path):
    with h5py.File(tmp_path / "video.h5", "w") as file:
        file["images"] = blobs(4)
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["numbers"] = np.arange(5.0)
    paths, left_out = found_in(tmp_path)
    assert paths == ["video.h5"]
    assert len(left_out) == 1
    assert "table.h5 is left out" in left_out[0]


def test_a_single_image_beside_recordings_is_left_out_and_told(tmp_path):
    write_recording(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "bright.tif", blobs(1)[0])
    paths, left_out = found_in(tmp_path)
    assert paths == ["a.tif"]
    assert left_out == [f"{tmp_path / 'bright.tif'} is left out: it is a single image beside recordings"]


def test_a_recording_that_is_cut_short_is_a_recording(tmp_path):
    whole = write_recording(tmp_path / "a.tif")
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    assert found_in(tmp_path) == (["a.tif"], [])


def test_a_file_that_is_no_image_is_a_recording_that_will_fail(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"not a TIFF at all")
    assert found_in(tmp_path) == (["a.tif"], [])


def test_a_recording_is_the_same_until_one_of_its_files_changes(tmp_path):
    (tmp_path / "run").mkdir()
    for n, image in enumerate(blobs(3)):
        tifffile.imwrite(tmp_path / f"run/img_{n}.tif", image)
    known = fingerprint_of(tmp_path / "run", sampled=True)
    assert known.files == len(files_of(tmp_path / "run")) == 3
    assert is_same(tmp_path / "run", known)
    copied = tmp_path / "run/img_1.tif"
    copied.touch()
    assert is_same(tmp_path / "run", known), "another time alone does not make another recording"
    data = bytearray(copied.read_bytes())
    data[-1] ^= 255
    copied.write_bytes(data)
    assert not is_same(tmp_path / "run", known)
    tifffile.imwrite(copied, blobs(1, shape=(16, 16), count=1)[0])
    assert not is_same(tmp_path / "run", known)
