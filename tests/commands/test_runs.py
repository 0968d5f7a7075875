"""The list of local runs, and the removal of their checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import composed, result
from vitexp.commands import clean, runs
from vitexp.errors import ConfigError, UserError
from vitexp.runs.cleanup import refuse_lost_checkpoints
from vitexp.runs.inventory import runs_in
from vitexp.runs.record import LOCK, TRIAL_LOCK, RunRecord
from vitexp.system.lock import hold

RELEASED = Path(__file__).parents[1] / "released" / "2026-11-26" / "run"


def a_run(logs: Path, path: str = "signs-vit_tiny/20261126-120000-abc123", **facts: Any) -> Path:
    """Make a completed run with weights and one checkpoint, whose record has these facts."""
    folder = Path(shutil.copytree(RELEASED, logs / path))
    shutil.copy(folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "best.ckpt")
    (folder / LOCK).touch()
    record = {**result(folder), "started_at": "2026-11-26T12:00:00+00:00", **facts}
    (folder / "result.json").write_text(json.dumps(record))
    return folder


def measured(accuracy: float) -> dict[str, Any]:
    return {"test": {"accuracy": accuracy}}


def listed(capsys: pytest.CaptureFixture[str], logs: Path, *words: str) -> list[str]:
    """Return the lines of the table, without its heading and the line below it."""
    runs.main([f"log_dir={logs}", *words])
    return capsys.readouterr().out.splitlines()[1:-1]


def test_runs_are_listed_sorted_and_filtered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = "2026-11-{}T12:00:00+00:00"
    gtsrb = {"data": {"name": "gtsrb"}, "model": {"name": "vit_small"}}
    a_run(tmp_path, "a/1", started_at=day.format(24), metrics=measured(0.5), **gtsrb)
    a_run(tmp_path, "b/2", started_at=day.format(26), metrics=measured(0.25), data={"name": "cifar10"})
    a_run(tmp_path, "paper/c/3", started_at=day.format(25), status="failed", metrics=None, data=None, model=None)
    names = [line.split()[0] for line in listed(capsys, tmp_path)]
    assert names == ["b/2", "paper/c/3", "a/1"]
    assert [line.split()[0] for line in listed(capsys, tmp_path, "sort=accuracy")] == ["a/1", "b/2", "paper/c/3"]
    [line] = listed(capsys, tmp_path, "data=gtsrb", "status=completed,failed")
    assert line.split()[3:6] == ["gtsrb", "vit_small", "50.00%"] and line.endswith("completed")
    [line] = listed(capsys, tmp_path, "name=paper/*")
    assert line.split()[3:5] == ["signs", "vit_tiny"]  # from config.yaml
    with pytest.raises(ConfigError, match="no run has model=vit_tinny; the nearest is vit_tiny"):
        listed(capsys, tmp_path, "model=vit_tinny")
    with pytest.raises(
        ConfigError, match=r"no run has model=small; 'model=\*small\*' selects every model that contain"
    ):
        listed(capsys, tmp_path, "model=small")
    assert len(listed(capsys, tmp_path, "model=*small*")) == 1
    with pytest.raises(ConfigError, match="status=done is not a status; choose from completed"):
        listed(capsys, tmp_path, "status=done")


def test_images_of_your_own_have_the_name_of_their_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(tmp_path, "folder/1", data={"name": "folder", "root": "photos/holiday"})
    a_run(tmp_path, "folder/2", data={"name": "folder", "root": None})
    a_run(tmp_path, "gtsrb/3", data={"name": "gtsrb", "root": "data/gtsrb"})
    assert sorted(line.split()[3] for line in listed(capsys, tmp_path)) == ["folder", "gtsrb", "holiday"]
    assert len(listed(capsys, tmp_path, "data=holiday")) == 1


def test_a_damaged_record_is_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = ['{"status": "comp', "[1]", '{"status": 3}', "\x00", '{"status": ["completed"]}']
    for number, text in enumerate(contents):
        (a_run(tmp_path, f"bad/{number}") / "result.json").write_text(text)
    (a_run(tmp_path, "bad/gone") / "result.json").unlink()
    strange = {"metrics": {"test": 3}, "data": "x", "model": [], "started_at": 5}
    a_run(tmp_path, "good/strange", **strange)
    lines = listed(capsys, tmp_path)
    assert len(lines) == 7
    assert sum("damaged: result.json " in line for line in lines) == 6  # the strange one too
    assert sum("damaged: there is no result.json" in line for line in lines) == 1
    assert len(listed(capsys, tmp_path, "status=damaged")) == 7


def test_a_run_without_a_process_was_killed(tmp_path: Path) -> None:
    running, killed = (a_run(tmp_path, f"a/{number}", status="running") for number in (1, 2))
    between = a_run(tmp_path, "sweep/3", status="running")  # two attempts at a trial
    with hold(running / LOCK, wait=False), hold(between / TRIAL_LOCK, wait=False):
        status = {run.folder: run.status for run in runs_in(tmp_path)}
    assert status == {running: "running", killed: "killed", between: "running"}
    assert {run.status for run in runs_in(tmp_path)} == {"killed"}
    assert not (killed / TRIAL_LOCK).exists() and not (killed / LOCK).read_text()  # listing changes nothing


def test_a_sweep_is_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(20):
        status = "failed" if number == 3 else "completed"
        trial = a_run(tmp_path, f"recipe/{number:02}", metrics=measured(number / 100), status=status)
        (trial / TRIAL_LOCK).touch()
    a_run(tmp_path, "alone/1", metrics=measured(0.1))
    sweep, alone = listed(capsys, tmp_path, "sort=accuracy")
    assert sweep.startswith("recipe (20 trials)") and "0.00–19.00%" in sweep and "19/20 completed" in sweep
    assert alone.startswith("alone/1")
    assert len(listed(capsys, tmp_path, "trials=true")) == 21
    assert "0.03" not in listed(capsys, tmp_path, "name=recipe", "status=completed")[0]


def test_the_table_fits_a_terminal_and_is_complete_in_a_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "a-long-name-of-an-experiment-that-nobody-would-type/20261126-120000-abc123"
    a_run(tmp_path, long)
    assert listed(capsys, tmp_path)[0].startswith(f"{long}  2026-11-26 ")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for width in (80, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        [line] = listed(capsys, tmp_path)
        assert len(line) <= width
        assert line.startswith("a-long") and "bc123  2026" in line and "…" in line


def test_two_hundred_runs_are_listed_without_torch(tmp_path: Path) -> None:
    record = (RELEASED / "result.json").read_text()
    for number in range(200):
        (tmp_path / "a" / str(number)).mkdir(parents=True)
        (tmp_path / "a" / str(number) / "result.json").write_text(record)
    lines = ("import sys", "from vitexp.commands import runs", f"runs.main(['log_dir={tmp_path}'])")
    script = "; ".join((*lines, "print('torch' in sys.modules)"))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.count("completed") == 200 and ended.stdout.endswith("False\n")


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def test_checkpoints_of_completed_runs_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done, failed, used = (a_run(tmp_path, f"a/{name}") for name in ("done", "failed", "used"))
    (failed / "result.json").write_text(json.dumps({**result(failed), "status": "failed"}))
    (done / "checkpoints" / "mine.ckpt").touch()
    (done / "checkpoints" / ".last.ckpt-abc").touch()
    before = {path: path.read_bytes() for path in done.glob("[!.]*.*") if path.is_file()}
    clean.main([f"log_dir={tmp_path}"])
    printed = capsys.readouterr().out
    assert "yes=true removes them" in printed and "last.ckpt" in names(done)
    assert "kept     those of 1 unfinished run; status=failed,interrupted,killed selects them" in printed
    with hold(used / LOCK, wait=False):
        clean.main([f"log_dir={tmp_path}", "yes=true"])
    assert f"skipped  a/used: {used} is in use by process {os.getpid()}" in capsys.readouterr().out
    assert names(done) == {"mine.ckpt", "removed.txt"}
    assert names(failed) == names(used) == {"best.ckpt", "last.ckpt"}
    assert before == {path: path.read_bytes() for path in done.glob("[!.]*.*") if path.is_file()}
    clean.main([f"log_dir={tmp_path}", "yes=true", "status=failed"])
    assert "1 run could then no longer be resumed" in capsys.readouterr().out and names(failed) == {"removed.txt"}


def test_debug_runs_are_cleaned_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tried, stopped = (a_run(tmp_path, f"a/{name}", debug=True) for name in ("tried", "stopped"))
    (stopped / "result.json").write_text(json.dumps({**result(stopped), "status": "interrupted"}))
    clean.main([f"log_dir={tmp_path}", "status=completed", "yes=true"])
    assert "last.ckpt" in names(tried)
    capsys.readouterr()
    clean.main([f"log_dir={tmp_path}"])
    printed = capsys.readouterr().out
    assert "a/tried  debug " in printed and "yes=true removes them" in printed and "resumed" not in printed
    clean.main([f"log_dir={tmp_path}", "yes=true"])
    assert names(tried) == {"removed.txt"} and "last.ckpt" in names(stopped)
    weights = a_run(tmp_path, "a/damaged", debug=True) / "model.safetensors"
    weights.write_bytes(b"")
    clean.main([f"log_dir={tmp_path}", "yes=true"])
    assert "last.ckpt" in names(weights.parent)


def test_the_question_is_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(tmp_path, "a/1")
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    for answer, left in (("", 2), ("n", 2), ("yes", 1)):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        clean.main([f"log_dir={tmp_path}"])
        assert len(names(folder)) == left, answer


def test_nothing_is_removed_if_nobody_can_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(tmp_path, "a/1")
    monkeypatch.setattr("sys.stdin", None)  # as it is if it was closed
    clean.main([f"log_dir={tmp_path}"])
    assert "yes=true removes them" in capsys.readouterr().out
    assert len(names(folder)) == 2


def test_nothing_outside_of_run_folders_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    (a := a_run(logs, "a/1")).rename(elsewhere)
    a.symlink_to(elsewhere)
    b = a_run(logs, "b/2")
    (b / "checkpoints").rename(tmp_path / "disk")
    (b / "checkpoints").symlink_to(tmp_path / "disk")
    c = a_run(logs, "c/3")
    (c / "checkpoints" / "last.ckpt").unlink()
    (c / "checkpoints" / "last.ckpt").symlink_to(tmp_path / "disk" / "last.ckpt")
    clean.main([f"log_dir={logs}", "yes=true"])
    output = capsys.readouterr().out
    assert [f"skipped  {path}: its folder is reached through a link" in output for path in ("a/1", "b/2")] == [True] * 2
    assert names(elsewhere) == names(b) == {"best.ckpt", "last.ckpt"}
    assert names(c) == {"last.ckpt", "removed.txt"}


def test_checkpoints_stay_if_the_weights_are_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = a_run(tmp_path, "a/1")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    clean.main([f"log_dir={tmp_path}", "yes=true"])
    assert "model.safetensors is missing or damaged" in capsys.readouterr().out
    assert names(folder) == {"best.ckpt", "last.ckpt"}


def test_only_runs_that_have_ended_can_be_selected() -> None:
    for status in ("running", "completed,damaged"):
        with pytest.raises(ConfigError, match=f"status={status} must be one or more of completed"):
            clean.main([f"status={status}"])


def test_a_cleaned_run_is_not_made_longer(tmp_path: Path) -> None:
    from vitexp.runs.resume import resumed
    from vitexp.runs.run import run

    folder = a_run(tmp_path, "a/1")
    words = [f"resume={folder}", "trainer.max_epochs=99"]
    clean.main([f"log_dir={tmp_path}", "yes=true"])
    before = (folder / "result.json").read_bytes()
    with pytest.raises(
        UserError, match=r"were removed by `.*clean log_dir=.*yes=true` on 20.*without resume="
    ) as refused:
        run(resumed(composed(*words), words, partial(lambda words: composed(*words))))
    assert refused.value.exit_code == 2
    assert (folder / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("status", "resume", "has_note", "refused"),
    [
        ("completed", "auto", False, True),  # its results would be overwritten
        ("completed", "x", True, True),
        ("interrupted", "x", True, True),
        ("interrupted", "auto", True, False),  # starts again, as a trial of a sweep must
        ("running", "x", False, False),  # killed before its first checkpoint
    ],
)
def test_which_runs_may_start_from_scratch(
    tmp_path: Path, status: str, resume: str, has_note: bool, refused: bool
) -> None:
    folder = a_run(tmp_path, "a/1", status=status)
    if has_note:
        (folder / "checkpoints" / "removed.txt").write_text("removed by `vitexp clean` on 2026-11-26")
    try:
        refuse_lost_checkpoints(RunRecord.read(folder), composed(f"resume={resume}"))
    except ConfigError:
        assert refused
    else:
        assert not refused


def test_a_debug_run_does_not_look_like_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(tmp_path, "a/tried", debug=True)
    a_run(tmp_path, "a/real")
    assert [run.status for run in runs_in(tmp_path)].count("debug") == 1
    assert len(listed(capsys, tmp_path, "status=completed")) == 1
