"""A sweep of fake trainers: its trials, and a process that tests can kill.

python fake_sweep.py FOLDER ENGINE NUMBER [fake trainer's options ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from vitexp.sweeps.engines import Engine, run_trials
from vitexp.sweeps.engines.local import LocalEngine
from vitexp.sweeps.engines.ray_engine import RayEngine
from vitexp.sweeps.engines.slurm import SlurmEngine
from vitexp.sweeps.engines.trial import Event, Trial


def fake_trial(folder: Path, *options: str) -> Trial:
    """Return a trial of the fake trainer, in `folder`."""
    trainer = str(Path(__file__).with_name("fake_trainer.py"))
    command = (sys.executable, "-S", trainer, str(folder), *options)
    return Trial(row=folder.name, seed=0, overrides=options, folder=folder, command=command)


def local(**changes: Any) -> Engine:
    return LocalEngine(**{"retries": 0, **changes})


def ray(**changes: Any) -> Engine:
    return RayEngine(**{"retries": 0, **changes})


def slurm(**changes: Any) -> Engine:
    return SlurmEngine(**{"retries": 0, "cluster": "local", "gpus_per_trial": 0, "cpus_per_trial": 1, **changes})


if __name__ == "__main__":
    folder, kind, number, *options = sys.argv[1:]
    engine = {"local": local, "ray": lambda: ray(gpus=4), "slurm": slurm}[kind]()
    trials = [fake_trial(Path(folder) / str(index), *options) for index in range(int(number))]

    def tell(event: Event) -> None:
        print(type(event).__name__, getattr(event, "status", ""), flush=True)

    run_trials(trials, engine, on_event=tell)
