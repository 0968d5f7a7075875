"""A search: it finds, goes on, survives failures, prunes, and looks at validation alone."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from rich.console import Console

from tests.conftest import CONF, TINY, composed
from tests.sweeps.fake_sweep import local
from vitexp.checks import check
from vitexp.errors import ConfigError
from vitexp.records import METRICS
from vitexp.sweeps import search as search_module
from vitexp.sweeps.engines import Engine, OnEvent
from vitexp.sweeps.search import NothingFound, search
from vitexp.sweeps.study import Reporter, journal
from vitexp.sweeps.trial import Event, Finished, Ready, Started, Trial

SPACE = {
    "optim.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "optim.weight_decay": {"low": 0.0, "high": 0.5},
}
NODE: dict[str, Any] = {
    "trials": 24,
    "startup": 8,
    "parallel": None,
    "metric": "val/accuracy",
    "direction": "maximize",
    "sampler": "tpe",
    "seed": 0,
    "prune": None,
    "space": SPACE,
}


def options(trial: Trial) -> dict[str, str]:
    return dict(override.lstrip("+").split("=", 1) for override in trial.overrides)


def peak(trial: Trial) -> float:
    """1 at a learning rate of 1e-3 and a weight decay of 0.1, falling to all sides."""
    values = options(trial)
    lr, decay = float(values["optim.lr"]), float(values["optim.weight_decay"])
    return math.exp(-(math.log10(lr / 1e-3) ** 2) - 20 * (decay - 0.1) ** 2)


class FakeEngine(Engine):
    """Runs a trial by asking a function for its validation accuracy: an exception fails it. Test accuracy misleads."""

    def __init__(self, score: Callable[[Trial], float], *, slots: int = 4) -> None:
        super().__init__(retries=0, timeout=None, gpus_per_trial=0, cpus_per_trial=1)
        object.__setattr__(self, "score", score)
        object.__setattr__(self, "slots", slots)
        object.__setattr__(self, "rounds", [])
        object.__setattr__(self, "ran", [])

    def run(self, trials: Sequence[Trial], *, on_event: OnEvent) -> None:
        self.rounds.append(len(trials))
        on_event(Ready(slots=self.slots, where="nowhere"))
        for trial in trials:
            on_event(Started(trial=trial, host="here", gpus=None))
            self.ran.append(trial)
            status, error, metrics = "completed", None, None
            try:
                accuracy = self.score(trial)
                metrics = {"val": {"accuracy": accuracy}, "test": {"accuracy": 1 - accuracy}}
            except ValueError as problem:
                status, error = "failed", str(problem)
            result = {"schema": 1, "status": status, "error": error, "metrics": metrics, "seed": 0}
            trial.folder.mkdir(parents=True, exist_ok=True)
            (trial.folder / "result.json").write_text(json.dumps(result))
            on_event(Finished(trial=trial, status=status, error=error, attempts=1, exit_code=0, seconds=0.0))


def run(
    folder: Path, engine: Engine, *arguments: str, show: bool = False, name: str = "found", **changes: Any
) -> list[dict[str, str]]:
    """Search; the lines of trials.csv."""
    console = Console(record=True, width=150, quiet=True)
    node: Mapping[str, Any] = {**NODE, **changes}
    search(node, name=name, log_dir=folder, arguments=arguments, engine=engine, show=show, console=console)
    return lines(folder / name)


def lines(folder: Path) -> list[dict[str, str]]:
    with open(folder / "trials.csv") as file:
        return list(csv.DictReader(file))


def best(found: list[dict[str, str]]) -> float:
    return max(float(line["val/accuracy"]) for line in found if line["state"] == "completed")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials without composing their configuration, which takes Hydra 0.2 s each; and no pictures."""

    def plan(*, name: str, log_dir: Path, ablation: Any, arguments: Sequence[str]) -> tuple[list[Any], list[Trial]]:
        [row] = ablation["rows"]
        overrides = (*arguments, *row["set"])
        hashed = sorted(override for override in overrides if not override.startswith("+callbacks"))
        folder = log_dir / name / hashlib.sha256(" ".join(hashed).encode()).hexdigest()[:12]
        return [], [Trial(row=row["name"], seed=0, overrides=overrides, folder=folder, command=())]

    monkeypatch.setattr(search_module, "plan", plan)
    monkeypatch.setattr("vitexp.sweeps.search_report._draw", lambda *_: [])


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
        """Ctrl-C while the trial runs; of the one before, all is written but nothing told."""

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
    assert f"optim.lr={top['optim.lr']}" in text and "nothing here has looked at the test set" in text
    with pytest.raises(ConfigError, match="must be measured on validation"):
        run(tmp_path, FakeEngine(peak), name="other", metric="test/accuracy")


def reported(trial: Trial) -> float:
    """As a run of six epochs with the callback would."""
    values = options(trial)
    prune = {key: int(values[f"callbacks.pruning.{key}"]) for key in ("startup", "warmup")}
    path, number = Path(values["callbacks.pruning.journal"]), int(values["callbacks.pruning.trial"])
    reporter = Reporter.open(path, number, **prune)
    assert reporter is not None
    for epoch in range(1, 7):
        if reporter.report(peak(trial) * epoch / 6, epoch=epoch) and epoch < 6:
            reporter.mark_pruned()
            return peak(trial) * epoch / 6
    return peak(trial)


@pytest.mark.usefixtures("quick")
def test_what_is_pruned_is_told_and_recorded(tmp_path: Path) -> None:
    engine = FakeEngine(reported)
    found = run(tmp_path, engine, prune={"startup": 3, "warmup": 2})
    pruned = [line for line in found if line["state"] == "pruned"]
    assert pruned and all(line["epochs"] == "2" for line in pruned)
    assert all(int(line["trial"]) >= 3 for line in pruned)  # the first three are compared to nothing
    for line in found:
        record = json.loads((tmp_path / "found" / line["folder"] / "result.json").read_text())
        assert record["status"] == "completed" and record.get("pruned", False) == (line["state"] == "pruned")
    finals = [peak(trial) for trial in engine.ran]
    assert best(found) == pytest.approx(max(finals))


@pytest.mark.usefixtures("quick")
def test_a_trial_that_has_ended_reports_nothing_more(tmp_path: Path) -> None:
    """config.yaml of a pruned trial repeats it in full."""
    run(tmp_path, FakeEngine(reported), prune={"startup": 3, "warmup": 2}, trials=4)
    path = journal(tmp_path / "found")
    assert Reporter.open(path, 0, startup=1, warmup=1) is None
    assert Reporter.open(path, 99, startup=1, warmup=1) is None
    assert Reporter.open(tmp_path / "nowhere", 0, startup=1, warmup=1) is None


@pytest.mark.usefixtures("quick")
def test_other_settings_begin_another_search(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(peak), trials=2)
    for arguments, changes, sentence in (
        (("trainer.max_epochs=2",), {}, "another configuration, and"),
        ((), {"direction": "minimize"}, "another direction and another configuration"),  # which chooses the checkpoint
        ((), {"space": {"optim.lr": SPACE["optim.lr"]}}, "another space, and"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            run(tmp_path, FakeEngine(peak), *arguments, **changes)
    with pytest.raises(ConfigError, match="no search in"):
        run(tmp_path, FakeEngine(peak), name="other", show=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "changes", "sentence"),
    [
        ((), {"trials": 0}, "search.trials=0 must be an integer of 1 or more"),
        ((), {"sampler": "grid"}, "search.sampler=grid must be tpe or random"),
        ((), {"direction": "up"}, "search.direction=up must be maximize or minimize"),
        ((), {"metric": "val/speed"}, "search.metric=val/speed must be measured on validation"),
        ((), {"prune": {"startup": 5}}, "must be null, or startup and warmup"),
        ((), {"speed": 1}, "unexpected keyword argument 'speed'"),
        ((), {"space": {}}, "search.space is empty"),
        ((), {"space": {"optim.lr": {"low": 1e-3}}}, "optim.lr has low; it needs choices, or low and high"),
        ((), {"space": {"optim.lr": {"low": 1.0, "high": 0.1}}}, "optim.lr: "),
        ((), {"space": {"optim.lr": {"low": 1e-6, "high": 0.1}}}, "schedule.min_lr=1e-05 must lie between"),
        ((), {"space": {"optim.lrs": {"low": 0.1, "high": 0.2}}}, "lrs"),
        (("optim.lr=0.1",), {}, "optim.lr is searched for"),
        (("seed=1,2",), {}, "one value for each key"),
        (("model.dim=-1",), {}, "model.dim=-1 must be"),
    ],
)
def test_refuses_before_anything_runs(
    tmp_path: Path, arguments: tuple[str, ...], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((ConfigError, HydraException), match=re.escape(sentence)):
        run(tmp_path, FakeEngine(peak), *arguments, **changes)
    assert list(tmp_path.iterdir()) == []


def test_real_configurations_and_pictures(tmp_path: Path) -> None:
    space = {
        "optim.lr": SPACE["optim.lr"],
        "model.dim": {"choices": [96, 192]},
        "model.num_heads": {"choices": [3, 64]},
    }

    def score(trial: Trial) -> float:
        return float(options(trial)["optim.lr"])

    found = run(tmp_path, FakeEngine(score, slots=12), "logger=none", trials=12, startup=12, space=space)
    together = [line for line in found if (line["model.dim"], line["model.num_heads"]) == ("96", "64")]
    assert together and all(line["state"] == "failed" for line in together)  # 64 heads do not divide 96 channels
    assert len({line["folder"] for line in found if line["folder"]}) == len(found) - len(together)
    assert (tmp_path / "found" / "history.png").stat().st_size > 5000


@pytest.mark.parametrize("path", sorted((CONF / "search").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_search_can_be_composed(path: Path, tmp_path: Path) -> None:
    node: Any = OmegaConf.to_container(OmegaConf.load(path))
    found = run(tmp_path, FakeEngine(lambda trial: 0.5), **{**node, "trials": 1})
    assert [line["state"] for line in found] == ["completed"]
    assert f"python sweep.py search={path.stem}" in path.read_text()


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [("ablation=models", "ablation=models and search=recipe are two sweeps"), ("show=true", "there is no search in")],
)
def test_the_command_refuses(tmp_path: Path, argument: str, sentence: str) -> None:
    command = [sys.executable, str(CONF.parent / "sweep.py"), "search=recipe", argument, f"log_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and sentence in done.stderr


def test_optuna_is_imported_by_searching_alone() -> None:
    code = "import sys, vitexp.sweeps.sweep; sys.exit('optuna' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CONF.parent).returncode == 0


@pytest.mark.slow
def test_real_trials_one_of_them_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate that learns, then one that hardly does: it is stopped after its first epoch."""
    rates = iter([3e-3, 1e-5])

    def sampler(*_: object) -> optuna.samplers.BaseSampler:
        fixed = {"optim.lr": next(rates), "model.drop_path": 0.05}
        return optuna.samplers.PartialFixedSampler(fixed, optuna.samplers.RandomSampler())

    monkeypatch.setattr("vitexp.sweeps.study._sampler", sampler)
    monkeypatch.chdir(CONF.parent)
    chosen = {"metric": "val/loss", "direction": "minimize", "prune": {"startup": 1, "warmup": 1}}
    space = {"optim.lr": {"low": 1e-5, "high": 1e-2, "log": True}, "model.drop_path": {"low": 0.0, "high": 0.1}}
    trainer = (*TINY, "trainer.max_epochs=3", "logger=none", "callbacks=none")
    found = run(tmp_path, local(), *trainer, trials=2, parallel=1, space=space, **chosen)
    assert [(line["state"], line["epochs"]) for line in found] == [("completed", "3"), ("pruned", "1")]
    records = [json.loads((tmp_path / "found" / line["folder"] / "result.json").read_text()) for line in found]
    assert [(record["status"], record["epochs"], record.get("pruned")) for record in records] == [
        ("completed", 3, None),
        ("completed", 1, True),
    ]
    for line, record in zip(found, records, strict=True):
        assert record["metrics"]["test"]["loss"] is not None
        assert record["metrics"]["val"]["loss"] == float(line["val/loss"])

    text = (tmp_path / "found" / "search.md").read_text()
    [repeat] = [line for line in text.splitlines() if line.startswith("python train.py ")]
    words = [sys.executable, *shlex.split(repeat)[1:], f"log_dir={tmp_path}", "name=again"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [folder] = (tmp_path / "again").iterdir()
    record = json.loads((folder / "result.json").read_text())
    assert (record["config_hash"], record["metrics"]) == (found[0]["folder"], records[0]["metrics"])


class TestWandb:
    """conf/wandb_sweep.yaml, with the code of `wandb agent` itself."""

    def command(self, **sampled: Any) -> list[str]:
        """What the agent runs for `sampled`; fixed parameters come with their values."""
        from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

        config: Any = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
        fixed = {key: spec["value"] for key, spec in config["parameters"].items() if "value" in spec}
        assert set(sampled) <= set(config["parameters"])
        args = {key: {"value": value} for key, value in {**fixed, **sampled}.items()}
        words = create_sweep_command_args({"args": args})
        words |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [config["program"]]}
        command = create_sweep_command(config["command"])
        made: list[str] = []
        for part in command:
            match = re.fullmatch(r"\$\{(\w+)\}", part)
            made += words[match.group(1)] if match else [part]
        return made

    def test_every_value_composes(self) -> None:
        config: Any = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
        assert config["metric"]["name"] in [f"val/{name}" for name in METRICS]
        space = {key: spec for key, spec in config["parameters"].items() if "value" not in spec}
        for end in (0, -1):
            values = {key: (spec.get("values") or [spec["min"], spec["max"]])[end] for key, spec in space.items()}
            command = self.command(**values)
            assert command[:3] == ["/usr/bin/env", "python", "train.py"]
            composed_now = composed(*command[3:])
            check(composed_now)
            for key, value in values.items():
                assert OmegaConf.select(composed_now, key) == value

    @pytest.mark.slow
    def test_the_command_runs(self, tmp_path: Path) -> None:
        command = self.command(**{"optim.lr": 0.0012, "training.mixup_alpha": 0.2})
        debug = ["trainer=debug", *(word for word in TINY if not word.startswith("trainer")), f"log_dir={tmp_path}"]
        agent = {"WANDB_SWEEP_ID": "thesweep", "WANDB_RUN_ID": "theagentsrun", "WANDB_DIR": str(tmp_path)}
        environment = {**os.environ, **agent, "WANDB_MODE": "offline"}
        words = [sys.executable if word == "python" else word for word in command]
        done = subprocess.run([*words, *debug], cwd=CONF.parent, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        [record] = tmp_path.glob("*/*/result.json")
        assert json.loads(record.read_text())["status"] == "completed"
        assert list(tmp_path.rglob("*-theagentsrun"))  # the run that the server waits for, not one of our own
        assert "lr: 0.0012" in (record.parent / "config.yaml").read_text()
