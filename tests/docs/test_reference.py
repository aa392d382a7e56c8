"""The pages that are made from the code are those of this code."""

import importlib.util
import re
from pathlib import Path

import pytest

from acquisition.physics.optics import OpticsModel
from calibration.training.settings import TrainingSettings
from liveptv.config import Experiment

DOCS = Path(__file__).parents[2] / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = load("make_reference")


def settings_models():
    """The models of the experiment file and of what else a user sets, each once."""
    waiting, found = [Experiment, OpticsModel, TrainingSettings], []
    while waiting:
        model = waiting.pop()
        if model not in found:
            found.append(model)
            waiting += [
                inner
                for field in model.model_fields.values()
                for inner in REFERENCE.models_in(field.annotation)
            ]
    return found


@pytest.mark.parametrize("page", REFERENCE.PAGES)
def test_the_page_is_up_to_date(page):
    assert DOCS.joinpath(page).read_text("utf-8") == REFERENCE.PAGES[page](), (
        "run: python docs/make_reference.py"
    )


@pytest.mark.parametrize("model", settings_models(), ids=lambda model: model.__name__)
def test_every_setting_has_a_description(model):
    assert not [name for name, field in model.model_fields.items() if not (field.description or "").strip()]


def test_every_section_and_key_stands_in_the_page():
    text = DOCS.joinpath("settings.md").read_text("utf-8")
    for name, field in Experiment.model_fields.items():
        section = text.partition(f"## [{name}]\n")[2].partition("\n## ")[0]
        model = next(REFERENCE.models_in(field.annotation))
        missing = [key for key in model.model_fields if not re.search(rf"\b{key}\b", section)]
        assert not missing, f"[{name}] lacks {missing}"
    assert "{ first_um, last_um, count }" in text


def test_every_command_stands_in_the_page_with_its_options():
    text = DOCS.joinpath("command-line.md").read_text("utf-8")
    run = text.partition("## liveptv run\n")[2].partition("\n## ")[0]
    assert "liveptv run EXPERIMENT" in run
    assert "`-m`, `--model` PATH" in run
    assert "### liveptv keys make\n" in text
