"""A search with the configurations of train.py, and with train.py itself."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from tests.conftest import CONF, TINY
from tests.sweeps.fake_search import SPACE, FakeEngine, options, peak, run
from tests.sweeps.fake_sweep import local
from vitexp.errors import ConfigError
from vitexp.sweeps.engines.trial import Trial


@pytest.mark.parametrize(
    ("arguments", "changes", "sentence"),
    [
        ((), {"trials": 0}, "search.trials=0 must be an integer of 1 or more"),
        ((), {"sampler": "grid"}, "search.sampler=grid must be"),
        ((), {"direction": "up"}, "search.direction=up must be"),
        ((), {"metric": "test/accuracy"}, "search.metric=test/accuracy must be a metric of the validation set"),
        ((), {"metric": "val/speed"}, "checkpoint.monitor=val/speed"),
        ((), {"prune": {"startup": 5}}, "search.prune="),
        ((), {"speed": 1}, "there is no key 'search.speed'"),
        ((), {"space": {}}, "search.space="),
        *(
            ((), {"space": {"optim.lr": spec}}, f"the search, space, optim.lr: {sentence}")
            for spec, sentence in [
                (0.1, "0.1 must be a range, {low, high} or {choices}"),
                ({}, "low is missing"),
                ({"low": 1e-3}, "high is missing"),
                ({"low": "a", "high": 1}, "low=a must be a number"),
                ({"low": 0.1, "high": float("inf")}, "high=inf must be a number"),
                ({"low": 1.0, "high": 0.1}, "low=1.0 must be below high=0.1"),
                ({"low": 0.0, "high": 0.1, "log": True}, "low=0.0 must be above 0 because log=true"),
                ({"low": 0.1, "high": 0.2, "log": 1}, "log=1 must be true or false"),
                ({"low": 0.1, "high": 0.2, "log": True, "step": 0.1}, "step=0.1 and log=true exclude each other"),
                ({"low": 0.1, "high": 0.2, "step": 0}, "step=0 must be a number above 0"),
                (
                    {"low": 0.0, "high": 0.3, "step": 0.2},
                    "step=0.2 does not lead from low=0.0 to high=0.3; use high=0.2",
                ),
                ({"low": 0.1, "high": 0.2, "logg": True}, "there is no key 'logg'; the nearest is log"),
                ({"distribution": "uniform", "min": 0, "max": 1}, "there is no key 'distribution'; choose from"),
                ({"choices": []}, "choices=[] must be a list of one or more values"),
                ({"choices": "abc"}, "choices=abc must be a list"),
                ({"choices": [[1, 2]]}, "choices=[[1, 2]] must be a list"),
                ({"choices": [0.1, 0.1]}, "a choice is given twice"),
                ({"choices": [0.1], "low": 0}, "choices and low exclude each other"),
            ]
        ),
        ((), {"space": {3: {"choices": [1]}}}, "the name of a key must be a text"),
        ((), {"space": {"seed": {"choices": [1, 2]}}}, "the search, space: seed cannot be searched"),
        ((), {"space": {"optim.lr": {"low": 1e-6, "high": 0.1}}}, "schedule.min_lr=1e-05 must be between"),
        ((), {"space": {"optim.lrs": {"low": 0.1, "high": 0.2}}}, "lrs"),
        (("optim.lr=0.1",), {}, "optim.lr is searched"),
        (("seed=1,2",), {}, "one value per key"),
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
    """A learning rate that hardly learns, then one so high that it does harm: it is stopped after its first epoch."""
    rates = iter([1e-5, 5e-2])

    def sampler(*_: object) -> optuna.samplers.BaseSampler:
        fixed = {"optim.lr": next(rates), "model.drop_path": 0.05}
        return optuna.samplers.PartialFixedSampler(fixed, optuna.samplers.RandomSampler())

    monkeypatch.setattr("vitexp.sweeps.search.study._sampler", sampler)
    monkeypatch.chdir(CONF.parent)
    chosen = {"metric": "val/loss", "direction": "minimize", "prune": {"startup": 1, "warmup": 1}}
    space = {"optim.lr": {"low": 1e-5, "high": 1e-1, "log": True}, "model.drop_path": {"low": 0.0, "high": 0.1}}
    trainer = (
        *TINY,
        "trainer.max_epochs=3",
        "augment=none",
        "schedule.warmup_epochs=0",
        "logger=none",
        "callbacks=none",
    )
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
