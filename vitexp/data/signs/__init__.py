"""Traffic signs drawn by vitexp: the data set that needs no files."""

from __future__ import annotations

from vitexp.data.signs.source import Signs

__all__ = ["Signs"]
