"""The bundled network: its size and record, and its use in every command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from vitexp.commands import evaluate, explain
from vitexp.errors import ConfigError, UserError
from vitexp.runs.find import completed_runs, requested_run, run_folder
from vitexp.runs.finished import load_run
from vitexp.runs.test_set import open_test_set

SHIPPED = Path(__file__).parents[2] / "vitexp" / "runs" / "shipped" / "gtsrb"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return run_folder("pretrained").resolve()


def test_size_and_record() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 12_000_000
    record = json.loads((SHIPPED / "result.json").read_text())
    in_the_table = Path(__file__).parents[2] / ".readme" / "results" / "gtsrb_best" / "vit_tiny_conv-gtsrb-12-0.json"
    listed = json.loads(in_the_table.read_text())
    assert record == {key: listed[key] for key in record}
    assert not re.search(r": +/", (SHIPPED / "config.yaml").read_text()), "a path of one machine"


def test_synthetic_signs_are_recognized(folder: Path) -> None:
    run = load_run(folder)
    _, drawn = open_test_set(run, ["data=signs", "data.test_per_class=2"])
    accuracy = np.mean(run.all_logits(drawn.images).argmax(dim=1).numpy() == drawn.labels)
    assert accuracy > 0.5, accuracy


def test_copy_among_the_runs_keeps_what_is_written_into_it(folder: Path) -> None:
    assert completed_runs() == [folder.relative_to(Path.cwd())]
    (folder / "evaluation").mkdir()
    assert run_folder("pretrained").resolve() == folder
    assert (folder / "evaluation").exists()


def test_every_command_accepts_it(folder: Path) -> None:
    assert explain.parse(["run=pretrained"])["folder"] == run_folder("pretrained")
    assert evaluate.parse(["run=pretrained"])["folder"] == run_folder("pretrained")
    assert requested_run("pretrained").resolve() == folder


def test_refused_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^run=nowhere is not a folder; .*, or run=pretrained, the bundled GTSRB"):
        run_folder("nowhere")
    monkeypatch.chdir(tmp_path)
    Path("logs").write_text("no folder")
    with pytest.raises(UserError, match=r"^cannot copy the pretrained network to logs/pretrained/"):
        run_folder("pretrained")
