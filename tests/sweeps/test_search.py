"""Searches find good values, resume, survive failures, prune, and use validation only."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.sweeps.fake_search import NODE, SPACE, FakeEngine, best, lines, options, peak, run
from vitexp.errors import ConfigError
from vitexp.sweeps.engines import OnEvent
from vitexp.sweeps.engines.trial import Event, Finished, Trial
from vitexp.sweeps.grid import Plan
from vitexp.sweeps.search import search as search_module
from vitexp.sweeps.search.report import report
from vitexp.sweeps.search.search import NothingFound
from vitexp.sweeps.search.study import Reporter, Settings, journal


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip composing configurations, which takes 0.2 s per trial, and drawing figures."""

    def plan(sweep: Path, *, ablation: Any, arguments: Sequence[str], searchpath: Any, check_inputs: bool) -> Plan:
        [row] = ablation["rows"]
        overrides = (*arguments, *row["set"])
        hashed = sorted(override for override in overrides if not override.startswith("+callbacks"))
        folder = sweep / hashlib.sha256(" ".join(hashed).encode()).hexdigest()[:12]
        trial = Trial(row=row["name"], seed=0, overrides=overrides, folder=folder, command=())
        return Plan(folder=sweep, rows=[], trials=[trial], wandb=None, is_cumulative=False)

    monkeypatch.setattr(search_module, "plan", plan)
    monkeypatch.setattr("vitexp.sweeps.search.report._draw", lambda *_: [])


def test_the_table_of_a_search_breaks_no_number(tmp_path: Path) -> None:
    import optuna

    keys = ["optim.lr", "optim.weight_decay", "model.drop_path", "loss.label_smoothing", "training.mixup_alpha"]
    study = optuna.create_study(direction="maximize")
    for number in range(3):
        params = dict.fromkeys(keys, 1.2345e-05 * (number + 1))
        distributions = {key: optuna.distributions.FloatDistribution(0, 1) for key in keys}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=0.98765))
    settings = Settings.of({**NODE, "space": {key: {"low": 0.0, "high": 1.0} for key in keys}})
    for width, missing in ((60, ["mixup_alpha"]), (70, []), (80, []), (200, [])):
        console = Console(file=io.StringIO(), width=width)
        report(study, settings=settings, folder=tmp_path, command=str, console=console, write=False)
        assert isinstance(console.file, io.StringIO)
        table = " ".join(console.file.getvalue().partition("best ")[0].split("\n"))
        assert table.count("1.23e-05") == len(keys) - len(missing) and table.count("0.9877") == 3 and "…" not in table
        assert ("Not shown: " in table) == bool(missing) and all(key in table for key in missing)
        assert max(map(len, console.file.getvalue().partition("best ")[0].splitlines())) <= width


@pytest.mark.usefixtures("quick")
def test_finds_more_than_chance(tmp_path: Path) -> None:
    def good(sampler: str, seed: int) -> int:
        found = run(tmp_path, FakeEngine(peak), name=f"{sampler}{seed}", trials=32, sampler=sampler, seed=seed)
        return sum(float(line["val/accuracy"]) > 0.8 for line in found)

    tpe, chance = ([good(sampler, seed) for seed in range(2)] for sampler in ("tpe", "random"))
    assert min(tpe) >= 6 and sum(tpe) > 2 * sum(chance)


@pytest.mark.usefixtures("quick")
def test_a_search_is_the_same_when_it_is_repeated_and_no_point_is_drawn_twice(tmp_path: Path) -> None:
    first, second = (run(tmp_path, FakeEngine(peak), name=name) for name in ("first", "second"))
    assert [{**line, "folder": ""} for line in first] == [{**line, "folder": ""} for line in second]
    assert len({line["optim.lr"] for line in first}) == NODE["trials"]


@pytest.mark.usefixtures("quick")
def test_the_first_round_is_random_and_the_next_fill_the_engine(tmp_path: Path) -> None:
    engine = FakeEngine(peak, slots=6)
    run(tmp_path, engine)
    assert engine.rounds == [8, 6, 6, 4]
    engine = FakeEngine(peak, slots=6)
    run(tmp_path, engine, name="given", parallel=10)
    assert engine.rounds == [10, 10, 4]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stopped_in", [1, 5, 8, 9, 23])
def test_goes_on_where_it_was_stopped_and_runs_nothing_twice(tmp_path: Path, stopped_in: int) -> None:
    class Stopped(FakeEngine):
        """An engine that is interrupted after a trial has finished, but before the study knows."""

        def run(self, trials: Sequence[Trial], *, on_event: OnEvent) -> None:
            def until(event: Event) -> None:
                if not (isinstance(event, Finished) and len(self.ran) == stopped_in):
                    on_event(event)
                if len(self.ran) == stopped_in and isinstance(event, Finished):
                    raise KeyboardInterrupt

            super().run(trials, on_event=until)

    first = Stopped(peak)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first)
    interrupted = lines(tmp_path / "found")
    unfinished = [line["folder"] for line in interrupted if line["state"] == "unfinished"]
    assert len(unfinished) == len(interrupted) - stopped_in + 1
    second = FakeEngine(peak)
    found = run(tmp_path, second)
    folders = [trial.folder.name for trial in (*first.ran, *second.ran)]
    assert len(folders) == len(set(folders)) == len(found) == NODE["trials"]
    assert set(unfinished) == {
        first.ran[-1].folder.name,
        *(trial.folder.name for trial in second.ran[: len(unfinished) - 1]),
    }
    assert [line["folder"] for line in found[: len(interrupted)]] == [line["folder"] for line in interrupted]
    assert {line["state"] for line in found} == {"completed"}


@pytest.mark.usefixtures("quick")
def test_asking_for_more_trials_goes_on_and_showing_runs_none(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(peak))
    more, none = FakeEngine(peak), FakeEngine(peak)
    assert len(run(tmp_path, more, trials=30)) == 30
    assert len(more.ran) == 6
    assert len(run(tmp_path, none, trials=50, show=True)) == 30
    assert none.ran == []


@pytest.mark.usefixtures("quick")
def test_failed_trials_do_not_stop_it_and_are_not_tried_for_ever(tmp_path: Path) -> None:
    def score(trial: Trial) -> float:
        if float(options(trial)["optim.lr"]) > 1e-2:
            raise ValueError("the loss is not a number")
        return peak(trial)

    found = run(tmp_path, FakeEngine(score))
    failed = [line for line in found if line["state"] == "failed"]
    assert failed and all(float(line["optim.lr"]) > 1e-2 and not line["val/accuracy"] for line in failed)
    assert len(found) == NODE["trials"] and best(found) > 0.8
    again = FakeEngine(score)
    run(tmp_path, again)
    assert again.ran == []


@pytest.mark.usefixtures("quick")
def test_a_search_that_found_nothing_says_so(tmp_path: Path) -> None:
    def score(trial: Trial) -> float:
        raise ValueError("no")

    with pytest.raises(NothingFound, match=r"trials\.csv"):
        run(tmp_path, FakeEngine(score), trials=3)
    assert [line["state"] for line in lines(tmp_path / "found")] == ["failed"] * 3


@pytest.mark.usefixtures("quick")
def test_a_point_that_is_chosen_twice_runs_once(tmp_path: Path) -> None:
    engine = FakeEngine(lambda trial: 0.5)
    found = run(tmp_path, engine, trials=8, space={"model.stem": {"choices": ["patch", "conv"]}})
    assert len(engine.ran) == 2
    assert [line["state"] for line in found] == ["completed"] * 8


@pytest.mark.usefixtures("quick")
def test_validation_alone_is_told(tmp_path: Path) -> None:
    """The fake's test accuracy is the opposite of that on validation."""
    found = run(tmp_path, FakeEngine(peak))
    text = (tmp_path / "found" / "search.md").read_text()
    top = max((line for line in found), key=lambda line: float(line["val/accuracy"]))
    assert f"optim.lr={top['optim.lr']}" in text and "The test set was not used to choose" in text
    with pytest.raises(ConfigError, match="must be a metric of the validation set"):
        run(tmp_path, FakeEngine(peak), name="other", metric="test/accuracy")


def reported(trial: Trial, final: float) -> float:
    """Report as a run of six epochs with the callback would; return the last value."""
    values = options(trial)
    prune = {key: int(values[f"callbacks.pruning.{key}"]) for key in ("startup", "warmup")}
    path, number = Path(values["callbacks.pruning.journal"].strip('"')), int(values["callbacks.pruning.trial"])
    reporter = Reporter.open(path, number, **prune)
    assert reporter is not None
    for epoch in range(1, 7):
        if reporter.report(final * epoch / 6, epoch=epoch) and epoch < 6:
            reporter.mark_pruned()
            return final * epoch / 6
    return final


@pytest.mark.usefixtures("quick")
def test_choices_may_be_any_text(tmp_path: Path) -> None:
    choices = ["a (1)", "a=b", "x,y", "null"]
    engine = FakeEngine(lambda trial: 0.5)
    run(tmp_path, engine, trials=8, space={"data.root": {"choices": choices}})
    assert {options(trial)["data.root"] for trial in engine.ran} <= {'"a (1)"', '"a=b"', '"x,y"', "null"}


@pytest.mark.usefixtures("quick")
def test_a_search_may_be_in_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs (1), a=b"
    folder.mkdir()
    found = run(folder, FakeEngine(lambda trial: reported(trial, peak(trial))), prune={"startup": 3, "warmup": 2})
    assert {line["state"] for line in found} == {"completed", "pruned"}


@pytest.mark.usefixtures("quick")
def test_what_is_pruned_is_told_and_recorded(tmp_path: Path) -> None:
    engine = FakeEngine(lambda trial: reported(trial, peak(trial)))
    found = run(tmp_path, engine, prune={"startup": 3, "warmup": 2})
    pruned = [line for line in found if line["state"] == "pruned"]
    assert pruned and all(line["epochs"] == "2" for line in pruned)
    assert all(int(line["trial"]) >= 3 for line in pruned)  # the first three are never pruned
    for line in found:
        record = json.loads((tmp_path / "found" / line["folder"] / "result.json").read_text())
        assert record["status"] == "completed" and record.get("pruned", False) == (line["state"] == "pruned")
    finals = [peak(trial) for trial in engine.ran]
    assert best(found) == pytest.approx(max(finals))


@pytest.mark.usefixtures("quick")
def test_a_trial_that_has_ended_reports_nothing_more(tmp_path: Path) -> None:
    """A run of the config.yaml of a pruned trial is not pruned."""
    run(tmp_path, FakeEngine(lambda trial: reported(trial, peak(trial))), prune={"startup": 3, "warmup": 2}, trials=4)
    path = journal(tmp_path / "found")
    assert Reporter.open(path, 0, startup=1, warmup=1) is None
    assert Reporter.open(path, 99, startup=1, warmup=1) is None
    assert Reporter.open(tmp_path / "nowhere", 0, startup=1, warmup=1) is None


@pytest.mark.usefixtures("quick")
def test_other_settings_begin_another_search(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(peak), trials=2)
    for arguments, changes, sentence in (
        (("trainer.max_epochs=2",), {}, "another configuration, so"),
        ((), {"direction": "minimize"}, "another direction and another configuration"),  # which chooses the checkpoint
        ((), {"space": {"optim.lr": SPACE["optim.lr"]}}, "another space, so"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            run(tmp_path, FakeEngine(peak), *arguments, **changes)
    with pytest.raises(ConfigError, match="no search in"):
        run(tmp_path, FakeEngine(peak), name="other", show=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("quick")
def test_a_point_that_was_pruned_is_pruned_whenever_it_is_chosen(tmp_path: Path) -> None:
    def score(trial: Trial) -> float:
        return reported(trial, 0.9 if options(trial)["model.stem"] == "patch" else 0.1)

    space = {"model.stem": {"choices": ["patch", "conv"]}}
    prune = {"startup": 1, "warmup": 1}
    for parallel in (1, 4):
        engine = FakeEngine(score)
        found = run(tmp_path, engine, name=f"by{parallel}", parallel=parallel, trials=12, space=space, prune=prune)
        assert len(engine.ran) == 2
        states = {(line["model.stem"], line["state"]) for line in found}
        conv = "pruned" if engine.ran[0].overrides.count("model.stem=patch") else "completed"
        assert states == {("patch", "completed"), ("conv", conv)}
