"""Makes the images of the live page and of a report in docs/images: of a run of the demo, in headless Chromium.

Needs playwright and Chromium, and a computer that is not busy: else the demo's detector falls behind its camera.

    python benchmarks/screenshots.py docs/images
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

SCREEN = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
MEASURED = "() => Number(document.getElementById('f-frames').textContent) >= {frames}"
STRIP_HEIGHT_PX = 430
FIGURES = ("frame", "trajectories", "profile")


def save(image, path):
    """Save with a palette of 256 colours that cover the colour bars: a third of the bytes."""
    palette = image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=5)
    palette.save(path, optimize=True)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def shoot(page, path):
    save(Image.open(io.BytesIO(page.screenshot())), path)


def watch(browser, url, frames, folder):
    """Take screenshots of the live page once so many frames are measured."""
    for screen, name in ((SCREEN, "page"), (PHONE, "page-phone")):
        page = browser.new_page(viewport=screen, color_scheme="dark" if name == "page-phone" else "light")
        page.goto(url)
        while not page.evaluate(MEASURED.format(frames=frames)):
            page.wait_for_timeout(200)
        page.wait_for_timeout(6000)  # until tracks have tails
        shoot(page, folder / f"{name}.png")
        page.close()


def strip(run, path):
    """The figures of a report side by side."""
    figures = [Image.open(run / f"{name}.png").convert("RGB") for name in FIGURES]
    figures = [
        figure.resize((round(figure.width * STRIP_HEIGHT_PX / figure.height), STRIP_HEIGHT_PX), Image.LANCZOS)
        for figure in figures
    ]
    whole = Image.new("RGB", (sum(figure.width for figure in figures), STRIP_HEIGHT_PX), "white")
    left = 0
    for figure in figures:
        whole.paste(figure, (left, 0))
        left += figure.width
    save(whole, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=600, help="frames measured before a picture is taken")
    parser.add_argument("--seconds", type=float, default=90.0, help="length of the run")
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        run = Path(scratch) / "demo"
        command = [
            sys.executable,
            "-m",
            "liveptv",
            "demo",
            "-o",
            str(run),
            "--seconds",
            f"{options.seconds:g}",
        ]
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
            for line in demo.stdout:
                found = re.search(r"live page: (\S+)", line)
                if found:
                    watch(browser, found[1], options.frames, options.folder)
        page = browser.new_page(viewport=SCREEN)
        page.goto((run / "report.html").as_uri())
        page.wait_for_timeout(1000)
        shoot(page, options.folder / "report.png")
        browser.close()
        strip(run, options.folder / "demo.png")


if __name__ == "__main__":
    main()
