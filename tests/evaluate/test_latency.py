from __future__ import annotations

from pathlib import Path

import pytest

from vitexp.evaluate.latency import measure_latency
from vitexp.runs.finished import load_run


def test_each_batch_size_is_measured(finished: Path) -> None:
    """No test asserts a time."""
    rows = measure_latency(load_run(finished), batch_sizes=(1, 16), repeats=4)
    assert [row.batch_size for row in rows] == [1, 16]
    for row in rows:
        first, third = row.ms_quartiles
        assert 0 < first <= row.ms <= third
        assert row.images_per_s == pytest.approx(1000 * row.batch_size / row.ms)
