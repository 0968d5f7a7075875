from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from vitexp.runs.report import write_report

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "img", "br", "link"}
RESULT: dict[str, Any] = {
    "schema": 1,
    "run_id": "2030-01-02_03-04-05_abc123",
    "status": "completed",
    "error": None,
    "name": "signs & <i>vit</i>",
    "overrides": ["model=vit_tiny", "name='two words'", "x=<script>alert(1)</script>"],
    "config_hash": "abc123",
    "seed": 0,
    "data": {"name": "gtsrb", "train": 35289, "val": 3920, "test": 12630, "classes": 43, "unread": "3 files"},
    "model": {"name": "vit_tiny", "parameters": 2692587, "flops_per_image": 352321536},
    "metrics": {"test": {"accuracy": 0.98034, "loss": 0.0812, "own_score": 0.5}, "val": {"accuracy": 0.9871}},
    "epochs": 60,
    "steps": 8280,
    "images_seen": 2117340,
    "timing": {"total_s": 4123.2, "fit_s": 185.0, "train_images_per_s": 12345.6, "time_to_first_step_s": 8.44},
    "environment": {"git_commit": "0123456789abcdef", "git_dirty": True, "device": "NVIDIA H200", "device_count": 1},
    "started_at": "2030-01-02T03:04:05+00:00",
    "finished_at": None,
}


class Page(HTMLParser):
    """A parser that checks that elements are nested correctly, and keeps text, tags and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.texts.append(data.strip())


def make_run(folder: Path, result: Any = RESULT, *, figures: tuple[str, ...] = (), config: str | None = None) -> Path:
    run = folder / "logs" / "signs" / "run one"
    (run / "figures").mkdir(parents=True)
    (run / "result.json").write_text(json.dumps(result))
    for name in figures:
        (run / "figures" / f"{name}.png").write_bytes(PNG)
    if config is not None:
        (run / "config.yaml").write_text(config)
    return run


def read(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def value_of(page: Page, label: str) -> str:
    return page.texts[page.texts.index(label) + 1]


def test_says_what_the_run_was(tmp_path: Path) -> None:
    page = read(make_run(tmp_path))
    assert page.texts[:6] == [
        "signs & <i>vit</i> 2030-01-02_03-04-05_abc123",
        "signs & <i>vit</i>",
        "2030-01-02_03-04-05_abc123",
        "·",
        "completed",
        "98.03%",
    ]
    row = page.texts.index("Accuracy")
    assert page.texts[row : row + 9] == [
        "Accuracy",
        "98.03%",
        "98.71%",
        "Loss",
        "0.0812",
        "–",
        "Own score",
        "0.5000",
        "–",
    ]
    assert value_of(page, "Test images") == "12,630" and value_of(page, "Not read") == "3 files"
    assert value_of(page, "Parameters") == "2.69 million"
    assert value_of(page, "FLOPs per image") == "352 million"
    assert value_of(page, "Seed") == "0"
    assert value_of(page, "Whole run") == "1 h 08 min"
    assert value_of(page, "Training images per second") == "12,346"
    assert value_of(page, "To the first step") == "8.4 s"
    assert value_of(page, "Started") == "2030-01-02 03:04:05 UTC"
    assert value_of(page, "Git commit") == "0123456789ab"
    assert value_of(page, "Uncommitted changes") == "yes"
    assert value_of(page, "Device") == "NVIDIA H200"
    assert "Finished" not in page.texts


def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    evil = "</pre><script>alert(2)</script>"
    result = RESULT | {"error": evil, "name": 'x" onload="alert(3)', "run_id": "<img src=x>"}
    page = read(make_run(tmp_path, result, config=f"name: {evil}\n", figures=('"><script>',)))
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert "onload" not in dict(page.attributes)
    assert page.texts.count(evil) == 1
    assert f"name: {evil}" in page.texts


def test_loads_nothing(tmp_path: Path) -> None:
    page = read(make_run(tmp_path, figures=("confusion_matrix", "other"), config="a: 1\n"))
    html = (tmp_path / "logs" / "signs" / "run one" / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(", html)
    assert not {"link", "script", "iframe"} & set(page.tags)
    sources = [value for name, value in page.attributes if name in ("src", "href", "srcset") and value[:1] != "#"]
    assert sources == ["data:image/png;base64," + base64.b64encode(PNG).decode()] * 2
    assert ("name", "viewport") in page.attributes


def test_figures_in_order_with_captions(tmp_path: Path) -> None:
    files = ("aaa_own", "attention", "confusion_matrix", "curves", "explanations")
    page = read(make_run(tmp_path, figures=files))
    alternatives = [value for name, value in page.attributes if name == "alt"]
    titles = ["Learning curves", "Confusion matrix", "Explanations", "Attention", "Aaa own"]
    assert [text.partition(". ")[0] for text in alternatives] == titles
    assert alternatives[1].startswith("Confusion matrix. Rows are true classes")
    links = [value for name, value in page.attributes if name == "href"]
    assert links == [f"#{value}" for name, value in page.attributes if name == "id"] and len(links) == len(titles)


def test_commands_repeat_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = read(make_run(tmp_path, config="a: 1\n"))
    train = ["vitexp", "train"]
    exact = shlex.split(value_of(page, "To repeat it with exactly this configuration:"))
    assert exact == [*train, "--config-dir", "logs/signs/run one", "--config-name", "config"]
    assert shlex.split(value_of(page, "To repeat it as it was started:")) == [*train, *RESULT["overrides"]]


def test_failed_run_shows_the_error(tmp_path: Path) -> None:
    result = {"schema": 1, "run_id": "r", "status": "failed", "error": "ValueError: no\n  at line 1", "name": "n"}
    page = read(make_run(tmp_path, result | {"data": None, "metrics": None, "overrides": []}))
    assert "failed" in page.texts
    assert value_of(page, "What went wrong") == "ValueError: no\n  at line 1"
    assert not {"table", "img", "details"} & set(page.tags)


def test_a_stopped_run_did_not_go_wrong_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stopped = RESULT | {"status": "interrupted", "error": "stopped by SIGTERM", "steps": 0, "epochs": 0}
    run = make_run(tmp_path, stopped)
    page = read(run)
    assert value_of(page, "How it ended") == "stopped by SIGTERM" and "What went wrong" not in page.texts
    assert not {"Epochs", "Steps", "Images seen"} & set(page.texts), "it ended before it could record them"
    resume = "To resume it from its last checkpoint:"
    assert resume not in page.texts, "there is none"
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    for status, steps in (("interrupted", 3), ("failed", 3), ("completed", 3)):
        (run / "result.json").write_text(json.dumps(stopped | {"status": status, "steps": steps, "epochs": 0}))
        page = read(run)
        assert value_of(page, "Epochs") == "0" and value_of(page, "Steps") == "3"
        assert (resume in page.texts) == (status != "completed")
    (run / "result.json").write_text(json.dumps(stopped))
    words = shlex.split(value_of(read(run), resume))
    assert words == ["vitexp", "train", "resume=logs/signs/run one"]


def test_validation_is_the_headline_where_no_test_was(tmp_path: Path) -> None:
    page = read(make_run(tmp_path, RESULT | {"metrics": {"val": {"accuracy": 0.5}}}))
    assert value_of(page, "50.00%") == "validation accuracy"


@pytest.mark.parametrize("content", [None, "{broken", "[1]"])
def test_without_a_record(tmp_path: Path, content: str | None) -> None:
    run = tmp_path / "task" / "id"
    run.mkdir(parents=True)
    if content is not None:
        (run / "result.json").write_text(content)
    page = read(run)
    assert {"task", "id", "unknown"} <= set(page.texts)
    assert "result.json" in value_of(page, "What went wrong")


def test_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_report(tmp_path / "nowhere")


def test_page_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    (run / "report.html").write_text("before")

    def interrupted(source: str, target: Path) -> None:
        assert Path(source).read_text(encoding="utf-8").rstrip().endswith("</html>")
        assert target.read_text() == "before"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_report(run)
    assert (run / "report.html").read_text() == "before"
    assert sorted(path.name for path in run.iterdir()) == ["figures", "report.html", "result.json"]


def test_imports_no_torch() -> None:
    probe = "import sys, vitexp.runs.report; sys.exit(bool({'torch', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_a_figure_of_your_own_has_its_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "figure_of_a_user.py").write_text(
        "class Mine:\n    figures = {'mine': ('My figure', 'How to read it.')}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = "model: {}\ndata: {}\ncallbacks: {mine: {_target_: figure_of_a_user.Mine}}\n"
    page = read(make_run(tmp_path, figures=("mine",), config=config))
    assert value_of(page, "My figure") == "How to read it."
