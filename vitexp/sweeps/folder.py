"""The folder of a sweep: named after what all its trials have in common, and never shared with another sweep."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from vitexp.errors import ConfigError, UserError
from vitexp.runs.record import NOT_HASHED
from vitexp.sweeps.grid import SEED, values_of
from vitexp.system.disk import typed, write_atomically
from vitexp.system.lock import hold

_FILE = "sweep.json"
_LOCK = "sweep.lock"
_NOT_NAMED = (*NOT_HASHED, SEED, "callbacks")  # more seeds, or other figures, do not make another sweep
_OF_SWEEPS = (_FILE, "table.csv", "trials.csv", "study.journal")
_LONGEST = 60  # characters of a name


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What tells a sweep from others. kind: "ablation=NAME", "search=NAME" or "grid"; values: of all trials, by key."""

    kind: str
    values: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, kind: str, arguments: Sequence[str]) -> Sweep:
        """Return the sweep with these overrides for all trials. Raises ConfigError for one that cannot be read."""
        values: dict[str, list[str]] = {}
        for key, overrides in map(values_of, arguments):
            if not any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in _NOT_NAMED):
                values[key] = [override.partition("=")[2] for override in overrides]
        return cls(kind=kind, values=values)

    @property
    def name(self) -> str:
        """Return a readable name, "clahe-gtsrb-max_epochs_3" for ablation=clahe data=gtsrb trainer.max_epochs=3."""
        order = sorted(self.values, key=lambda key: (key != "data", "." in key, not key.startswith("trainer."), key))
        words = [self.kind.rpartition("=")[2], *filter(None, map(self._word, order))]
        whole = "-".join(words)
        if len(whole) <= _LONGEST:
            return whole
        while len("-".join(words)) > _LONGEST - 7:  # room for the hash
            words.pop()
        return "-".join([*words, self.digest])

    def _word(self, key: str) -> str:
        values = [re.sub(r"[^A-Za-z0-9_.+-]+", "-", value.rstrip("/").rpartition("/")[2]) for value in self.values[key]]
        last = [key.rpartition(".")[2]] if "." in key else []
        return "_".join([*last, *(value.strip("-.") for value in values)]).strip("_")

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self._content, sort_keys=True).encode()).hexdigest()[:6]

    @property
    def _content(self) -> dict[str, Any]:
        return {"sweep": self.kind, "overrides": {key: list(values) for key, values in self.values.items()}}

    def folder(self, log_dir: Path, run_ids: Collection[str], *, name: str | None, earlier: Path) -> Path:
        """Return the folder of this sweep in `log_dir`.

        run_ids: names of the folders of the trials. name: as given by the user; None: chosen here. earlier: the folder
        that earlier versions chose, which is continued if it contains a trial of this sweep.

        Raises ConfigError if `name` is the folder of another sweep.
        """
        if name is not None:
            if self._has(folder := log_dir / name, run_ids) or _is_free(folder):
                return folder
            raise ConfigError(f"{typed(folder)} contains another sweep{_described(folder)}; choose another name=.")
        plain = log_dir / self.name
        if found := next((folder for folder in (plain, earlier) if self._has(folder, run_ids)), None):
            return found
        return plain if _is_free(plain) else log_dir / f"{self.name}-{self.digest}"

    def claim(self, folder: Path) -> None:
        """Record that `folder`, whose lock is held, is that of this sweep. Raises ConfigError if it is another's."""
        content = _content(folder)
        if content is not None and not self._continues(content):
            raise ConfigError(f"another sweep has just started in {typed(folder)}; repeat the command.")
        if content != self._content:
            write_atomically(folder / _FILE, json.dumps(self._content, indent=2) + "\n")

    def _has(self, folder: Path, run_ids: Collection[str]) -> bool:
        """Return whether `folder` is that of this sweep."""
        content = _content(folder)
        if content is None:  # of an earlier version
            return any((folder / run_id).is_dir() for run_id in run_ids)
        return self._continues(content)

    def _continues(self, content: Mapping[str, Any]) -> bool:
        """Return whether this sweep is the one with `content`, or adds values to it."""
        before = content["overrides"]
        return (
            content["sweep"] == self.kind
            and set(before) == set(self.values)
            and all(set(before[key]) <= set(values) for key, values in self.values.items())
        )


@contextmanager
def hold_sweep(folder: Path) -> Iterator[None]:
    """Create the folder of a sweep if necessary, and hold its lock: only its holder writes there.

    Raises Held, which names the holder, if it is in use, and UserError if it cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(folder / _LOCK, wait=False))
        except OSError as error:
            raise UserError(
                f"cannot write in {typed(folder)}: {error.strerror or error}; free some space, or set log_dir."
            ) from error
        yield


@contextmanager
def hold_if_free(folder: Path, console: Console) -> Iterator[bool]:
    """Hold the lock of an existing sweep; if that is not possible, say so and yield False: nothing may be written."""
    with ExitStack() as stack:
        is_ours = folder.is_dir()
        if is_ours:
            try:
                stack.enter_context(hold_sweep(folder))
            except UserError as error:
                console.print(f"no files are written: {error}", soft_wrap=True, markup=False, highlight=False)
                is_ours = False
        yield is_ours


def refuse_other_kind(folder: Path) -> None:
    """Raise ConfigError if `folder`, where a search is to run, is that of an ablation or a grid."""
    if (folder / _FILE).exists():
        raise ConfigError(f"{typed(folder)} contains another sweep{_described(folder)}; choose another name=.")


def _content(folder: Path) -> dict[str, Any] | None:
    """Return what a sweep recorded in its folder; None without a readable record."""
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        readable = isinstance(content["sweep"], str) and all(
            isinstance(values, list) for values in content["overrides"].values()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return content if readable else None


def _is_free(folder: Path) -> bool:
    """Return whether `folder` is not that of any sweep."""
    return not any((folder / name).exists() for name in _OF_SWEEPS)


def _described(folder: Path) -> str:
    """Return " (ablation=clahe data=gtsrb)", or "" if an earlier version started the sweep in `folder`."""
    if (content := _content(folder)) is None:
        return ""
    overrides = (f"{key}={','.join(map(str, values))}" for key, values in content["overrides"].items())
    return f" ({' '.join([content['sweep'], *overrides])})"
