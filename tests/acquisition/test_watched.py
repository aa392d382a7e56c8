"""Real files of a watched folder: half-written ones are waited for, growing ones followed, the end is told."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from PIL import Image

from acquisition.source_settings import SourceSettings
from acquisition.watched_folder.watched import Watched, open_watched
from stream.errors import SourceError
from stream.messages import Frame

PATIENCE_S = 240.0
QUICK = {"settled_s": 0.05, "poll_s": 0.01, "missing_s": 0.3}


def picture(number: int) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(number).integers(0, 4000, (12, 16)).astype(np.uint16)


@contextmanager
def watching(folder: Path, **settings: Any) -> Iterator[tuple[Watched, list[str]]]:
    said: list[str] = []
    options = {name: settings.pop(name) for name in ("seconds",) if name in settings}
    source = open_watched(
        SourceSettings(**{"watch": folder, **QUICK, **settings}), run_id="run", say=said.append, **options
    )
    source.start()
    try:
        yield source, said
    finally:
        source.close()


def until(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def read(source: Watched, count: int) -> list[Frame]:
    frames: list[Frame] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while len(frames) < count:
        assert time.monotonic() < deadline_s, f"only {len(frames)} frames: {source.counts()}"
        frame = source.read(0.05)
        if frame is not None:
            frames.append(frame)
    return frames


def nothing_comes(source: Watched, for_s: float = 0.25) -> None:
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        assert source.read(0.02) is None


def test_slices_of_volumes_are_not_taken_for_images_unless_it_is_said(tmp_path: Path) -> None:
    volume = np.stack([picture(number) for number in range(3)])
    about = {"axes": "ZYX", "PhysicalSizeZ": 0.5, "PhysicalSizeZUnit": "µm"}
    tifffile.imwrite(tmp_path / "stack.ome.tif", volume, photometric="minisblack", metadata=about)
    said: list[str] = []
    with pytest.raises(SourceError, match="no image could be taken"):
        open_watched(
            SourceSettings(watch=tmp_path, end_file="end", quiet_s=1.0, **QUICK),
            run_id="run",
            say=said.append,
            volumes=False,
        ).close()
    assert any("stack.ome.tif holds volumes of 3 slices" in text and "source.axes" in text for text in said)
    with watching(tmp_path, axes="TYX") as (source, _):
        for frame, plane in zip(read(source, 3), volume, strict=True):
            np.testing.assert_array_equal(frame.image, plane)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".pgm"])
def test_single_images_arrive_with_their_pixels(tmp_path: Path, suffix: str) -> None:
    def save(number: int) -> None:
        path = tmp_path / f"img_{number:03d}{suffix}"
        if suffix == ".tif":
            tifffile.imwrite(path, picture(number))
        else:
            Image.fromarray(picture(number)).save(path)

    save(0)
    with watching(tmp_path, frame_rate_hz=20, pixel_size_um=0.3) as (source, _):
        for number in range(1, 4):
            save(number)
        frames = read(source, 4)
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, picture(number))
            assert frame.info.time_s == pytest.approx(number / 20)
            assert (frame.info.frame, frame.info.camera_frame, frame.info.pixel_size_um) == (
                number,
                number,
                0.3,
            )
        (tmp_path / "liveptv.end").touch()
        until(lambda: source.read(0.01) is None and source.ended)
        assert source.counts() == {"received": 4, "lost_in_camera": 0, "lost_in_folder": 0}


@pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp", ".jpg"])
def test_a_half_written_image_is_waited_for(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / "elsewhere"
    whole.mkdir()
    image = picture(5).astype(np.uint8)
    for number in range(3):
        Image.fromarray(image).save(whole / f"img_{number}{suffix}")
    shutil.copy(whole / f"img_0{suffix}", tmp_path)
    with watching(tmp_path, missing_s=20) as (source, _):
        read(source, 1)
        content = (whole / f"img_1{suffix}").read_bytes()
        for part in (0.1, 0.5, 0.95):
            (tmp_path / f"img_1{suffix}").write_bytes(content[: int(part * len(content))])
            nothing_comes(source)
        (tmp_path / f"img_1{suffix}").write_bytes(content)
        (frame,) = read(source, 1)
        with Image.open(whole / f"img_1{suffix}") as expected:
            np.testing.assert_array_equal(frame.image, np.asarray(expected))
        assert source.counts()["lost_in_folder"] == 0


def test_a_film_is_taken_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "film.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as film:
        film.write(picture(0), contiguous=False)
        with watching(tmp_path, frame_rate_hz=10) as (source, _):
            frames = []
            for number in range(1, 8):
                film.write(picture(number), contiguous=False)
                frames += read(source, 1)
            frames += read(source, 1)
            for number, frame in enumerate(frames):
                np.testing.assert_array_equal(frame.image, picture(number))
            assert source.counts()["lost_in_folder"] == 0


@pytest.mark.parametrize("grows", ["by_length", "by_chunks"])
def test_a_zarr_is_taken_while_it_is_written(tmp_path: Path, grows: str) -> None:
    length = 1 if grows == "by_length" else 6
    array = zarr.create_array(
        tmp_path / "film.zarr", shape=(length, 12, 16), chunks=(1, 12, 16), dtype="uint16", fill_value=0
    )
    array[0] = picture(0)
    with watching(tmp_path) as (source, _):
        frames = read(source, 1)
        for number in range(1, 6):
            if grows == "by_length":
                array.resize((number + 1, 12, 16))
            array[number] = picture(number)
            frames += read(source, 1)
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, picture(number))


def test_frames_of_an_unfinished_chunk_are_not_taken_for_black_ones(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "film.zarr", shape=(8, 12, 16), chunks=(4, 12, 16), dtype="uint16", fill_value=0
    )
    array[0:4] = np.stack([picture(n) for n in range(4)])
    array[4] = picture(4)
    with watching(tmp_path, missing_s=20) as (source, _):
        frames = read(source, 4)
        nothing_comes(source)
        array[5:8] = np.stack([picture(n) for n in range(5, 8)])
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, picture(number))


def test_several_films_make_one_run(tmp_path: Path) -> None:
    for film in range(3):
        tifffile.imwrite(
            tmp_path / f"run_{film}.tif",
            np.stack([picture(10 * film + n) for n in range(4)]),
            photometric="minisblack",
        )
    with watching(tmp_path, quiet_s=1) as (source, said):
        frames = read(source, 12)
        assert [frame.info.camera_frame for frame in frames] == list(range(12))
        np.testing.assert_array_equal(frames[9].image, picture(21))
        until(lambda: source.read(0.01) is None and source.ended)
        assert any("quiet_s" in text for text in said)


def test_an_image_of_another_size_is_lost_and_the_run_goes_on(tmp_path: Path) -> None:
    for number in range(3):
        image = picture(number) if number != 1 else picture(number)[:6]
        tifffile.imwrite(tmp_path / f"img_{number}.tif", image)
    with watching(tmp_path) as (source, said):
        frames = read(source, 2)
        assert [frame.info.camera_frame for frame in frames] == [0, 2]
        assert source.counts()["lost_in_folder"] == 1
        assert any("another size" in text for text in said)


def test_colour_and_broken_files_are_lost_with_the_reason(tmp_path: Path) -> None:
    for number in (0, 3):
        tifffile.imwrite(tmp_path / f"img_{number}.tif", picture(number))
    (tmp_path / "img_1.tif").write_bytes(b"this is no image")
    tifffile.imwrite(tmp_path / "img_2.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with watching(tmp_path) as (source, said):
        frames = read(source, 2)
        assert [frame.info.camera_frame for frame in frames] == [0, 3]
        assert source.counts()["lost_in_folder"] == 2
        assert sum("cannot be read" in text for text in said) == 1
        assert source.counts()["unreadable"] == 2


def test_nothing_is_ever_deleted_or_changed(tmp_path: Path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"img_{number}.tif", picture(number))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with watching(tmp_path) as (source, _):
        read(source, 3)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    tifffile.imwrite(folder / "img_0.tif", picture(0))
    with watching(folder) as (source, said):
        read(source, 1)
        folder.rename(tmp_path / "gone")
        until(lambda: source.read(0.01) is not None or any("waited for" in text for text in said))
        (tmp_path / "gone").rename(folder)
        tifffile.imwrite(folder / "img_1.tif", picture(1))
        (frame,) = read(source, 1)
        np.testing.assert_array_equal(frame.image, picture(1))


def test_an_empty_folder_is_left_in_words(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no image could be taken"), watching(tmp_path, quiet_s=0.2):
        pass
    with pytest.raises(SourceError, match="there is no folder"), watching(tmp_path / "none"):
        pass
    (tmp_path / "img_0.tif").write_bytes(b"II*")
    with pytest.raises(SourceError, match=r"img_0\.tif"), watching(tmp_path, quiet_s=0.2):
        pass


def test_a_run_that_waits_for_files_ends_after_its_time(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "img_0.tif", picture(0))
    with watching(tmp_path, seconds=0.2) as (source, _):
        read(source, 1)
        until(lambda: source.read(0.01) is None and source.ended)


def test_during_a_pause_files_wait(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "img_0.tif", picture(0))
    with watching(tmp_path) as (source, _):
        read(source, 1)
        source.pause()
        tifffile.imwrite(tmp_path / "img_1.tif", picture(1))
        nothing_comes(source)
        source.resume()
        (frame,) = read(source, 1)
        assert frame.info.camera_frame == 1
