"""The run folder and result.json: what a run leaves for people and tables. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import secrets
import socket
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.config.overrides import merged
from vitexp.errors import ConfigError, UserError
from vitexp.metrics import METRICS
from vitexp.system import disk
from vitexp.system.disk import typed, write_atomically

SCHEMA = 1

# Where a run is kept and how it is shown does not change what it computes.
NOT_HASHED = (
    *("name", "log_dir", "run_id", "resume", "logger", "callbacks", "hydra"),
    *("checkpoint.every_n_steps", "checkpoint.every_n_minutes"),
    *("data.cache_dir", "data.num_workers", "data.resident", "data.download", "data.source.download"),
    "trainer.enable_progress_bar",
)


class RunRecord:
    """A run folder, `<log_dir>/<name>/<run id>/`, and its result.json, which is replaced as a whole at every change."""

    def __init__(self, folder: Path, result: dict[str, Any]) -> None:
        self.folder, self.result = folder, result

    @property
    def run_id(self) -> str:
        return str(self.result["run_id"])

    @classmethod
    def start(cls, config: DictConfig, *, overrides: list[str]) -> RunRecord:
        """Make the folder with config.yaml and result.json, status "running".

        Raises ConfigError where run_id names a run that is there already (a sweep's trial has its folder before), and
        UserError where nothing can be written there.
        """
        run_id = config.run_id or f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        folder = Path(config.log_dir).expanduser().resolve() / config.name / run_id
        if (folder / "config.yaml").exists():
            raise ConfigError(
                f"the run {typed(folder)} is there already; resume=auto goes on with it, another run_id begins anew."
            )
        record = cls(
            folder,
            {
                "schema": SCHEMA,
                "run_id": run_id,
                "status": "running",
                "error": None,
                "name": config.name,
                "overrides": overrides,
                "config_hash": config_hash(config),
                "seed": config.seed,
                "data": None,
                "model": None,
                "metrics": None,
                "epochs": 0,
                "steps": 0,
                "images_seen": 0,
                "timing": None,
                "environment": environment(),
                "started_at": _now(),
                "finished_at": None,
            },
        )
        try:
            folder.mkdir(parents=True, exist_ok=config.run_id is not None)
            write_atomically(folder / "config.yaml", _repeatable(config))
            record._write()
        except OSError as error:
            raise UserError(
                f"cannot begin a run in {folder}: {error.strerror or error}; make room there, or set log_dir."
            ) from error
        return record

    @classmethod
    def resume(cls, folder: Path, config: DictConfig, *, overrides: list[str]) -> RunRecord:
        """Open the record of a run that goes on, status "running" again; what was left half written is removed.

        Raises UserError where nothing can be written there.
        """
        record = cls(folder, json.loads((folder / "result.json").read_text()))
        try:
            for left in (*folder.glob(".*.json-*"), *folder.glob(".*.yaml-*"), *folder.glob("checkpoints/.*")):
                left.unlink()
            write_atomically(folder / "config.yaml", _repeatable(config))
        except OSError as error:
            raise UserError(f"cannot go on in {folder}: {error.strerror or error}; make room there.") from error
        again = {"status": "running", "error": None, "finished_at": None}
        overrides = merged(record.result["overrides"], overrides)
        record.update(**again, overrides=overrides, config_hash=config_hash(config), environment=environment())
        return record

    @classmethod
    def of_first_process(cls, folder: Path) -> RunRecord:
        """The record that another process of the same run keeps: read here, never written."""
        return _ReadOnlyRecord(folder, json.loads((folder / "result.json").read_text()))

    def update(self, **facts: Any) -> None:
        """Add facts to result.json; where a full disk refuses them, they are written with the next ones."""
        self.result.update(facts)
        with disk.tolerating("result.json"):
            self._write()

    def finish(self, status: str, *, error: str | None = None) -> None:
        """status: completed | failed | interrupted. Raises OSError where the disk refuses all of it."""
        self.result.update(status=status, error=error, finished_at=_now())
        self._write()

    def _write(self) -> None:
        path, text = self.folder / "result.json", json.dumps(self.result, indent=2, allow_nan=False) + "\n"
        try:
            write_atomically(path, text)
        except OSError as error:
            if disk.refusal(error) is None or not path.exists():
                raise
            # No room for two, but for this one in place of the old: what that took is overwritten, not given away.
            with open(path, "r+b") as file:
                file.write(text.encode())
                file.truncate()


class _ReadOnlyRecord(RunRecord):
    def _write(self) -> None:
        """Keep the facts to oneself."""


def config_hash(config: DictConfig) -> str:
    """12 hexadecimal digits over everything in the configuration that can change a result."""
    plain = without(OmegaConf.to_container(config, resolve=True), NOT_HASHED)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def without(plain: Any, keys: Iterable[str]) -> Any:
    """`plain`, a configuration of dicts, from which `keys` in dotted form are taken away."""
    for key in keys:
        *parents, last = key.split(".")
        node = plain
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    return plain


def metrics_of(logged: Any, names: Iterable[str] = METRICS) -> dict[str, float | None]:
    """{"test/accuracy": x, ...} as {"accuracy": x, ...}; None for what is not there or no number (no NaN in JSON)."""
    values = {key.partition("/")[2]: float(value) for key, value in logged.items()}
    return {name: values[name] if math.isfinite(values.get(name, math.nan)) else None for name in names}


def is_pretraining(result: Mapping[str, Any]) -> bool:
    """Whether a record is that of a completed pretraining: its loss is all that is measured."""
    return list((result.get("metrics") or {}).get("test") or {}) == ["loss"]


def environment() -> dict[str, Any]:
    """Code, libraries and machine; the devices are added once torch has found them."""
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
    """Commit of the checkout that this file belongs to, and whether it has uncommitted changes; None without git."""
    try:
        answers = [
            subprocess.run(
                ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None, None
    return answers[0], bool(answers[1])


def _repeatable(config: DictConfig) -> str:
    """The resolved configuration as YAML that train.py takes as it is."""
    hydra = {"run": {"dir": "."}, "output_subdir": None}
    plain = {**OmegaConf.to_container(config, resolve=True), "hydra": hydra}  # type: ignore[dict-item]
    head = "# Repeats the run: python train.py --config-dir <this folder> --config-name config\n"
    return head + OmegaConf.to_yaml(plain)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
