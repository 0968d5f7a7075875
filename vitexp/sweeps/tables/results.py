"""What has become of the trials of a sweep, read from their result.json alone."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vitexp.runs.record import SCHEMA
from vitexp.sweeps.engines.trial import LOCK
from vitexp.system.lock import is_held

log = logging.getLogger(__name__)

# As result.json says it; "missing" is a trial that has left no record, for example as it has not begun.
STATUSES: Final = ("completed", "running", "interrupted", "failed", "missing")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One trial of a sweep: its row of the table, its seed, and the run folder where its result.json will be."""

    row: str
    seed: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A cell and what its trial has left: status is one of STATUSES, result the record, None where it is missing."""

    row: str
    seed: int
    folder: Path
    status: str
    result: dict[str, Any] | None

    def get(self, *keys: str) -> Any:
        """The entry of the record at nested `keys`, None where there is none."""
        node: Any = self.result
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        return node

    def number(self, *keys: str) -> float | None:
        """The finite number at nested `keys`, None where there is none."""
        value = self.get(*keys)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return value if is_number else None


def read(cells: Iterable[Cell]) -> list[Outcome]:
    """The outcome of every cell, in their order.

    A file that cannot be read as a record counts as missing, with a warning; one that does not exist, without.
    """
    return [_read(cell) for cell in cells]


def _read(cell: Cell) -> Outcome:
    result = None
    try:
        result = _record((cell.folder / "result.json").read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("%s counts as missing: %s", cell.folder / "result.json", error)
    status = result["status"] if result else "missing"
    lock = cell.folder / LOCK
    if status == "running" and lock.exists() and not is_held(lock):
        status = "interrupted"  # killed together with its sweep, before anybody could write it down
    return Outcome(row=cell.row, seed=cell.seed, folder=cell.folder, status=status, result=result)


def _record(text: bytes) -> dict[str, Any]:
    """Raises ValueError for what is no record of the schema that this version reads."""
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("it holds no record")
    if record.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {record.get('schema')!r}, not {SCHEMA}")
    if record.get("status") not in STATUSES:
        raise ValueError(f"its status is {record.get('status')!r}, none of {', '.join(STATUSES)}")
    return record
