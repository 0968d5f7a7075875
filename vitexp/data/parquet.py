"""Read Parquet files with pyarrow, which is imported only when needed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vitexp.data.imagefile import decode_image
from vitexp.data.source import CANNOT_DECODE, BrokenImage, DataError, printable
from vitexp.errors import reason

RowGroup: TypeAlias = tuple[str, int, int]  # file, number of the row group in it, number of rows


@dataclass(frozen=True, eq=False)
class ParquetImages:
    """A function that reads image i, which is row rows[i] (int64 [N]) of all row groups together."""

    groups: tuple[RowGroup, ...]
    column: str
    rows: NDArray[np.int64]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([count for _, _, count in self.groups])

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        """Return image `index`: uint8 [H, W, 3]. Raises BrokenImage."""
        row = int(self.rows[index])
        place = int(np.searchsorted(self._ends, row, side="right"))
        file, group, count = self.groups[place]
        value = _row_group(file, group, self.column, os.stat(file).st_mtime_ns)[
            row - int(self._ends[place]) + count
        ].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        name = f"{file}, row {row - sum(rows for other, _, rows in self.groups[:place] if other != file):,}"
        if content is None:
            raise BrokenImage(f"{CANNOT_DECODE}{printable(name)}: it is not stored in the file.")
        return decode_image(io.BytesIO(content), name=name, size=len(content))


@lru_cache(maxsize=1)  # images are read in order
def _row_group(file: str, group: int, column: str, mtime_ns: int) -> Any:
    """Return a column of a row group. mtime_ns: so that a file that was replaced is read again."""
    import pyarrow.parquet as pq

    return reading(Path(file), lambda path: pq.ParquetFile(path).read_row_group(group, columns=[column]).column(0))


def row_groups(file: str) -> list[RowGroup]:
    """Return the row groups of a file. Raises DataError."""
    import pyarrow.parquet as pq

    metadata = reading(Path(file), pq.read_metadata)
    return [(file, group, metadata.row_group(group).num_rows) for group in range(metadata.num_row_groups)]


def column_of(files: Sequence[Path], column: str) -> Any:
    """Return a column of all files together, a pyarrow.ChunkedArray. Raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [reading(file, lambda path: pq.ParquetFile(path).read(columns=[column]).column(0)) for file in files]
    return pa.chunked_array([chunk for array in arrays for chunk in array.chunks], arrays[0].type)


def reading(file: Path, read: Callable[[Path], Any]) -> Any:
    """Return read(file). Raises DataError for a damaged file, or one without an expected column."""
    import pyarrow as pa

    try:
        return read(file)
    except (pa.ArrowException, OSError, KeyError, IndexError) as error:
        raise DataError(f"cannot read {printable(file)}: {reason(error).rstrip('.')}.") from error
