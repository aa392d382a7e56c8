"""What a live run gives up first where the detector is too slow, for images and for volumes."""

from types import SimpleNamespace

import pytest

from engines.engine import EngineInfo
from engines.governed_engine import GovernedEngine
from engines.settings import DetectorSettings
from liveptv.session.builders.detect import governed
from liveptv.session.link_rules import FrameRules
from stream.link import Policy


@pytest.mark.parametrize("is_volume", [False, True])
@pytest.mark.parametrize(
    ("policy", "too_slow", "is_governed"),
    [(Policy.LIVE, "reduce", True), (Policy.LIVE, "drop", False), (Policy.BLOCK, "reduce", False)],
)
def test_the_fit_gives_way_in_a_live_run_unless_frames_are_to_be_dropped_instead(
    policy, too_slow, is_governed, is_volume
):
    settings = DetectorSettings(too_slow=too_slow)
    context = SimpleNamespace(plan=SimpleNamespace(experiment=SimpleNamespace(detector=settings)))
    engine = SimpleNamespace(info=EngineInfo("e", "b", "cpu", details={"workers": 1}))
    images = SimpleNamespace(frame_rate_hz=20.0, is_volume=is_volume)
    found = governed(context, engine, images, FrameRules(policy, 150.0))
    assert isinstance(found, GovernedEngine) == is_governed
