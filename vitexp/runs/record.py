"""The run folder and result.json, the record from which tables are built. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import secrets
import socket
import subprocess
from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.config.components import facts
from vitexp.config.compose import given_options
from vitexp.config.defaults import without_defaults
from vitexp.config.overrides import merged
from vitexp.errors import ConfigError, UserError
from vitexp.metrics import METRICS
from vitexp.system import disk
from vitexp.system.disk import typed, write_atomically

SCHEMA = 1
LOCK = ".lock"  # in the run folder, held while the run lasts
TRIAL_LOCK = "trial.lock"  # in the folder of a trial of a sweep: held by whoever runs the trial, and by its process

# Where a run is stored and how it is shown do not change what it computes.
NOT_HASHED = (
    *("name", "log_dir", "run_id", "resume", "logger", "hydra"),
    *("checkpoint.every_n_steps", "checkpoint.every_n_minutes"),
    *("data.cache_dir", "data.num_workers", "data.resident", "data.download", "data.source.download"),
    "trainer.enable_progress_bar",
)


STATUSES = ("completed", "running", "interrupted", "failed")
_MAPPINGS = ("data", "model", "metrics", "timing", "environment")  # or null, until they are known

log = logging.getLogger(__name__)


class DamagedRecord(UserError):
    """A result.json that cannot be used."""


class NewerRecord(DamagedRecord):
    """One that a newer version of vitexp wrote, so that it must not be replaced."""


def read_result(folder: Path) -> dict[str, Any]:
    """Return the result.json of a run folder.

    Raises DamagedRecord if it is not the record of a run, and FileNotFoundError if there is none.
    """
    path = folder / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        problem = _problem(result)
        schema = result.get("schema") if isinstance(result, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerRecord(
                f"{typed(path)} was written by a newer version of vitexp (schema {schema}); update vitexp."
            )
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        problem = "is not complete JSON"
    if problem:
        raise DamagedRecord(f"{typed(path)} {problem}.")
    return result  # type: ignore[no-any-return]


def _problem(result: Any) -> str:
    """Return why `result` is not the record of a run, to complete "FILE ..."; "" if it is one."""
    if not isinstance(result, dict):
        return "is not a record: it must be a mapping"
    if result.get("schema", SCHEMA) != SCHEMA:
        return f"has the schema {result['schema']!r}, not {SCHEMA}"
    if (status := result.get("status")) not in STATUSES:
        return f"has the status {status!r}, not one of {', '.join(STATUSES)}"
    overrides = result.get("overrides", [])
    if not isinstance(overrides, list) or not all(isinstance(word, str) for word in overrides):
        return "has overrides that are not a list of texts"
    if wrong := [key for key in _MAPPINGS if not isinstance(result.get(key), dict | None)]:
        return f"has a wrong value of {wrong[0]}: it must be a mapping"
    for split, values in (result.get("metrics") or {}).items():
        if not isinstance(values, dict | None):
            return f"has a wrong value of metrics.{split}: it must be a mapping"
        for name, value in (values or {}).items():
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                return f"has a wrong value of metrics.{split}.{name}: it must be a number"
    return ""


def data_set(data: Mapping[str, Any] | None) -> str:
    """Return the name of a data set for tables: for images of your own, the name of their folder.

    data: the part of result.json, or of a configuration, about the data; "" if it has no name.
    """
    if not isinstance(data, Mapping):
        return ""
    name, where = str(data.get("name") or ""), data.get("path") or data.get("root")
    return (name in ("folder", "huggingface") and where and Path(str(where)).name) or name


@cache
def warn_skipped(reason: str) -> None:
    """Say, once, why a run folder is left out by a command that looks through many."""
    log.warning("skipped: %s", reason)


def runs_folder(config: DictConfig) -> Path:
    """Return the folder that contains all runs with the configuration's name."""
    return Path(config.log_dir).expanduser().resolve() / str(config.name)


def new_run_folder(config: DictConfig) -> Path:
    """Create the folder of a new run; that of a sweep's trial may exist. Raises UserError if it cannot be created."""
    folder = runs_folder(config) / (config.run_id or f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}")
    try:
        folder.mkdir(parents=True, exist_ok=config.run_id is not None)
    except OSError as error:
        raise _cannot_start(folder, error) from error
    return folder


def _cannot_start(folder: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"cannot start a run in {folder}: {reason}; free some space, or set log_dir.")


class RunRecord:
    """A run folder, `<log_dir>/<name>/<run id>/`, and its result.json, which is replaced atomically at every change.

    has_trained: whether training has started, now or in an earlier attempt.
    """

    def __init__(self, folder: Path, result: dict[str, Any], *, is_ours: bool = True) -> None:
        self.folder, self.result, self.is_ours = folder, result, is_ours
        self.has_trained = False
        self._next: tuple[DictConfig, list[str]] | None = None  # of an attempt to resume that has not begun

    @property
    def run_id(self) -> str:
        return str(self.result.get("run_id", self.folder.name))

    @classmethod
    def start(cls, folder: Path, config: DictConfig, *, overrides: list[str]) -> RunRecord:
        """Write config.yaml and result.json, status "running", into `folder`.

        Raises ConfigError if there is a run already, and UserError if nothing can be written there.
        """
        if all((folder / name).exists() for name in ("result.json", "config.yaml")):
            raise ConfigError(f"the run {typed(folder)} already exists; resume it with resume=auto, or change run_id.")
        record = cls(
            folder,
            {
                "schema": SCHEMA,
                "run_id": folder.name,
                "status": "running",
                "error": None,
                "name": config.name,
                "options": given_options(),
                "overrides": overrides,
                "config_hash": config_hash(config),
                "seed": config.seed,
                "debug": bool(config.trainer.get("debug")),
                "data": None,
                "model": None,
                "training": None,
                "metrics": None,
                "epochs": 0,
                "steps": 0,
                "images_seen": 0,
                "timing": None,
                "environment": environment(),
                "started_at": now(),
                "finished_at": None,
            },
        )
        try:
            write_atomically(folder / "config.yaml", repeatable_yaml(config))
            record._write()  # last, because a folder with result.json is taken for a run, which needs both files
        except OSError as error:
            raise _cannot_start(folder, error) from error
        return record

    @classmethod
    def resume(cls, folder: Path, config: DictConfig, *, overrides: list[str]) -> RunRecord:
        """Open the record of a run that `config` resumes. Nothing is written before `begin`."""
        record = cls.read(folder)
        record._next, record.has_trained = (config, overrides), True
        return record

    @property
    def has_begun(self) -> bool:
        """Whether the record is that of this attempt; false for a run that is not resumed yet."""
        return self._next is None

    def begin(self) -> None:
        """Record that a resumed run continues: status "running" again, with the configuration of this attempt.

        Call it as soon as nothing but training can fail: an attempt that fails earlier leaves the record as it was.
        Does nothing for a new run. Raises UserError if nothing can be written.
        """
        if self._next is None:
            return
        config, overrides = self._next
        try:
            for partial in (*self.folder.glob(".*.*-*"), *self.folder.glob("checkpoints/.*")):  # see write_atomically
                partial.unlink()
            write_atomically(self.folder / "config.yaml", repeatable_yaml(config))
        except OSError as error:
            raise UserError(f"cannot resume in {self.folder}: {error.strerror or error}; free some space.") from error
        self._next = None
        again = {"status": "running", "error": None, "finished_at": None}
        overrides = merged(self.result.get("overrides", []), overrides)
        self.update(**again, overrides=overrides, config_hash=config_hash(config), environment=environment())

    @classmethod
    def read(cls, folder: Path, *, is_ours: bool = True) -> RunRecord:
        """Read an existing record. is_ours: if false, another process writes it, and changes here are not saved."""
        return cls(folder, read_result(folder), is_ours=is_ours)

    def update(self, **facts: Any) -> None:
        """Add facts to result.json; if the disk is full, they are written with the next update."""
        self.result.update(facts)
        with disk.tolerating("result.json"):
            self._write()

    def finish(self, status: str, *, error: str | None = None) -> None:
        """Set the final status: completed, failed or interrupted. Raises OSError if the disk refuses it."""
        self.result.update(status=status, error=error, finished_at=now())
        self._write()

    def _write(self) -> None:
        if not self.is_ours:
            return
        path, text = self.folder / "result.json", json.dumps(self.result, indent=2, allow_nan=False) + "\n"
        try:
            write_atomically(path, text)
        except OSError as error:
            if disk.refusal(error) is None or not path.exists():
                raise
            # There is no space for a second file: overwrite the first in place.
            with open(path, "r+b") as file:
                file.write(text.encode())
                file.truncate()


def config_hash(config: DictConfig | dict[str, Any]) -> str:
    """Return a hash, 12 hexadecimal digits, of everything in the configuration that can change a result.

    It covers only what differs from the defaults, so that a new key does not change it.
    """
    plain = without_defaults(deciding(config))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def deciding(config: DictConfig | dict[str, Any], *, ignored: Iterable[str] = ()) -> dict[str, Any]:
    """Return everything in the configuration that can change a result, except the dotted keys `ignored`."""
    whole = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else deepcopy(config)
    plain: dict[str, Any] = _without(whole, (*NOT_HASHED, *ignored))
    callbacks = plain.pop("callbacks", None) or {}
    if training := {name: node for name, node in callbacks.items() if facts(node).get("can_change_result", True)}:
        plain["callbacks"] = training
    return plain


def _without(plain: Any, keys: Iterable[str]) -> Any:
    """Remove dotted `keys` from `plain`, a nested dict, and return it."""
    for key in keys:
        *parents, last = key.split(".")
        node = plain
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    return plain


def metrics_of(logged: Any, names: Iterable[str] = METRICS) -> dict[str, float | None]:
    """Return {"test/accuracy": x} as {"accuracy": x}; None for what is not finite (JSON has no NaN).

    What was not measured is left out, such as top-5 accuracy of five classes; if nothing was, everything is None.
    """
    values = {key.partition("/")[2]: float(value) for key, value in logged.items()}
    measured = [name for name in names if name in values] or names
    return {name: values[name] if math.isfinite(values.get(name, math.nan)) else None for name in measured}


def is_pretraining(result: Mapping[str, Any]) -> bool:
    """Return whether a record describes a completed pretraining run, which measures only a loss."""
    return list((result.get("metrics") or {}).get("test") or {}) == ["loss"]


def environment() -> dict[str, Any]:
    """Return versions of code and libraries, and the machine; devices are added once torch is imported."""
    commit, dirty = _git()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "python": platform.python_version(),
        "torch": version("torch"),
        "lightning": version("lightning"),
        "device": None,
        "device_count": None,
        "hostname": socket.gethostname(),
    }


def _git() -> tuple[str | None, bool | None]:
    """Return the commit of vitexp's checkout, and whether it has uncommitted changes; None without git."""

    def git(*arguments: str) -> str:
        options: Any = {"capture_output": True, "encoding": "utf-8", "check": True, "timeout": 10}
        return str(subprocess.run(["git", *arguments], cwd=Path(__file__).parent, **options).stdout).strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def repeatable_yaml(config: DictConfig) -> str:
    """Return the resolved configuration as YAML that the train command accepts."""
    # Hydra itself would write train.log into the working directory.
    no_file = {"handlers": {"file": {"delay": True}}, "root": {"handlers": ["console"]}}
    hydra = {"run": {"dir": "."}, "output_subdir": None, "job_logging": no_file}
    # Without resume=RUN, which would resume this run instead.
    plain = {**OmegaConf.to_container(config, resolve=True), "resume": None, "hydra": hydra}  # type: ignore[dict-item]
    head = "# Repeats the run: python -m vitexp train --config-dir <this folder> --config-name config\n"
    return head + OmegaConf.to_yaml(plain)


def now() -> str:
    """Return the time in UTC, as in result.json: "2026-11-26T09:30:00+00:00"."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
