"""The figure, sweep.html and the W&B table."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.sweeps.trials import ODD, ODD_SEEN, odd_table, outcomes, record, table
from vitexp.sweeps.tables.figure import MOST_ROWS, draw
from vitexp.sweeps.tables.formats import COLUMNS
from vitexp.sweeps.tables.page import write_page
from vitexp.sweeps.tables.table import Table, build_table
from vitexp.sweeps.tables.wandb_table import log_to_wandb

COMMAND = "python sweep.py ablation=recipe 'x=<1>'"


def drawn(made: Table) -> np.ndarray:
    """Return the luminance of the figure, uint8 [height, width]."""
    file = BytesIO()
    draw(made, file)
    return np.asarray(Image.open(file).convert("L"))


def test_the_figure_fills_its_frame_and_touches_no_edge() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = drawn(odd_table())
    assert picture.shape[1] == 1080
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert edge.min() == 255 and picture.min() < 60


def test_the_figure_grows_with_its_rows_up_to_a_limit() -> None:
    def rows(count: int) -> Table:
        return table({f"row {index}": [record(0.9, val=0.9 + index / 1000)] for index in range(count)})

    few, many, more = (drawn(rows(count)).shape[0] for count in (2, MOST_ROWS, MOST_ROWS + 40))
    assert few < many == more


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_rows_without_numbers_or_intervals_are_drawn(metric: str) -> None:
    rows = {"base": [record(0.9, val=0.9, loss=0.4), None], "row": [record(0.91, val=0.9, loss=0.3), None], "x": [None]}
    assert drawn(table(rows, metric=metric)).min() < 60
    assert drawn(table({"base": rows["base"]})).min() < 60


class Page(HTMLParser):
    """A parser that checks that elements are nested correctly, and keeps texts and addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def page_of(made: Table, folder: Path) -> Page:
    overrides = {ODD: ["optim=adamw", "name=two words", "x=<i>"]}
    path = write_page(made, folder, overrides=overrides, command=COMMAND)
    assert path == folder / "sweep.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_tells_all_and_obeys_no_name(tmp_path: Path) -> None:
    page = page_of(odd_table(), tmp_path)
    assert ODD_SEEN in page.texts
    assert "+5.00* [+4.98, +5.02]" in page.texts
    assert "optim=adamw 'name=two words' 'x=<i>'" in page.texts
    assert COMMAND in page.texts
    assert [
        text for text in page.texts if re.fullmatch(r"\d+ (completed|running|interrupted|failed|missing)", text)
    ] == ["9 completed", "1 running", "1 failed", "1 missing"]
    assert "MemoryError: no <room>" in page.texts and "Traceback" not in " ".join(page.texts)
    assert not {"b", "i", "script", "here"} & set(page.tags)


def test_the_page_loads_nothing_and_links_the_trials_reports(tmp_path: Path) -> None:
    made = build_table(outcomes({"base": [record(0.9), record(0.8)]}, tmp_path / "a b#c"), title="t")
    (tmp_path / "a b#c" / "0-1").mkdir(parents=True)
    (tmp_path / "a b#c" / "0-1" / "report.html").touch()
    page = page_of(made, tmp_path)
    [picture, report] = page.addresses
    assert picture.startswith("data:image/png;base64,")
    assert report == "a%20b%23c/0-1/report.html"


def test_the_page_of_a_sweep_that_has_just_begun(tmp_path: Path) -> None:
    page = page_of(table({"base": [None, None]}), tmp_path)
    assert "img" not in page.tags and "0 of 2,\n2 missing" in page.texts


def test_a_failure_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page_of(odd_table(), tmp_path)
    before = (tmp_path / "sweep.html").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no room"):
        page_of(table({"base": [None]}), tmp_path)
    assert (tmp_path / "sweep.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.html"]


@pytest.mark.slow  # a run of W&B takes seconds
def test_wandb_gets_table_and_figure_in_the_sweeps_group(tmp_path: Path) -> None:
    where = log_to_wandb(odd_table(), tmp_path, project="vitexp", group="recipe", mode="offline")
    match = re.fullmatch(r"offline; wandb sync (.+) uploads it", where)
    assert match
    run = Path(match[1])
    assert run.is_relative_to(tmp_path)
    [logged] = run.glob("files/media/table/*.table.json")
    content = json.loads(logged.read_text())
    assert content["columns"] == list(COLUMNS)
    assert [row[0] for row in content["data"]] == [row.name for row in odd_table().rows]
    assert list(run.glob("files/media/images/*.png"))
    program = shutil.which("wandb", path=str(Path(sys.executable).parent)) or "wandb"
    inspected = subprocess.run([program, "leet", "inspect", "--json", str(run)], capture_output=True, text=True)
    records = [json.loads(line) for line in inspected.stdout.splitlines()]
    [described] = [record["run"] for record in records if record["type"] == "run"]
    assert (described["run_group"], described["job_type"], described["project"]) == ("recipe", "table", "vitexp")
