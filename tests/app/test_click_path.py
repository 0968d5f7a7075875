"""The app in use: a server process, and clicks in headless Chromium."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
PATIENCE = 60_000  # ms; CI machines are slow
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (apt-get install chromium)"),
]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(run: Path | str, temporary: Path, *, cwd: Path = ROOT) -> Iterator[tuple[Any, str, Path]]:
    """Yield the process, its address and its temporary folder."""
    command = [sys.executable, "-m", "vitexp", "app", f"run={run}", f"port={free_port()}"]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True) as process:
        line = ""
        assert process.stdout is not None
        while "Ctrl-C" not in line:
            line = process.stdout.readline()
            assert line, "the server stopped before it was ready"
        yield process, line.split()[0], temporary
        process.kill()


@pytest.fixture(scope="module")
def server(vit_run: Path, cnn_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str, Path]]:
    """Serve a ViT; its log folder has another run."""
    with serving(vit_run, tmp_path_factory.mktemp("tmp")) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, server: tuple[Any, str, Path]) -> Iterator[Page]:
    """A new visitor who sees the first test image."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    made = context.new_page()
    made.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    outside: list[str] = []
    errors: list[str] = []
    made.on(
        "request",
        lambda request: None if request.url.startswith((server[1], "data:", "blob:")) else outside.append(request.url),
    )
    made.on("pageerror", lambda error: errors.append(error.message))
    made.goto(server[1])
    made.wait_for_selector("#figure-explanations img")
    yield made
    context.close()
    assert not outside, "the page contacted another host"
    assert not errors


def about(page: Page) -> Any:
    return page.locator("#about .md")


def source(page: Page, figure: str) -> str:
    return str(page.locator(f"#figure-{figure} img").get_attribute("src"))


def changes(page: Page, figure: str, before: str) -> None:
    expect(page.locator(f"#figure-{figure} img")).not_to_have_attribute("src", before)


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_every_tab_shows_its_figures(page: Page) -> None:
    tabs = {
        "Patches": ["patches"],
        "Attention": ["attention_layers", "attention_heads"],
        "Classes": ["classes"],
        "Faithfulness": ["faithfulness"],
        "Embeddings": ["embedding"],
        "Heads": ["head_diversity"],
        "Weights": ["filters", "position_embedding"],
        "Explanations": ["explanations"],
    }
    for tab, figures in tabs.items():
        open_tab(page, tab)
        for figure in figures:
            image = page.locator(f"#figure-{figure} img")
            expect(image).to_be_visible()
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1080, figure


def test_controls_change_the_figures(page: Page) -> None:
    before = source(page, "explanations")
    page.locator("#layer input[type=number]").fill("1")
    page.locator("#layer input[type=number]").press("Enter")
    changes(page, "explanations", before)
    before = source(page, "explanations")
    page.locator("#class input").click()
    page.get_by_role("option", name=re.compile("^14 ")).click()
    changes(page, "explanations", before)
    before = source(page, "explanations")
    page.get_by_label("Overlay maps on the image").uncheck()
    changes(page, "explanations", before)
    open_tab(page, "Attention")
    page.wait_for_selector("#figure-attention_layers img")
    before = source(page, "attention_layers")
    page.locator("#head input[type=number]").fill("2")
    page.locator("#head input[type=number]").press("Enter")
    changes(page, "attention_layers", before)


def test_two_runs_side_by_side(page: Page, cnn_run: Path) -> None:
    open_tab(page, "Two runs")
    page.locator("#other input").click()
    page.get_by_role("option", name=re.compile(cnn_run.name)).click()
    expect(page.locator("#figure-comparison img")).to_be_visible()
    page.get_by_role("button", name=re.compile("Compare confusions")).click()
    expect(page.locator("#figure-confusions img")).to_be_visible()


def test_drawing_and_clearing(page: Page) -> None:
    expect(about(page)).to_contain_text("Draw on it")
    before = source(page, "explanations")
    box = page.locator("#editor canvas").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.35 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.65 * box["width"], box["y"] + 0.5 * box["height"], steps=8)
    page.mouse.up()
    expect(about(page)).to_contain_text("partly covered")
    changes(page, "explanations", before)
    page.locator("#editor").get_by_label("Clear canvas").click()
    expect(about(page)).to_contain_text("Draw on it")


def test_a_click_on_the_map_loads_a_training_image(page: Page) -> None:
    expect(about(page)).to_contain_text("Test image")
    open_tab(page, "Embeddings")
    page.wait_for_selector("#figure-embedding img")
    box = page.locator("#figure-embedding img").bounding_box()
    assert box is not None
    for step in range(40):  # until there is a point
        across, down = 0.06 + 0.5 * (step % 8) / 8, 0.15 + 0.5 * (step // 8) / 5
        page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
        page.wait_for_timeout(1000)
        if "Training image" in about(page).inner_text():
            break
    expect(about(page)).to_contain_text("Training image")


def test_pointing_at_a_training_image_names_its_class(page: Page) -> None:
    open_tab(page, "Embeddings")
    page.wait_for_selector("#figure-embedding img")
    page.wait_for_timeout(1000)
    box = page.locator("#figure-embedding img").bounding_box()
    assert box is not None
    tip = page.locator("#tip")
    page.mouse.move(box["x"] + 5, box["y"] + 5)  # the title
    expect(tip).to_be_hidden()
    for step in range(1200):  # until there is a point
        across, down = 0.06 + 0.9 * (step % 40) / 40, 0.1 + 0.3 * (step // 40) / 30
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        if tip.is_visible():
            break
    name = tip.inner_text()
    page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
    expect(about(page)).to_contain_text("Training image")
    expect(about(page)).to_contain_text(name)


def test_uploads_and_files_that_are_not_images(page: Page, tmp_path: Path) -> None:
    mine = tmp_path / "holiday.png"
    Image.new("RGB", (640, 480), (200, 30, 30)).save(mine)
    page.locator("#file input[type=file], input[type=file]").first.set_input_files(mine)
    expect(about(page)).to_contain_text("Your image holiday.png")
    text = tmp_path / "poem.png"
    text.write_text("roses are red")
    huge = tmp_path / "huge.png"
    Image.new("1", (30_000, 30_000)).save(huge)
    for wrong in (text, huge):
        page.locator("#file input[type=file], input[type=file]").first.set_input_files(wrong)
        expect(page.get_by_text(re.compile(f"{wrong.name}.*")).last).to_be_visible()
        expect(about(page)).to_contain_text("Your image holiday.png")


def test_a_figure_can_be_saved(page: Page, tmp_path: Path) -> None:
    with page.expect_download() as waiting:
        page.locator("#figure-explanations").get_by_label("Download").click()
    assert waiting.value.suggested_filename == "explanations.png"
    waiting.value.save_as(tmp_path / "saved.png")
    assert Image.open(tmp_path / "saved.png").size[0] == 1080


def test_visitors_are_independent(page: Page, browser: Browser, server: tuple[Any, str, Path]) -> None:
    mine = about(page).inner_text()
    others = [browser.new_context().new_page() for _ in range(3)]
    for number, other in enumerate(others):
        other.set_default_timeout(PATIENCE)
        other.goto(server[1])
        other.wait_for_selector("#figure-explanations img")
        other.locator("#gallery .thumbnail-item").nth(number + 1).click()
    said = []
    for other in others:
        expect(about(other)).to_contain_text("Test image")
        other.wait_for_timeout(3000)
        said.append(about(other).inner_text())
    before = source(page, "explanations")
    page.get_by_label("Overlay maps on the image").uncheck()
    changes(page, "explanations", before)
    assert about(page).inner_text() == mine
    for other, words in zip(others, said, strict=True):
        other.get_by_label("Overlay maps on the image").uncheck()
        other.wait_for_timeout(1500)
        assert about(other).inner_text() == words
        other.context.close()


def test_without_data_a_phone_shows_drawn_signs_and_legible_figures(browser: Browser, tmp_path: Path) -> None:
    with serving("pretrained", tmp_path, cwd=tmp_path) as (_, address, _):
        page = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        figure = page.locator("#figure-explanations img")
        expect(figure).to_be_visible()
        expect(about(page)).to_contain_text("Drawn sign")
        expect(page.locator("#note")).to_contain_text("data.download=true")
        assert page.locator("#gallery .thumbnail-item").count() == 12
        expect(page.locator("#prediction .bar b").nth(4)).to_have_text(re.compile(r"^<?\d+\.\d\d%$"))
        box = figure.bounding_box()
        assert box is not None and box["x"] >= 0 and box["width"] == 900
        frame = page.locator("#figure-explanations .image-frame")
        assert frame.evaluate("frame => frame.scrollWidth - frame.clientWidth") > 500  # the rest can be reached
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.context.close()


def test_a_cnn_has_a_page(cnn_run: Path, browser: Browser, tmp_path: Path) -> None:
    with serving(cnn_run, tmp_path) as (_, address, _):
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#figure-explanations img", timeout=PATIENCE)
        assert not page.locator("#layer").is_visible() and not page.get_by_role("tab", name="Attention").count()
        page.close()


def test_only_this_machine_can_connect(server: tuple[Any, str, Path]) -> None:
    connections = psutil.Process(server[0].pid).net_connections()
    assert connections
    for one in connections:
        assert one.laddr.ip in ("127.0.0.1", "::1") and (not one.raddr or one.raddr.ip in ("127.0.0.1", "::1"))


def test_temporary_files_are_removed(server: tuple[Any, str, Path]) -> None:
    process, _, temporary = server
    assert list(temporary.glob("vitexp-app-*"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert not list(temporary.glob("vitexp-app-*"))
    assert not list(temporary.glob("*gradio*"))
