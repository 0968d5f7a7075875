"""List the runs on this disk from their records alone. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from vitexp.errors import ConfigError, nearest, one_line
from vitexp.runs.record import LOCK, TRIAL_LOCK, DamagedRecord, data_set, read_result
from vitexp.system.disk import typed
from vitexp.system.lock import is_held

STATUSES = ("completed", "failed", "interrupted", "running", "killed", "damaged", "debug")
_DEEPEST = 6  # levels below the log folder: a name may be paper/table1, and links may form a circle
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run as its folder describes it.

    name: of the configuration. date: when it started. accuracy: on the test set; None if it was not measured. size: of
    all files, in bytes. status: one of STATUSES; "killed" is a run that nobody executes although its record says
    "running", "damaged" one without a readable record, because of `problem`, and
    "debug" a completed run of trainer=debug.
    """

    folder: Path
    name: str
    date: datetime
    data: str
    model: str
    accuracy: float | None
    size: int
    status: str
    problem: str
    is_trial: bool

    @property
    def path(self) -> str:
        """The end of its path: <name>/<run id>."""
        return f"{self.name}/{self.folder.name}"


def runs_in(log_dir: Path) -> list[Listed]:
    """Return all runs under `log_dir`, the newest first."""
    runs = [listed(folder, log_dir) for folder in _run_folders(log_dir)]
    return sorted(runs, key=lambda run: (run.date, run.path), reverse=True)


def matching(runs: Sequence[Listed], patterns: Mapping[str, str]) -> list[Listed]:
    """Return the runs that match `patterns`, by name, data, model and status.

    A pattern is a comma-separated list of words, which may contain * and ?. The name may include the run id. Raises
    ConfigError for a word that no run matches.
    """
    for key, pattern in patterns.items():
        words = pattern.split(",")
        for word in words:
            if key == "status" and word not in STATUSES:
                raise ConfigError(f"status={word} is not a status; {nearest(word, list(STATUSES))}")
            if key != "status" and runs and not any(_matches(run, key, word) for run in runs):
                known = sorted({getattr(run, key) for run in runs} - {""})
                wider = f"*{word}*"
                if any(_matches(run, key, wider) for run in runs):
                    raise ConfigError(f"no run has {key}={word}; '{key}={wider}' selects every {key} that contains it.")
                raise ConfigError(f"no run has {key}={word}; {nearest(word, known)}")
        runs = [run for run in runs if any(_matches(run, key, word) for word in words)]
    return list(runs)


def _matches(run: Listed, key: str, word: str) -> bool:
    values = (run.name, run.path, run.folder.name) if key == "name" else (getattr(run, key),)
    return any(fnmatchcase(value, word) for value in values)


def _run_folders(folder: Path, depth: int = 0) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            entries = {entry.name: entry for entry in found}
    except OSError:
        return
    if "result.json" in entries or {"config.yaml", LOCK} <= entries.keys():
        yield folder
    elif depth < _DEEPEST:
        for name, entry in entries.items():
            if not name.startswith(".") and entry.is_dir():
                yield from _run_folders(folder / name, depth + 1)


def listed(folder: Path, log_dir: Path) -> Listed:
    """Return what the run in `folder`, under `log_dir`, says about itself."""
    result, problem = _record(folder)
    config = {} if result.get("data") and result.get("model") else _config(folder)
    return Listed(
        folder=folder,
        name=one_line(folder.parent.relative_to(log_dir).as_posix()) if folder != log_dir else folder.parent.name,
        date=_date(folder, result),
        data=one_line(data_set(result.get("data")) or data_set(config.get("data"))),
        model=_text(result, "model") or _text(config, "model"),
        accuracy=_accuracy(result),
        size=_size(folder),
        status="damaged" if problem else _status(folder, result),
        problem=problem,
        is_trial=(folder / TRIAL_LOCK).exists(),
    )


def _record(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the content of result.json and "", or {} and what is wrong with it."""
    try:
        result = read_result(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}, "there is no result.json"
    except DamagedRecord as error:
        return {}, str(error).removeprefix(f"{typed(folder)}{os.sep}").rstrip(".")
    return result, ""


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), _LOADER)  # noqa: S506 - a safe loader
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _text(source: dict[str, Any], key: str) -> str:
    part = source.get(key)
    return one_line(str(part.get("name") or "")) if isinstance(part, dict) else ""


def _accuracy(result: dict[str, Any]) -> float | None:
    value: Any = result
    for key in ("metrics", "test", "accuracy"):
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (int, float)) else None


def _date(folder: Path, result: dict[str, Any]) -> datetime:
    """Return when the run started, in local time; for a damaged record, when its folder changed."""
    try:
        return datetime.fromisoformat(result["started_at"]).astimezone()
    except (KeyError, TypeError, ValueError):
        return datetime.fromtimestamp(folder.stat().st_mtime).astimezone()


def _status(folder: Path, result: Mapping[str, Any]) -> str:
    recorded = str(result["status"])
    if recorded != "running":
        return "debug" if recorded == "completed" and result.get("debug") else recorded
    try:  # a trial of a sweep has two locks; its supervisor holds one of them between two attempts
        return "running" if any(is_held(folder / lock) for lock in (LOCK, TRIAL_LOCK)) else "killed"
    except OSError:  # some network drives have no locks
        return recorded


def _size(folder: Path) -> int:
    """Return the size of all files in a folder in bytes, without following links."""
    size = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    size += _size(Path(entry.path))
                else:
                    size += entry.stat(follow_symlinks=False).st_size
    except OSError:  # a running run replaces files
        pass
    return size
