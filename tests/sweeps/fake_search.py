"""A search whose trials are function calls."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from vitexp.sweeps.engines import Engine, OnEvent
from vitexp.sweeps.engines.trial import Finished, Ready, Started, Trial
from vitexp.sweeps.search.search import search

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
    """Return 1 at a learning rate of 1e-3 and a weight decay of 0.1, less elsewhere."""
    values = options(trial)
    lr, decay = float(values["optim.lr"]), float(values["optim.weight_decay"])
    return math.exp(-(math.log10(lr / 1e-3) ** 2) - 20 * (decay - 0.1) ** 2)


class FakeEngine(Engine):
    """An engine that gets the validation accuracy of a trial from a function; the test accuracy is its opposite."""

    def __init__(self, score: Callable[[Trial], float], *, slots: int = 4) -> None:
        super().__init__()
        self.score, self.slots = score, slots
        self.rounds: list[int] = []
        self.ran: list[Trial] = []

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
    """Search and return the lines of trials.csv."""
    console = Console(record=True, width=150, quiet=True)
    node: Mapping[str, Any] = {**NODE, **changes}
    search(node, folder / name, show, arguments=arguments, engine=engine, console=console)
    return lines(folder / name)


def lines(folder: Path) -> list[dict[str, str]]:
    with open(folder / "trials.csv") as file:
        return list(csv.DictReader(file))


def best(found: list[dict[str, str]]) -> float:
    return max(float(line["val/accuracy"]) for line in found if line["state"] == "completed")
