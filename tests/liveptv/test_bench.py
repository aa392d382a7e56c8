import json

import pytest

from liveptv.cli.main import run_command_line


@pytest.mark.slow
def test_the_loop_is_timed_from_the_camera_to_the_first_affected_frame(tmp_path):
    rows_file, picture = tmp_path / "latency.json", tmp_path / "latency.png"
    arguments = ["bench", "latency", "--seconds", "6", "--particles", "10", "--rate", "30"]
    assert run_command_line([*arguments, "--json", str(rows_file), "--picture", str(picture)]) == 0
    rows = {row["stage"]: row for row in json.loads(rows_file.read_text())}
    assert all(0 <= row["p50_ms"] <= row["p99_ms"] <= row["max_ms"] for row in rows.values())
    parts = ("camera -> detections", "detections -> tracks", "tracks -> command", "command -> executed")
    whole = rows["camera -> executed"]["p50_ms"]
    assert sum(rows[part]["p50_ms"] for part in parts) == pytest.approx(whole, rel=0.5)
    assert rows["camera -> first affected frame"]["p50_frames"] >= 1
    assert picture.stat().st_size > 10_000
    assert run_command_line([*arguments, "--json", str(rows_file)]) == 1


def test_what_is_not_known_is_not_measured():
    assert run_command_line(["bench", "patience"]) == 2
