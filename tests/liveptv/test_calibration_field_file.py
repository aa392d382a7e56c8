"""Files and words of calibrations with a field model: damage is an error of one line, and what is said is true."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from calibration_files import named_terms, particle_table, small_calibration, varying, write_small

from calibration.calibration_file import read_calibration
from calibration.training.material import from_calibration
from liveptv.cli import run_command_line
from liveptv.reports.calibration_words import field_in_words
from stream.errors import SourceError

NAN = float("nan")
NUMBERS, MISFIT, NAMED = "model/field/numbers", "model/misfit", "named_terms"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("field") / "whole.h5", varying())


def put(file, name, value):
    if name in file:
        del file[name]
    file[name] = value


def damaged(name, **values):
    """Change numbers of a JSON text."""

    def change(file):
        put(file, name, json.dumps(json.loads(file[name][()]) | values))

    return change


def column(name, value):
    def change(file):
        put(file, f"validation/{name}", value(file[f"validation/{name}"][:]))

    return change


def every_column(value):
    def change(file):
        for name in list(file["validation"]):
            put(file, f"validation/{name}", value(file[f"validation/{name}"][:]))

    return change


DAMAGE = {
    "no text": lambda file: put(file, NAMED, 3.5),
    "no JSON": lambda file: put(file, NUMBERS, "hello"),
    "field of another size": damaged(NUMBERS, shape=[100, 100]),
    "surface of a kilometre": damaged(NUMBERS, surface_um=[1e9] * 6),
    "walk beyond all measure": damaged(NUMBERS, walk_per_um=[[1e30, 0], [0, 1e30]]),
    "weights beyond all measure": damaged(NUMBERS, weights=[[1e38] * 3]),
    "modes of another shape": lambda file: put(file, "model/field/modes", np.zeros((1, 5, 7, 7), np.float32)),
    "misfit of another size": damaged(MISFIT, shape=[10, 10]),
    "negative variance": damaged(MISFIT, variance=[[[[-1.0] * 3] * 3]]),
    "huge variance": damaged(MISFIT, variance=[[[[1e300] * 3] * 3]]),
    "walk in words": damaged(NAMED, walk_percent="abc"),
    "no scores": damaged(NAMED, scores=[]),
    "score not known": damaged(NAMED, scores=[["a", NAN]]),
    "applied in words": damaged(NAMED, surface_applied="no"),
    "modes not known": damaged(NAMED, modes=None),
    "particle beyond the table": column("particle", lambda rows: rows + 10**6),
    "particle below the table": column("particle", lambda rows: rows - 10**6),
    "half a particle": column("particle", lambda rows: rows + 0.5),
    "place not known": column("x_um", lambda rows: rows * NAN),
    "depth not known": column("z_um", lambda rows: rows * NAN),
    "huge error": column("error_z_um", lambda rows: rows * 1e200),
    "endless error": column("error_z_um", lambda rows: rows * np.inf),
    "negative standard error": column("sigma_z_um", lambda rows: -rows),
    "columns of a table": every_column(lambda rows: rows.reshape(-1, 2)),
    "one number": every_column(lambda rows: rows[0]),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_of_what_changes_over_the_field_is_an_error_of_one_line(whole, tmp_path, capsys, how):
    path = tmp_path / "c.h5"
    path.write_bytes(whole.read_bytes())
    with h5py.File(path, "r+") as file:
        DAMAGE[how](file)
    for command in ("info", "report"):
        assert run_command_line([command, str(path)]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "c.h5" in said
        assert "damaged" in said or "not text" in said or "instead of" in said, said
        assert "bug" not in said
    with pytest.raises(SourceError):
        from_calibration(path, "damaged")()


def test_what_a_file_says_of_the_field_comes_back_and_its_texts_are_json(whole):
    found, true = read_calibration(whole), varying()
    assert found.named == replace(true.named, stage_um=found.named.stage_um)
    assert np.isnan(found.named.stage_um).all()
    np.testing.assert_array_equal(found.validation.errors(), true.validation.errors())

    def refuse(token):
        raise AssertionError(f"{token} is no JSON")

    with h5py.File(whole) as file:
        for name in (NUMBERS, MISFIT, NAMED):
            json.loads(file[name][()], parse_constant=refuse)


def test_a_failed_fit_of_a_left_out_particle_is_no_damage(whole, tmp_path, capsys):
    path = tmp_path / "c.h5"
    path.write_bytes(whole.read_bytes())
    with h5py.File(path, "r+") as file:
        for name in ("error_x_um", "error_y_um", "error_z_um", "sigma_x_um", "sigma_z_um", "chi_square"):
            column(name, lambda rows: np.where(np.arange(rows.size) < 4, NAN, rows))(file)
    assert run_command_line(["info", str(path)]) == 0
    assert "0.9777778" in capsys.readouterr().out  # measured


def test_a_table_of_a_description_is_not_poured_out_on_the_screen(whole, capsys):
    assert run_command_line(["info", str(whole)]) == 0
    said = capsys.readouterr().out
    assert not set(said) & set("{[")
    assert "2 (--json lists them)" in " ".join(said.split())


def said_of(**changes):
    return field_in_words(small_calibration(**changes))


def test_why_nothing_changes_over_the_field_is_said_as_it_is():
    nothing = {"surface_applied": False, "walk_applied": False, "modes": 0, "degree": 0}
    tried = {"scores": (("one image for the whole field", 1.0), ("place to the power of 1", 1.1))}
    not_tried = {"scores": (("one image for the whole field", 1.0),)}
    assert "do not measure left-out particles better" in said_of(named=named_terms(**nothing, **tried))
    assert "too few to see whether images change" in said_of(named=named_terms(**nothing, **not_tried))
    none = named_terms(**nothing, **tried)
    assert "No focal surface stands out" in said_of(named=none)
    assert "adds 6.2 µm to the stated errors" in said_of(
        named=named_terms(**nothing, **tried, surface_unseen_um=6.2)
    )
    few = particle_table(["left out"] * 12)
    assert "too few to see a focal surface" in said_of(table=few, named=none)
    volume = particle_table(height_um=lambda x, _: 40 * np.sin(9 * np.arange(x.size)))
    assert "do not lie on a slide" in said_of(table=volume, named=none)


def test_the_tilt_of_a_tilted_slide_is_not_said_to_be_taken_off():
    said = said_of(named=named_terms(tilt_um=(0.0, 0.0)))
    assert "curved by +2.0, +1.0" in said
    assert "tilted by" not in said
    assert "A tilt is the slide's" in said
    assert "move inwards by 0.40 %" in said_of(named=named_terms(walk_percent=-0.4))
    assert "brightness: 1 mode," in said_of(named=named_terms(degree=0, brightness_degree=1))
