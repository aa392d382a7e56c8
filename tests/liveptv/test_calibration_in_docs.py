import re
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
from calibration_files import varying, write_small
from typer.main import get_command

from calibration.particles.labels import HIDDEN, NEAR, SHORT, UNSETTLED
from calibration.scan.faults import Kind
from liveptv.cli.main import app

TEXT = Path(__file__).parents[2].joinpath("docs", "calibration.md").read_text("utf-8")
WHOLE_SCAN = {"depth", "step", "particles"}


@pytest.fixture
def path(tmp_path):
    return write_small(tmp_path / "calibration.h5", varying())


def documented():
    """Type and unit of every dataset in the page's table."""
    found = {}
    for line in re.findall(r"^\| `(?:\w+/)+\w+`.*", TEXT, re.MULTILINE):
        names, kind, unit = (cell.strip() for cell in line.split("|")[1:4])
        first, *others = re.findall(r"[\w/]+", names)
        group = first.partition("/")[0]
        found |= dict.fromkeys((first, *(f"{group}/{other}" for other in others)), (kind, unit))
    return found


def test_the_code_in_the_page_reads_the_file(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(block, names)
    table = names["found"].particles
    assert np.array_equal(names["z_um"], table.z_um[table.used])
    assert names["images"].shape == (10, 2, 33, 33)
    assert names["depth_um"].shape == (10,)
    assert names["cutouts"].contrast.shape[1:] == (2, 33, 33)


def test_the_page_names_every_dataset_with_its_type_and_unit(path):
    datasets = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: datasets.update({name: item}) if hasattr(item, "dtype") else None)
        table = documented()
        told_at_once = {name for name in datasets if "/" not in name or name.startswith("validation/")}
        assert all(f"`{name}`" in TEXT for name in ("named_terms", "validation/..."))
        of_mixtures = {"particles/kind", "traces/kind"}  # this file has one kind of particles
        assert set(table) == set(datasets) - told_at_once | of_mixtures
        for name, item in datasets.items():
            if name in told_at_once:
                continue
            kind, unit = table[name]
            assert kind == ("text" if h5py.check_string_dtype(item.dtype) else item.dtype.name), name
            assert unit == item.attrs.get("unit", unit), name
            assert unit == next((u for u in ("um", "px") if name.endswith(f"_{u}")), unit), name


def test_the_page_names_every_attribute(path):
    with h5py.File(path) as file:
        groups = [file, *(file[name] for name in ("model", "focal_planes", "noise", "surface"))]
        for group in groups:
            rest = TEXT.partition("| attributes of |")[2]
            assert [name for name in group.attrs if not re.search(rf"\b{name}\b", rest)] == []


def test_the_page_names_every_fault_reason_option_and_picture():
    wanted = [*(set(get_args(Kind)) - WHOLE_SCAN), "images", "curves", "labels", "places", "ambiguity"]
    assert [name for name in wanted if f"`{name}`" not in TEXT] == []
    assert [reason for reason in (NEAR, HIDDEN, SHORT, UNSETTLED) if f"| {reason} |" not in TEXT] == []
    options = [option for param in get_command(app).commands["calibrate"].params for option in param.opts]
    assert [option for option in options if option.startswith("--") and option not in TEXT] == ["--output"]
