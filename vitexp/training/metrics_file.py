"""metrics.csv: one row per step or epoch, one column per scalar, empty if not logged. Imports no torch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitexp.system.disk import GrowingFile, write_atomically

Row = Mapping[str, Any]


class MetricsFile:
    """A file for the rows that Lightning's CSVLogger passes on; what does not fit on a full disk is written later.

    An existing file was started by an earlier process of this run: it keeps the rows of steps before the first one
    logged now, and the later ones are logged again.
    """

    def __init__(self, path: Path) -> None:
        self.file = GrowingFile(path)
        self.metrics: list[dict[str, Any]] = []  # rows not yet written; CSVLogger reads their number
        self.columns: list[str] | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.metrics.append({**metrics, "step": step})

    def save(self) -> None:
        """Write the rows. Raises OSError if some have to wait."""
        if not self.metrics:
            if self.file.waiting:
                self.file.append("")
            return
        columns = sorted({*(self.columns or ()), *(name for row in self.metrics for name in row)})
        if columns == self.columns:
            rows, self.metrics = self.metrics, []  # what does not fit now waits in the file
            self.file.append(_csv(rows, columns, header=False))
            return
        written = self._written()
        if self.columns is None:
            written = [row for row in written if int(row["step"]) < self.metrics[0]["step"]]
            columns = sorted({*columns, *(name for row in written for name in row)})
        write_atomically(self.file.path, _csv([*written, *self.metrics], columns, header=True))
        self.columns, self.metrics, self.file.waiting = columns, [], b""

    def _written(self) -> list[Row]:
        """Return the rows in the file and those waiting for it, without an incomplete last row of a killed process."""
        return _whole_rows((self.file.path.read_bytes() if self.file.path.exists() else b"") + self.file.waiting)


def rows_before(path: Path, step: float = math.inf) -> list[dict[str, float]]:
    """Return the rows of the metrics.csv at `path` for steps before `step`; none if there is no file."""
    if not path.exists():
        return []
    rows = [{name: float(value) for name, value in row.items() if value} for row in _whole_rows(path.read_bytes())]
    return [row for row in rows if row["step"] < step]


def _whole_rows(content: bytes) -> list[Row]:
    """Return the rows of a metrics.csv without an incomplete last one, which a killed process may have left."""
    whole, end, _ = content.rpartition(b"\n")
    return list(csv.DictReader(io.StringIO((whole + end).decode(), newline="")))


def _csv(rows: Iterable[Row], columns: Sequence[str], *, header: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
