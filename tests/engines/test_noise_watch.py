import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.network.noise_watch import EVERY_FRAMES, NoiseWatch
from stream.messages import Frame, FrameInfo

USUAL = 0.01
LIGHT = {np.uint8: 150.0, np.uint16: 3000.0}


def noisy(times, dtype=np.uint16, shape=(300, 700), number=0, particles=0):
    rng = np.random.default_rng(number)
    contrast = times * USUAL * rng.standard_normal(shape)
    for row, column in rng.integers(10, min(shape) - 10, (particles, 2)):
        contrast[row - 5 : row + 6, column - 5 : column + 6] -= 0.1
    image = np.clip(np.rint(LIGHT[dtype] * (1 + contrast)), 0, np.iinfo(dtype).max).astype(dtype)
    return Frame(FrameInfo("run", number, number, 0.0, 0, 0.0), image)


@given(times=st.floats(0.5, 10), dtype=st.sampled_from([np.uint8, np.uint16]), particles=st.integers(0, 60))
def test_noise_is_measured_as_so_many_times_the_usual_whatever_is_in_the_frame(times, dtype, particles):
    rounding = np.hypot(1, 12**-0.5 / LIGHT[dtype] / (times * USUAL))
    measured = NoiseWatch(USUAL, pytest.fail).times_as_noisy(noisy(times, dtype, particles=particles))
    assert measured == pytest.approx(times * rounding, rel=0.1)


def test_much_noise_is_said_once_with_the_frame_and_what_to_do():
    said = []
    watch = NoiseWatch(USUAL, said.append)
    watch.look(noisy(1.5))
    for number in range(1, 4 * EVERY_FRAMES):
        watch.look(noisy(4.0, number=number, shape=(60, 60)))
    assert len(said) == 1
    assert said[0].startswith(f"frame {EVERY_FRAMES} is 3.9 times")
    assert "calibrate and train again" in said[0]


def test_a_frame_without_light_has_no_noise_to_speak_of():
    dark = Frame(FrameInfo("run", 0, 0, 0.0, 0, 0.0), np.zeros((50, 60), np.uint8))
    assert NoiseWatch(USUAL, pytest.fail).times_as_noisy(dark) == 0.0
