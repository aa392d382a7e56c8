"""Model files made to take all memory, or never to come to an end: refused in one line, soon, in little memory."""

from __future__ import annotations

import base64
import io
import json
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from astigmatic import curve
from onnx_bytes import FLOAT, graph, looping, model, planes_of, value_info

from engines.backends.quantised import quantised_path, read_quantised, why_not_quantised, write_quantised
from engines.bounded_reading import inflate, read_arrays
from engines.classical.widths import WidthCurve
from engines.engine import BackEndError
from engines.network import model as model_module
from engines.network import session as session_module
from engines.network import weights
from engines.network.layout import CHANNELS, SLOTS
from engines.network.model import OnnxModel
from engines.network.time_limit import TimeLimits
from engines.refine import psf_text as packed
from engines.refine.psf import load_fit_model
from stream.errors import ConfigurationError, LivePTVError

PLANES = SLOTS * CHANNELS
FOR_EVER = 1 << 60
BOMB_BYTES = 1 << 29
CARD = {
    "schema_version": 2,
    "pixel_size_um": 0.8,
    "polarity": "dark",
    "middle_um": 0.0,
    "half_range_um": 100.0,
    "noise_contrast": 0.01,
    "peak_contrast": 0.1,
    "size": "small",
    "made_from": "a test",
}


def card(**changed: object) -> dict[str, str]:
    return {"liveptv": json.dumps(CARD | changed)}


def bomb() -> str:
    """Half a gigabyte of zeros, as text of half a megabyte."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(BOMB_BYTES >> 20)]
    return base64.b64encode(b"".join(parts) + packer.flush()).decode()


def memory_of(work: Callable[[], object]) -> float:
    """The most memory, MB, that Python and numpy took while `work` was done."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def plain(path: Path, metadata: dict[str, str]) -> Path:
    nodes, initial = planes_of("image", PLANES)
    whole = graph(
        nodes,
        [value_info("image", FLOAT, (1, 1, "H", "W"))],
        [value_info("maps", FLOAT, (1, PLANES, "h", "w"))],
        initial,
    )
    path.write_bytes(model(whole, metadata))
    return path


def test_a_network_that_comes_to_an_end_is_opened(tmp_path: Path) -> None:
    (tmp_path / "loop.onnx").write_bytes(looping(3, card(), PLANES))
    for path in (tmp_path / "loop.onnx", plain(tmp_path / "plain.onnx", card())):
        answer = OnnxModel(path)(np.zeros((1, 1, 32, 48), np.float32))
        assert answer.shape == (1, PLANES, 8, 12)


@pytest.mark.parametrize("trips", [FOR_EVER, 1 << 40])
def test_a_network_without_an_end_is_refused_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trips: int
) -> None:
    path = tmp_path / "endless.onnx"
    path.write_bytes(looping(trips, card(), PLANES))
    monkeypatch.setattr(model_module, "TRIAL_S", 0.5)
    with pytest.raises(
        ConfigurationError, match=r"endless.onnx was stopped after 0.5 s on one image of 64 x 64"
    ):
        OnnxModel(path)


def test_a_network_that_takes_too_long_on_a_later_image_is_stopped_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slow.onnx"
    path.write_bytes(looping(2000, card(), PLANES))
    opened = OnnxModel(path)
    monkeypatch.setattr(model_module, "LONGEST_RUN_S", 0.3)
    with pytest.raises(BackEndError, match="was stopped after"):
        opened(np.zeros((1, 1, 4096, 4096), np.float32))
    monkeypatch.undo()
    assert opened(np.zeros((1, 1, 64, 64), np.float32)).shape == (1, PLANES, 16, 16)


def test_what_ends_in_time_is_not_stopped() -> None:
    limits, stopped = TimeLimits(), []
    with limits.limited(60.0, lambda: stopped.append("early")):
        pass
    with limits.limited(0.0, lambda: stopped.append("late")):
        until_s = time.monotonic() + 240
        while not stopped and time.monotonic() < until_s:
            time.sleep(0.01)
    assert stopped == ["late"]


def test_a_particle_image_that_unpacks_to_more_than_a_model_has_is_refused_before_it_is_unpacked() -> None:
    text = bomb()

    def unpack() -> None:
        with pytest.raises(ConfigurationError, match=r"unpacks to more than the 67 MB that are read"):
            packed.unpack(text, "m.onnx")

    assert memory_of(unpack) < 250


@pytest.mark.parametrize(
    "shape", [[100_000, 1001, 1001], [169, 111], [-1, 111, 111], ["a"], [1 << 62, 0, 3], {"a": 1}, None]
)
def test_a_particle_image_has_the_shape_that_it_claims(shape: object) -> None:
    header = json.dumps({"shape": shape, "scale": 1.0, "polarity": "dark"}).encode()
    content = len(header).to_bytes(4, "little") + header + bytes(200)
    with pytest.raises(ConfigurationError, match=r"PSF model in m.onnx is damaged"):
        packed.unpack(base64.b64encode(zlib.compress(content)).decode(), "m.onnx")


def test_headers_that_nest_too_deep_or_claim_infinite_versions_are_damaged() -> None:
    deep = b"[" * 200_000
    content = len(deep).to_bytes(4, "little") + deep
    with pytest.raises(ConfigurationError, match="damaged"):
        packed.unpack(base64.b64encode(zlib.compress(content)).decode(), "m.onnx")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"schema_version": Infinity}',
        json.dumps(CARD | {"size": "x" * (1 << 21)}),
        "[1]",
        "{}",
    ],
)
def test_a_card_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"the metadata of .*m.onnx is damaged"):
        OnnxModel(plain(tmp_path / "m.onnx", {"liveptv": text}))


def test_weights_that_unpack_to_more_than_a_network_has_are_refused() -> None:
    text = bomb()

    def unpack() -> None:
        with pytest.raises(ConfigurationError, match="does not contain its weights"):
            weights.unpack({weights.KEY: text}, "m.onnx")

    assert memory_of(unpack) < 600


def test_arrays_have_the_size_that_they_claim() -> None:
    good = io.BytesIO()
    np.savez(good, a=np.arange(6.0).reshape(2, 3), b=np.int8(3))
    found = read_arrays(good.getvalue(), 10_000)
    np.testing.assert_array_equal(found["a"], np.arange(6.0).reshape(2, 3))
    assert found["b"] == 3
    claim = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        claim, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
    )
    bad = io.BytesIO()
    with zipfile.ZipFile(bad, "w") as file:
        file.writestr("a.npy", claim.getvalue() + bytes(64))
    with pytest.raises(ValueError, match="claims the shape"):
        read_arrays(bad.getvalue(), 10_000)
    with pytest.raises(ValueError, match="at most"):
        read_arrays(good.getvalue(), 100)


def test_what_is_cut_off_is_not_taken_for_whole() -> None:
    data = zlib.compress(bytes(range(256)) * 40)
    assert inflate(data, 1 << 20, "it") == bytes(range(256)) * 40
    with pytest.raises(ValueError, match="it is cut off"):
        inflate(data[:-8], 1 << 20, "it")
    with pytest.raises(ValueError, match=r"unpacks to more"):
        inflate(data, 1000, "it")


@pytest.mark.parametrize("member", ["facts.json", "graph.xml", "weights.bin"])
def test_an_8_bit_form_that_unpacks_to_more_than_a_network_is_damaged(tmp_path: Path, member: str) -> None:
    path = plain(tmp_path / "m.onnx", card())
    write_quantised(path, b"<net/>", b"\0" * 100, {})
    assert why_not_quantised(path) == ""
    with zipfile.ZipFile(quantised_path(path)) as file:
        content = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(quantised_path(path), "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data if name != member else bytes(BOMB_BYTES))
    with pytest.raises(BackEndError, match=r"is damaged .*at most"):
        read_quantised(path)


def test_a_curve_or_calibration_that_claims_more_than_it_can_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "curve.h5"
    curve().save(path)
    for name in ("z_um", "sigma_x_um", "amplitude"):
        with h5py.File(path, "r+") as file:
            kept = file[name][:]
            del file[name]
            file.create_dataset(name, shape=(1 << 40,), dtype="f8", chunks=(1 << 10,))
        with pytest.raises(ConfigurationError, match=rf"cannot read .*{name} (claims|has) .*"):
            WidthCurve.load(path)
        with h5py.File(path, "r+") as file:
            del file[name]
            file[name] = kept
    with h5py.File(path, "r+") as file:
        file.create_dataset("model/coefficients", shape=(1 << 20, 999, 999), dtype="f4", chunks=(1, 99, 99))
        file.create_group("noise").attrs.update(background_grey=1.0, read_variance=1.0, gain=1.0)
    with pytest.raises(LivePTVError, match=r"coefficients (claims|has) "):
        load_fit_model(path)


def test_a_model_file_of_gigabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plain(tmp_path / "m.onnx", card())
    monkeypatch.setattr(session_module, "MOST_MODEL_BYTES", 100)
    with pytest.raises(ConfigurationError, match="at most"):
        OnnxModel(path)
