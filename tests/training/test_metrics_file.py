"""metrics.csv, also as a killed process leaves it."""

from __future__ import annotations

from pathlib import Path

from vitexp.training.metrics_file import MetricsFile, rows_before


def test_every_prefix_of_a_file_can_be_read_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    whole = MetricsFile(path)
    for step in range(1, 4):
        whole.log_metrics({"train/loss": step * 1.25e-7, "val/loss": 1 / 3}, step=step)
        whole.save()
    content, rows = path.read_bytes(), rows_before(path, 9)
    assert [row["step"] for row in rows] == [1, 2, 3]
    for length in range(len(content)):
        path.write_bytes(content[:length])
        read = rows_before(path, 9)
        assert read == rows[: len(read)]
        assert len(read) == max(0, content[:length].count(b"\n") - 1)
        continued = MetricsFile(path)
        continued.log_metrics({"train/loss": 1.0}, step=4)
        continued.save()
        assert rows_before(path, 9) == [*read, {"step": 4, "train/loss": 1.0}]
