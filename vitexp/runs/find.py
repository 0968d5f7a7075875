"""Find the run that a command means, and read what its files say besides the weights. Imports no torch."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open

from vitexp.config.components import facts
from vitexp.config.overrides import command_line, setting
from vitexp.config.renames import read_config
from vitexp.errors import ConfigError, UserError
from vitexp.metrics import metric
from vitexp.runs.record import TRIAL_LOCK, DamagedRecord, data_set, is_pretraining, read_result, warn_skipped

NAME = "pretrained"
BUNDLED = Path(__file__).parent / "shipped" / "gtsrb"  # trained by experiment=gtsrb_best


def run_path(typed: str, log_dir: Path | str = "logs") -> Path:
    """Return the path of the run or file that `typed` names: a path, or one below `log_dir`, as `vitexp runs` lists it.

    A path that exists has priority; one that exists in neither place is returned as it is.
    """
    path, below = os.path.expanduser(typed), os.path.join(os.path.expanduser(log_dir), typed)
    return Path(below if os.path.exists(below) and not os.path.exists(path) else path)


def run_folder(typed: str, log_dir: Path | str = "logs") -> Path:
    """Return the folder that run=`typed` names; for "pretrained", logs/pretrained/<run id>, copied if necessary.

    Raises ConfigError if there is no such folder, UserError if logs cannot be written.
    """
    if typed == NAME:
        return _unpacked(Path("logs") / NAME)
    folder = run_path(typed, log_dir)
    if not folder.is_dir():
        if near := get_close_matches(typed, (NAME, "newest"), n=1, cutoff=0.75):
            raise ConfigError(f"run={typed} is not a folder; did you mean {near[0]}?")
        raise ConfigError(
            f"run={typed} is not a folder; give a finished run, <name>/<run id> as the runs command lists it, or "
            f"run={NAME}, the bundled GTSRB network."
        )
    below = [] if (folder / "result.json").exists() else [run for run in completed_runs(folder) if run.parent == folder]
    if below:
        raise ConfigError(
            f"run={typed} is a folder of runs; the newest finished one is {shlex.quote(f'run={below[0]}')}."
        )
    return folder


def _unpacked(logs: Path) -> Path:
    """Return a copy of the bundled run, because explanations and evaluations are written into run folders."""
    folder = logs / str(json.loads((BUNDLED / "result.json").read_text(encoding="utf-8"))["run_id"])
    if not folder.exists():
        unfinished = logs / f".{folder.name}.{os.getpid()}"
        try:
            shutil.copytree(BUNDLED, unfinished)
            unfinished.rename(folder)
        except OSError as error:
            if not folder.exists():  # unless another process was faster
                raise UserError(
                    f"cannot copy the pretrained network to {folder}: {error.strerror or error}."
                ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def requested_run(typed: str, log_dir: Path | str = "logs") -> Path:
    """Return the folder of the run that a command names; the newest finished one in `log_dir` for "newest" or ""."""
    return newest_run(log_dir) if typed in ("", "newest") else run_folder(typed, log_dir)


def newest_run(log_dir: Path | str = "logs") -> Path:
    """Return the folder of the run under `log_dir` that was completed last; a trial only if there is no other.

    Raises ConfigError if there is none.
    """
    completed = completed_runs(log_dir)
    if not completed:
        raise ConfigError(
            f"there is no finished run under {log_dir}; the train command creates one in a few minutes, "
            "and run=pretrained uses the bundled one."
        )
    return next((run for run in completed if not (run / TRIAL_LOCK).exists()), completed[0])


def completed_runs(log_dir: Path | str = "logs") -> list[Path]:
    """Return the folders of all completed runs of classifiers under `log_dir`, the newest first; no debug runs."""
    completed = []
    logs = Path(log_dir).expanduser()
    # A name may be paper/table1, and log_dir the folder of one name.
    for file in (path for depth in ("*", "*/*", "*/*/*") for path in logs.glob(f"{depth}/result.json")):
        if (file.parents[2] / "result.json").exists():  # RUN/evaluation/hub, an export of a run
            continue
        try:
            result = read_result(file.parent)
        except FileNotFoundError:  # removed meanwhile
            continue
        except DamagedRecord as error:
            warn_skipped(str(error))
            continue
        has_weights = (file.parent / "model.safetensors").exists()
        if result["status"] == "completed" and has_weights and not is_pretraining(result) and not result.get("debug"):
            completed.append((str(result.get("finished_at")), file.parent.name, file.parent))
    return [folder for *_, folder in sorted(completed, reverse=True)]


@dataclass(frozen=True, kw_only=True)
class FinishedFiles:
    """What the files of a finished run say besides the weights.

    config: the configuration that the run started with; keys added later have their current defaults. result: the
    record. classes, image_size (pixels per side), mean and std (of values in [0, 1]): what the network expects.
    """

    folder: Path
    config: DictConfig
    result: dict[str, Any]
    classes: list[str]
    image_size: int
    mean: list[float]
    std: list[float]

    def describe(self) -> str:
        """Return data, model, test accuracy and date, such as "gtsrb, vit_tiny, 98.10% test accuracy, 2026-11-26".

        A trial of a sweep and a debug run are called that.
        """
        accuracy = ((self.result.get("metrics") or {}).get("test") or {}).get("accuracy")
        parts = [data_set(self.config.data), str(self.config.model.name)]
        parts += [] if accuracy is None else [f"{metric('accuracy').format(accuracy)} test accuracy"]
        with suppress(KeyError, TypeError, ValueError):  # the record of another program
            parts.append(f"{datetime.fromisoformat(self.result['finished_at']).astimezone():%Y-%m-%d %H:%M}")
        if (self.folder / TRIAL_LOCK).exists():
            parts.append(f"a trial of the sweep {self.folder.parent.name}")
        return ", ".join([*parts, *["debug run"] * bool(self.result.get("debug"))])


def read_finished(folder: Path | str, *, accept_pretraining: bool = False) -> FinishedFiles:
    """Read config.yaml, result.json and the header of model.safetensors in a run folder.

    Raises UserError if `folder` is not a completed run of a classifier; a pretraining run may be accepted.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        config = read_config(folder / "config.yaml")
        result = read_result(folder)
        if (status := result["status"]) != "completed":
            again = command_line("train", setting("resume", folder))
            raise UserError(f"the run {folder} is {status}, not completed; {again} resumes it.")
        with safe_open(folder / "model.safetensors", framework="np") as file:
            header = json.loads(file.metadata()["vitexp"])
        files = FinishedFiles(
            folder=folder,
            config=config,
            result=result,
            classes=list(header["classes"]),
            image_size=int(header["image_size"]),
            mean=list(map(float, header["mean"])),
            std=list(map(float, header["std"])),
        )
    except (DamagedRecord, ConfigError) as error:
        raise UserError(f"{folder} is not a finished run: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, OmegaConfBaseException) as error:
        raise UserError(
            f"{folder} is not a finished run: config.yaml, result.json and model.safetensors are needed ({error})."
        ) from error
    if not accept_pretraining and not facts(config.task).get("uses_labels", True):
        raise UserError(
            f"the run {folder} is a pretraining run, which has no classifier; train a classifier from it with "
            f"{command_line('train', setting('model.weights', folder))}, or measure its features with "
            f"{command_line('evaluate', setting('run', folder), 'probe=knn,linear')}."
        )
    return files
