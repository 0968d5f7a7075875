"""Find the run that a command means: a folder, the newest finished run, or the bundled one. Imports no torch."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from vitexp.errors import ConfigError, UserError
from vitexp.runs.record import NewerRecord, is_pretraining, read_result

NAME = "pretrained"
_SHIPPED = Path(__file__).parent / "shipped" / "gtsrb"  # trained by experiment=gtsrb_best


def run_folder(typed: str) -> Path:
    """Return the folder that run=`typed` names; for "pretrained", logs/pretrained/<run id>, copied if necessary.

    Raises ConfigError if there is no such folder, UserError if logs cannot be written.
    """
    if typed == NAME:
        return _unpacked(Path("logs") / NAME)
    folder = Path(os.path.expanduser(typed))
    if not folder.is_dir():
        raise ConfigError(
            f"run={typed} is not a folder; give the folder of a finished run, logs/<name>/<run id>, or run={NAME}, the "
            "bundled GTSRB network."
        )
    return folder


def _unpacked(logs: Path) -> Path:
    """Return a copy of the bundled run, because explanations and evaluations are written into run folders."""
    folder = logs / str(json.loads((_SHIPPED / "result.json").read_text())["run_id"])
    if not folder.exists():
        unfinished = logs / f".{folder.name}.{os.getpid()}"
        try:
            shutil.copytree(_SHIPPED, unfinished)
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
    return newest_run(log_dir) if typed in ("", "newest") else run_folder(typed)


def newest_run(log_dir: Path | str = "logs") -> Path:
    """Return the folder of the run under `log_dir` that was completed last. Raises ConfigError if there is none."""
    completed = completed_runs(log_dir)
    if not completed:
        raise ConfigError(
            f"there is no finished run under {log_dir}; the train command creates one in a few minutes, "
            "and run=pretrained uses the bundled one."
        )
    return completed[0]


def completed_runs(log_dir: Path | str = "logs") -> list[Path]:
    """Return the folders of all completed runs of classifiers under `log_dir`, the newest first."""
    completed = []
    logs = Path(log_dir).expanduser()
    for file in (*logs.glob("*/*/result.json"), *logs.glob("*/*/*/result.json")):  # a name may be paper/table1
        try:
            result = read_result(file)
            usable = (file.parent / "model.safetensors").exists() and not is_pretraining(result)
            if result["status"] == "completed" and usable:
                completed.append((str(result["finished_at"]), file.parent.name, file.parent))
        except (OSError, ValueError, KeyError, NewerRecord):
            continue
    return [folder for *_, folder in sorted(completed, reverse=True)]
