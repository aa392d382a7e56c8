from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveptv.cli import run_command_line
from liveptv.config import apply_override, build_experiment, load_experiment, settings_only
from liveptv.session.provenance import file_attributes
from stream.errors import ConfigurationError

GOOD = """
[run]
seconds = 5
[microscope]
config = "simulated"
[microscope.properties]
"Camera.Seed" = 3
[channel]
width_um = 1000
depth_um = 300
"""


def write(folder, text):
    path = folder / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file_is_read_and_overrides_win(tmp_path):
    experiment = load_experiment(
        write(tmp_path, GOOD),
        [
            "run.seconds=7.5",
            "detector.min_confidence=0.3",
            'microscope.properties."Camera.Seed"=4',
            "run.notes=a b",
        ],
    )
    assert experiment.run.seconds == 7.5
    assert experiment.run.notes == "a b"
    assert experiment.detector.min_confidence == 0.3
    assert experiment.microscope.properties == {"Camera.Seed": 4}
    assert experiment.resolved()["channel"]["depth_um"] == 300


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[run]\nsecnds = 5\n[microscope]\nconfig = 'simulated'", "unknown key 'run.secnds'"),
        ("[rum]\nseconds = 5", "unknown key 'rum'"),
        ("[microscope]\nconfig = 'simulated'\n[tracker]\nmode = 'magic'", "tracker.mode"),
        ("[microscope]\nconfig = 'simulated'\n[run]\nseconds = -1", "run.seconds.*greater than 0"),
        ("[microscope]\nconfig = 'simulated'\n[run]\nframes = 'many'", "run.frames.*'many'"),
        ("[microscope]\n", "microscope.config: field required"),
        ("[run]\nseconds = 5", "has no source"),
        (
            "[microscope]\nconfig='simulated'\n[recording]\npath='x.tif'",
            r"both a \[microscope\] and a \[recording\]",
        ),
        ("[microscope]\nconfig='simulated'\n[link]\ntransport='inproc'", "needs session.mode"),
        ("[microscope]\nconfig='simulated'\n[link]\nslots=4\ncredits=9", "credits"),
        ("[microscope]\nconfig='simulated'\n[limits]\nmin_focus_um=5\nmax_focus_um=1", "min_focus_um"),
        ("[microscope\n", "not valid TOML"),
        (
            "[microscope]\nconfig='simulated'\n[limits]\nwatchdog_s=2\n[controller.hold_focus]\nmax_age_s=2",
            r"controller\.hold_focus\.max_age_s \(2 s\) must be less than limits\.watchdog_s \(2 s\)",
        ),
        (
            "[microscope]\nconfig='simulated'\nproperties={'Camera.RealTime'=0}\n[link]\npolicy='live'",
            r"in simulated time \(RealTime 0\) none is",
        ),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place_in_one_line(tmp_path, text, why):
    with pytest.raises(ConfigurationError, match=why) as caught:
        load_experiment(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "experiment.toml" in str(caught.value)
    assert "alue error" not in str(caught.value)
    assert "{" not in str(caught.value)


def test_settings_that_do_not_fit_together_are_said_without_listing_them_all():
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(None, ["link.policy=live"], {"recording": {"path": "x.tif"}})
    assert str(caught.value).startswith('the settings given: link.policy "live" drops frames that are late')
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(None, ["link.slots=4", "link.credits=9"], {"recording": {"path": "x.tif"}})
    assert str(caught.value) == "the settings given: link: credits (9) must be fewer than slots (4)"


def test_a_wrong_age_limit_of_a_controller_ends_the_command_with_the_status_of_a_wrong_setting(
    tmp_path, capsys
):
    path = write(tmp_path, GOOD + "[limits]\nwatchdog_s = 2\n[controller.hold_focus]\nmax_age_s = 3\n")
    assert run_command_line(["run", str(path), "-o", str(tmp_path / "x.h5")]) == 2
    assert "controller.hold_focus.max_age_s (3 s) must be less than" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "x.h5").exists()


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no experiment file"):
        load_experiment(tmp_path / "none.toml")
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_experiment(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_experiment(binary)


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("run.seconds", "section.key=value"),
        ("=5", "section.key=value"),
        ("run..seconds=5", "is not a valid key"),
        ("#=5", "is not a valid key: it is not one key"),
        ("[a]#=5", "is not a valid key: it is not one key"),
        ("[a]\n[b]\nc=5", "is not a valid key: it is not one key"),
        ("run.seconds.more=5", "not a section"),
        ("run.nothing=5", "unknown key 'run.nothing'"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(override, why):
    with pytest.raises(ConfigurationError, match=why):
        settings_only(["run.seconds=1", override])


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_typed_as_an_override_is_taken_or_refused(key, value):
    try:
        apply_override({}, f"{key}={value}")
    except ConfigurationError as error:
        assert "\n" not in str(error) or "\n" in key + value  # noqa: PT017


def test_paths_and_text_need_no_quotes():
    assert settings_only(["detector.bright=flat/b 1.tif"]).detector.bright == Path("flat/b 1.tif")


def test_a_byte_order_mark_is_no_part_of_an_experiment_file(tmp_path):
    path = tmp_path / "windows.toml"
    path.write_text('[recording]\npath = "video.tif"\n', encoding="utf-8-sig")
    assert load_experiment(path).recording.path.name == "video.tif"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("frames = " + "9" * 5000, "digits"),
        ("notes = " + "[" * 3000 + "]" * 3000, "recursion"),
        ('output = "a\\u0000b.h5"', "run.output contains a NUL"),
        ('"out\\u0000put" = 3', "run.out?put contains a NUL"),
        ("frames = " + "9" * 400, "less than or equal to 1000000000"),
        ("seconds = 1e308", "less than or equal to 1000000000"),
    ],
)
def test_what_no_experiment_can_hold_is_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "odd.toml"
    path.write_text(f'[recording]\npath = "video.tif"\n[run]\n{text}\n', encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_name_that_the_file_system_cannot_have_is_an_error_of_one_line(tmp_path, capsys):
    path = tmp_path / "long.toml"
    path.write_text(f'[recording]\npath = "video.tif"\n[run]\noutput = "{"a" * 300}.h5"\n', encoding="utf-8")
    assert run_command_line(["run", str(path)]) == 1
    error = capsys.readouterr().err.strip()
    assert "too long" in error
    assert "bug in liveptv" not in error


def test_the_name_of_a_lock_is_no_output(tmp_path, capsys):
    table = tmp_path / "table.csv"
    table.write_text("frame,x_um,y_um\n0,1,2\n")
    assert run_command_line(["track", str(table), "-o", str(tmp_path / "tracks.h5.lock")]) == 1
    assert "is the name of a lock" in capsys.readouterr().err


OPTICS = "[microscope]\nconfig = 'simulated'\n[optics]\n"


@pytest.mark.parametrize(
    ("text", "factor", "says"),
    [
        ("", 1.0, "given as 1"),
        ("refraction_factor = 1.2", 1.2, "given as 1.2"),
        ("sample_index = 1.33\nimmersion_index = 1.0", 1.33, "paraxial"),
        (
            "sample_index = 1.33\nimmersion_index = 1.0\nnumerical_aperture = 0.7",
            1.432,
            "averaged over the pupil",
        ),
        ("sample_index = 1.33\nimmersion_index = 1.33\nnumerical_aperture = 0.7", 1.0, "averaged"),
    ],
)
def test_the_height_per_travel_follows_from_the_indices_and_is_stated_in_the_file(
    tmp_path, text, factor, says
):
    experiment = load_experiment(write(tmp_path, OPTICS + text))
    attributes = file_attributes(experiment, None)
    assert attributes["refraction_factor"] == pytest.approx(factor, rel=1e-3)
    assert says in attributes["refraction"]
    again = build_experiment(experiment.model_dump(exclude_unset=True), "the settings of a file")
    assert again.optics == experiment.optics


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sample_index = 1.33", "both sample_index and immersion_index"),
        ("numerical_aperture = 0.5", "both sample_index and immersion_index"),
        (
            "sample_index = 1.33\nimmersion_index = 1\nnumerical_aperture = 1.2",
            "aperture of 1.2 needs an immersion",
        ),
        ("sample_index = 1.33\nimmersion_index = 1\nrefraction_factor = 1.5", "leave one of them out"),
        ("sample_index = 'water'\nimmersion_index = 1", "optics"),
        ("sample_index = 0.5\nimmersion_index = 1", "1 or more"),
    ],
)
def test_indices_that_cannot_be_right_are_refused_in_one_line(tmp_path, text, why):
    with pytest.raises(ConfigurationError, match=why) as caught:
        load_experiment(write(tmp_path, OPTICS + text))
    assert "\n" not in str(caught.value)


CHANNEL = {"width_um": 400, "depth_um": 100}


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        (
            {"controller": {"hold_flow_rate": {"target_ul_s": 1, "max_flow_ul_s": 2}}},
            "hold_flow_rate needs the fit",
        ),
        (
            {"channel": CHANNEL, "controller": {"hold_shear": {"target_pa": 1, "max_flow_ul_s": 2}}},
            "hold_shear needs the viscosity",
        ),
        (
            {
                "channel": CHANNEL,
                "flow": {"live": False},
                "protocol": {"steps": [{"until": {"flow_rate_percent": 1}}]},
            },
            "flow_rate_percent needs the fit",
        ),
        ({"channel": CHANNEL, "flow": {"center_error_um": 2}}, "channel.center_y_um"),
        ({"channel": CHANNEL, "flow": {"section": "square:3"}}, "give rectangle:"),
        ({"channel": CHANNEL, "flow": {"unknown": ["yaw_deg"]}}, "flow.unknown"),
    ],
)
def test_what_needs_the_fit_of_the_flow_says_what_is_missing(sections, why):
    with pytest.raises(ConfigurationError, match=why):
        build_experiment({"microscope": {"config": "simulated"}, **sections}, "the test")


def test_a_live_run_with_a_channel_follows_its_flow_and_a_replay_needs_no_stage_for_it():
    live = build_experiment({"source": {"listen": "tcp://127.0.0.1:0"}, "channel": CHANNEL}, "the test")
    assert live.follows_flow
    assert live.needs_control_stage
    replay = build_experiment({"recording": {"path": "images.tif"}, "channel": CHANNEL}, "the test")
    assert not replay.needs_control_stage


def test_the_viscosity_is_that_of_the_flow_or_of_the_liquid_or_of_water():
    def viscosity(**sections):
        return build_experiment(
            {"microscope": {"config": "simulated"}, "channel": CHANNEL, **sections}, "the test"
        ).viscosity_mpa_s

    assert viscosity() is None
    assert viscosity(diffusion={"viscosity_mpa_s": 2.0}) == 2.0
    assert viscosity(diffusion={"viscosity_mpa_s": 2.0}, flow={"viscosity_mpa_s": 3.0}) == 3.0
    assert viscosity(diffusion={"water": True, "temperature_c": 20.0}) == pytest.approx(1.0016, abs=2e-3)
