import shutil

import mutated_folder
import mutated_hdf5
import mutated_imagej
import mutated_micromanager
import mutated_ome
import mutated_tables
import mutated_tiff
import mutated_zarr
import numpy as np
import pytest
from command_run import UnacceptableError, check_memory, check_no_traceback, command
from comparison import read_frames
from known_video import video
from mutation import NEVER_WRONG, Mutation

NEAR = 2048
"""Bytes at the beginning and at the end that are damaged on their own: headers and tables lie there."""
SEEDS = range(3)

small = (video() // 4).astype(np.uint8)
GOOD = {
    "tiff": mutated_tiff.plain(),
    "tiff page by page": mutated_tiff.pages(),
    "tiff in tiles": mutated_tiff.plain(compression="zlib", tile=(32, 32)),
    "BigTIFF": mutated_tiff.plain(bigtiff=True),
    "ome-tiff": mutated_ome.stamped(mutated_ome.TIMES),
    "ome-tiff set": mutated_ome.set_of_files("set_1.ome.tif"),
    "imagej": mutated_imagej.imagej(),
    "micro-manager": mutated_micromanager.tagged(),
    "micro-manager stack": mutated_micromanager.stack(2),
    "ndtiff": mutated_micromanager.nd(),
    "ome-zarr 0.4": mutated_zarr.ome_zarr("0.4"),
    "ome-zarr 0.5": mutated_zarr.ome_zarr("0.5"),
    "hdf5": mutated_hdf5.hdf5(),
    "hdf5 gzip": mutated_hdf5.hdf5(chunks=mutated_hdf5.CHUNKS, compression="gzip"),
    "folder of png": mutated_folder.folder_of("img_{:04d}.png", images=small),
    "folder of tif": mutated_folder.folder_of(),
    "csv": mutated_tables.table(),
    "parquet": mutated_tables.as_parquet(),
    "h5 table": mutated_tables.as_h5(),
}


def flip(data, at, random):
    """Other bits in one to four bytes."""
    for place in range(at, min(at + random.integers(1, 5), len(data))):
        data[place] ^= int(random.integers(1, 256))


def cut(data, at, random):
    """A piece is gone, or all that follows."""
    del data[at : at + int(random.choice([1, 7, 512, 10**9]))]


def insert(data, at, random):
    """A piece too much."""
    data[at:at] = random.bytes(int(random.choice([1, 8, 700])))


WHERE = {
    "at the beginning": lambda size: (0, min(NEAR, size)),
    "at the end": lambda size: (max(0, size - NEAR), size),
    "anywhere": lambda size: (0, size),
}


@pytest.fixture(scope="module", params=GOOD, ids=lambda name: name)
def good(request, tmp_path_factory):
    """A good file in a folder of its own, with its name in that folder."""
    folder = tmp_path_factory.mktemp("good")
    path = GOOD[request.param](folder)
    return request.param, folder, path.relative_to(folder)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("how", [flip, cut, insert], ids=lambda how: how.__name__)
def test_random_damage_gives_no_traceback_no_hang_and_no_huge_allocation(good, tmp_path, where, how):
    name, home, relative = good
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        shutil.copytree(home, folder)
        random = np.random.default_rng([seed, *f"{name} {where} {how.__name__}".encode()])
        files = sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size)
        file = files[random.integers(len(files))]
        data = bytearray(file.read_bytes())
        at = int(random.integers(*WHERE[where](len(data))))
        how(data, at, random)
        file.write_bytes(bytes(data))
        try:
            look_at(name, folder / relative)
        except UnacceptableError as error:
            pytest.fail(f"seed {seed}, byte {at} of {file.relative_to(folder)}: {error}")


def look_at(name, path):
    """Describe a file and read all of it."""
    info = command("info", path, "--json", bound=True, measure=True)
    check_no_traceback(info)
    check_memory(info)
    if info.status == 0 and name not in {"csv", "parquet", "h5 table"}:
        read_frames(Mutation("damaged", GOOD[name], NEVER_WRONG), path)
