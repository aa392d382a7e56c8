"""The page in a real browser, where there is one: Debian's chromium, or Chrome."""

import shutil
import time

import pytest
from page_runs import Visited
from small_run import small_experiment

from acquisition.recorder.frame_table import read_frame_table
from tracking.trajectories.file import TrajectoryFile

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LIMITS = {"max_flow_ul_s": 0.06, "min_focus_um": 100.0, "max_focus_um": 200.0}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]


def test_a_run_is_watched_and_steered_in_a_browser_and_stopped_there(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVEPTV_RUNS", str(tmp_path / "runs"))
    troubles, outside, answers = [], [], []

    def visit(served):
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(60_000)
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("console", lambda line: troubles.append(line.text) if line.type == "error" else None)
            page.on("request", lambda request: outside.append(request.url))
            page.goto(served.url)
            wait(page, "() => window.liveptv.measured.images > 10")
            assert page.locator("#state").inner_text() == "running"
            assert int(page.locator("#f-particles").inner_text()) > 0
            caption = page.locator("#camera-caption").inner_text()
            wait(page, "before => document.getElementById('camera-caption').textContent !== before", caption)
            wait(page, "() => /^\\d+ traj/.test(document.getElementById('profile-caption').textContent)")
            slow_um_s = page.evaluate("window.liveptv.measured.velocity_um_s")
            act(page, "set_flow", "0.0492")
            answers.append(page.locator("#answer").inner_text())
            wait(page, "slow => Math.abs(window.liveptv.measured.velocity_um_s / slow - 2) < 0.3", slow_um_s)
            act(page, "move_focus", "900")
            answers.append(page.locator("#answer").inner_text())
            hold = page.locator("details.controller").filter(has=page.get_by_text("hold flow", exact=True))
            hold.locator("> summary").click()
            hold.locator("input[name=max_flow_ul_s]").fill("5")
            hold.locator("input[name=target_um_s]").fill("100")
            hold.locator("input[name=min_flow_ul_s]").evaluate("input => { input.value = '6'; }")
            answers.append(switch(page, hold, "Switch on", "refused"))
            hold.locator("input[name=min_flow_ul_s]").evaluate("input => { input.value = ''; }")
            answers.append(switch(page, hold, "Switch on", "done"))
            wait(page, "() => document.querySelector('.controller').dataset.state === 'on'")
            wait(page, "() => /target 100 µm/.test(document.querySelector('.measured').textContent)")
            answers.append(switch(page, hold, "Switch off", "done"))
            wait(page, "() => document.querySelector('.controller').dataset.state === 'off'")
            page.click("#keep")
            assert "1 s before now and 0.5 s after" in page.locator("#keep-what").inner_text()
            page.fill("#keep-text", "a bubble")
            page.click("button[value=keep]")
            wait(page, "() => /the first frame kept is/.test(document.getElementById('answer').textContent)")
            wait(page, "() => /a bubble.page.\\d+/s.test(document.getElementById('kept-rows').innerText)")
            page.click("#stop")
            assert "is completed (" in page.locator("#stop-text").inner_text()
            page.click("button[value=stop]")
            wait(page, "() => document.body.dataset.state === 'ended'")
            browser.close()

    experiment = small_experiment(
        tmp_path,
        rate=30,
        frames=1500,
        limits=LIMITS,
        session={"mode": "threads", "monitor_hz": 10.0},
        record={"mode": "events", "before_s": 1.0, "after_s": 0.5, "memory_mb": 20},
    )
    run = Visited(experiment, visit)
    assert "the first frame with it is" in answers[0]
    assert "refused" in answers[1]
    assert "min_flow_ul_s must be less than max_flow_ul_s" in answers[2]
    assert not troubles
    assert {url.split("/")[2].partition(":")[0] for url in outside} == {"127.0.0.1"}
    assert run.outcome.result.ok
    assert run.outcome.result.reason == "stopped from the page"
    with TrajectoryFile(run.files.tracks) as file:
        assert file.finished
        assert len(file.frames) == run.outcome.frames > 0
    table = read_frame_table(run.files.tracks.with_name("tracks.frames.jsonl"))
    assert [(event.why, event.sender) for event in table.events] == [("a bubble", "page")]
    assert table.ended[0].frames == len(table.rows) > 30


def act(page, kind, value):
    form = page.locator(f"form[data-kind={kind}]")
    form.locator("input").fill(value)
    form.locator("button").click()
    wait(page, "() => document.getElementById('answer').className !== 'answer '")


def switch(page, controller, button, outcome):
    """Press a button of a controller; the run's answer."""
    controller.get_by_role("button", name=button, exact=True).click()
    wait(page, "word => document.getElementById('answer').textContent.includes(': ' + word)", outcome)
    return page.locator("#answer").inner_text()


def wait(page, condition, given=None):
    """Wait until a JavaScript function is true; the page's own policy forbids the browser's way of polling."""
    deadline_s = time.monotonic() + 240
    while not page.evaluate(condition, given):
        assert time.monotonic() < deadline_s, condition
        page.wait_for_timeout(50)
