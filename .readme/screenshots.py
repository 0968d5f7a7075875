"""Take the pictures of the app, .readme/app_*.png, in headless Chromium: the bundled network on photographs of GTSRB.

    python .readme/screenshots.py data.root=PATH     PATH contains GTSRB; data.download=true downloads it

Needs Chromium and the package playwright. For the tab that compares two runs, it trains a small network for one epoch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from vitexp.runs.find import BUNDLED

ROOT = Path(__file__).parents[1]
PATIENCE = 180_000  # ms
WIDTH = 1240
LARGEST = 250_000  # bytes of a file; a larger one gets a palette of 256 colors
# File, tab, and the last figure of the tab.
PICTURES = (
    ("explanations", "Explanations", "explanations"),
    ("patches", "Patches", "patches"),
    ("attention", "Attention", "attention_heads"),
    ("classes", "Classes", "classes"),
    ("faithfulness", "Faithfulness", "faithfulness"),
    ("embeddings", "Embeddings", "embedding"),
    ("heads", "Heads", "head_diversity"),
    ("weights", "Weights", "position_embedding"),
    ("two_runs", "Two runs", "comparison"),
)
# The app draws test images at random; with this number, the first one is a legible sign.
APP = "import secrets, sys; secrets.randbits = lambda _: 0; from vitexp.commands.app import main; main(sys.argv[1:])"
OTHER = ("data=gtsrb", "model=simple_cnn", "trainer.max_epochs=1", "callbacks=none", "logger=csv", "name=cnn")


@contextmanager
def serving(logs: Path, data: list[str]) -> Iterator[str]:
    """Yield the address of the app for the bundled network; `logs` also gets another run."""
    run, environment = logs / "gtsrb" / "pretrained", {**os.environ, "PYTHONPATH": str(ROOT)}
    shutil.copytree(BUNDLED, run)
    train = [sys.executable, "-m", "vitexp", "train", *OTHER, f"log_dir={logs}", *data]
    subprocess.run(train, env=environment, check=True)
    command = [sys.executable, "-c", APP, f"run={run}", *data]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line for line in process.stdout if "Ctrl-C" in line).split()[0]
        finally:
            process.terminate()


def take(page: Page, file: Path) -> None:
    """Write a picture of the whole page."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(2000)  # for what fades in and out
    page.screenshot(path=file, full_page=True)
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    picture.save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        picture.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


def main(data: list[str]) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), data) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 700})
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page.goto(address)
        expect(page.locator("#figure-explanations img")).to_be_visible()
        for name, tab, figure in PICTURES:
            page.get_by_role("tab", name=tab, exact=True).click()
            if tab == "Two runs":
                page.locator("#other input").click()
                page.get_by_role("option", name=re.compile("^cnn ")).click()
            expect(page.locator(f"#figure-{figure} img")).to_be_visible()
            take(page, ROOT / ".readme" / f"app_{name}.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
