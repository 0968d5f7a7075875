"""Traffic signs drawn by vitexp: a data set without files."""

from __future__ import annotations

from vitexp.data.signs.source import Signs

__all__ = ["Signs"]
