"""The metadata of an ONNX file is changed and its network stays, byte for byte."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.network.model import OnnxModel
from engines.network.properties import with_properties
from liveptv.models import SHIPPED_MODEL

CONTENT = SHIPPED_MODEL.read_bytes()


def test_a_changed_model_has_the_new_text_the_other_texts_and_the_same_network(tmp_path):
    before = OnnxModel(SHIPPED_MODEL)
    text = "über 1 µm\n" * 40_000
    (tmp_path / "new.onnx").write_bytes(with_properties(CONTENT, {"note": "first", "liveptv_note": text}))
    after = OnnxModel(tmp_path / "new.onnx")
    assert after.metadata == {**before.metadata, "note": "first", "liveptv_note": text}
    image = np.random.default_rng(0).normal(0, 1, (1, 1, 64, 96)).astype(np.float32)
    np.testing.assert_array_equal(after(image), before(image))


def test_an_entry_is_replaced_and_not_added_again():
    once = with_properties(CONTENT, {"note": "one"})
    twice = with_properties(once, {"note": "two"})
    assert len(twice) == len(once)
    assert with_properties(twice, {"note": "one"}) == once


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_what_is_no_onnx_file_is_refused_or_kept(content):
    try:
        found = with_properties(content, {"a": "b"})
    except ValueError:
        return
    assert found.endswith(b"a\x12\x01b")


@pytest.mark.parametrize("part", [0.3, 0.7, 0.999])
def test_a_file_that_is_cut_short_is_refused(part):
    with pytest.raises(ValueError, match="cut short"):
        with_properties(CONTENT[: int(len(CONTENT) * part)], {"note": "x"})
