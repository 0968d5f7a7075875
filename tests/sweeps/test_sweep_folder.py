"""The folder of a sweep: its name, whose it is, and who writes there."""

from __future__ import annotations

import io
import json
import os
import re
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from vitexp.errors import ConfigError, UserError
from vitexp.sweeps.engines.local import LocalEngine
from vitexp.sweeps.engines.trial import Trial
from vitexp.sweeps.folder import Sweep, hold_if_free, hold_sweep, refuse_other_kind
from vitexp.sweeps.grid import Plan, Row, plan
from vitexp.sweeps.sweep import _run_rows
from vitexp.system.lock import Held

GTSRB = Sweep.of("ablation=clahe", ["data=gtsrb", "trainer.max_epochs=3"])


def folder_of(sweep: Sweep, logs: Path, *run_ids: str, name: str | None = None, earlier: str = "clahe") -> str:
    return sweep.folder(logs, run_ids, name=name, earlier=logs / earlier).name


def claimed(sweep: Sweep, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sweep.claim(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "arguments", "name"),
    [
        ("ablation=clahe", "", "clahe"),
        ("ablation=clahe", "trainer.max_epochs=3 optim=muon data=gtsrb", "clahe-gtsrb-muon-max_epochs_3"),
        ("ablation=clahe", "logger=csv callbacks=none seed=range(5) data.num_workers=2 data.cache_dir=x", "clahe"),
        ("grid", "optim.lr=1e-4,3e-4 seed=1,2", "grid-lr_0.0001_0.0003"),
        ("search=recipe", "data=folder data.root=/home/me/photos/", "recipe-folder-root_photos"),
        ("grid", "model.depth=range(1,40)", "grid-[0-9a-f]{6}"),
    ],
)
def test_the_name_says_what_all_trials_have_in_common(kind: str, arguments: str, name: str) -> None:
    assert re.fullmatch(name.replace("+", r"\+"), Sweep.of(kind, arguments.split()).name)
    assert Sweep.of(kind, arguments.split()[::-1]).name == Sweep.of(kind, arguments.split()).name


def test_another_sweep_has_another_folder(tmp_path: Path) -> None:
    claimed(GTSRB, tmp_path / folder_of(GTSRB, tmp_path))
    assert folder_of(GTSRB, tmp_path) == "clahe-gtsrb-max_epochs_3"
    assert folder_of(Sweep.of("ablation=clahe", ["data=gtsrb"]), tmp_path) == "clahe-gtsrb"
    here = claimed(Sweep.of("grid", ["data.root=/a/photos"]), tmp_path / "grid-root_photos")
    there = folder_of(other := Sweep.of("grid", ["data.root=/b/photos"]), tmp_path)
    assert there == f"{here.name}-{other.digest}"  # the hash as the last resort


def test_a_folder_of_an_earlier_version_is_continued_if_it_has_a_trial_of_this_sweep(tmp_path: Path) -> None:
    (tmp_path / "clahe" / "0a1b").mkdir(parents=True)
    (tmp_path / "clahe" / "table.csv").touch()
    assert folder_of(GTSRB, tmp_path, "0a1b", "2c3d") == "clahe"
    assert folder_of(GTSRB, tmp_path, "2c3d") == "clahe-gtsrb-max_epochs_3"
    plain = Sweep.of("ablation=clahe", [])
    assert folder_of(plain, tmp_path, "4e5f") == f"clahe-{plain.digest}"  # the tables there are those of another
    claimed(GTSRB, tmp_path / "clahe")
    assert folder_of(Sweep.of("ablation=clahe", ["data=signs"]), tmp_path, "0a1b") == "clahe-signs"


def test_trials_that_started_in_the_folder_of_another_sweep_stay_there(tmp_path: Path) -> None:
    [first, second] = plan(tmp_path / "new", ablation=None, arguments=["seed=0,1", "logger=csv"]).trials
    (tmp_path / "old" / first.folder.name).mkdir(parents=True)
    made = plan(lambda run_ids: tmp_path / "new", ablation=None, arguments=["seed=0,1"], earlier=tmp_path / "old")
    assert [trial.folder for trial in made.trials] == [tmp_path / "old" / first.folder.name, second.folder]
    assert made.folder == tmp_path / "new"
    assert 'name="old"' in made.trials[0].overrides


def test_a_given_name_is_not_that_of_another_sweep_and_may_grow(tmp_path: Path) -> None:
    small, large, other = (
        Sweep.of("grid", [*words, "seed=0"])
        for words in (["optim.lr=1,2"], ["optim.lr=1,2,3"], ["optim.lr=1,2", "data=gtsrb"])
    )
    folder = claimed(small, tmp_path / "mine")
    assert folder_of(large, tmp_path, name="mine") == "mine"
    claimed(large, folder)
    assert json.loads((folder / "sweep.json").read_text())["overrides"] == {"optim.lr": ["1", "2", "3"]}
    for sweep in (other, small, GTSRB):
        with pytest.raises(ConfigError, match=r"mine contains another sweep \(grid optim\.lr=1,2,3\); choose another"):
            folder_of(sweep, tmp_path, name="mine")
        with pytest.raises(ConfigError, match="another sweep has just started"):
            sweep.claim(folder)
    with pytest.raises(ConfigError, match="contains another sweep"):
        refuse_other_kind(folder)


@pytest.mark.parametrize("text", ["[]", "null", "{", '{"sweep": 1, "overrides": []}', '{"sweep": "a"}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, text: str) -> None:
    folder = claimed(GTSRB, tmp_path / "clahe")
    (folder / "sweep.json").write_text(text)
    assert folder_of(GTSRB, tmp_path, "0a1b") == "clahe-gtsrb-max_epochs_3"
    GTSRB.claim(folder)


def test_one_sweep_at_a_time_and_showing_writes_nothing_meanwhile(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=500)
    with hold_sweep(tmp_path / "s"):
        with pytest.raises(Held, match=rf"s is in use by process {os.getpid()} on .*; wait for it or stop it\."):
            hold_sweep(tmp_path / "s").__enter__()
        with hold_if_free(tmp_path / "s", console) as is_ours:
            assert not is_ours
    assert "no files are written: " in console.file.getvalue()  # type: ignore[attr-defined]
    with hold_if_free(tmp_path / "s", console) as is_ours:
        assert is_ours
    with hold_if_free(tmp_path / "nothing yet", console) as is_ours:
        assert not is_ours
    assert not (tmp_path / "nothing yet").exists()


def test_tables_are_written_under_the_lock_only(tmp_path: Path) -> None:
    folder, console = tmp_path / "s", Console(file=io.StringIO(), width=500)
    trial = Trial(row="a", seed=0, overrides=(), folder=folder / "0a1b", command=())
    made = Plan(folder=folder, rows=[Row(name="a", overrides=())], trials=[trial], wandb=None, is_cumulative=False)
    config = {"metric": "accuracy", "baseline": None, "report": False, "trials": []}
    run = {show: partial(_run_rows, made, GTSRB, OmegaConf.create({**config, "show": show})) for show in (True, False)}
    run[True](LocalEngine(), console=console)
    assert not folder.exists()
    with hold_sweep(folder):
        run[True](LocalEngine(), console=console)
        with pytest.raises(Held):
            run[False](LocalEngine(), console=console)
        assert [path.name for path in folder.iterdir()] == ["sweep.lock"]
    run[True](LocalEngine(), console=console)
    assert {"sweep.json", "sweep.html", "table.csv", "table.md", "table.tex"} < {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("count", [1, 2])
def test_one_combination_is_run_but_said_first(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file, before = tmp_path / "s", io.StringIO(), list[str]()
    trials = [Trial(row="a", seed=seed, overrides=(), folder=folder / str(seed), command=()) for seed in range(count)]
    made = Plan(folder=folder, rows=[Row(name="a", overrides=())], trials=trials, wandb=None, is_cumulative=False)
    monkeypatch.setattr("vitexp.sweeps.sweep.run_trials", lambda *_, **__: before.append(file.getvalue()) or [])
    config = {"metric": "accuracy", "baseline": None, "report": False, "trials": [], "show": False}
    _run_rows(made, GTSRB, OmegaConf.create(config), LocalEngine(), console=Console(file=file, width=80))
    [said] = before
    assert ("one combination" in said and "optim.lr=1e-4,3e-4" in said) == (count == 1)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write in .*file/s: Not a directory; free some space, or set log_dir"):
        hold_sweep(tmp_path / "file" / "s").__enter__()
