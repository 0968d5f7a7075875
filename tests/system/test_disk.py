"""Failed writes, and files that wait for space; a limit on file size stands in for a full disk."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitexp.system import disk
from vitexp.system.disk import GrowingFile, refusal, tolerating, unwritten
from vitexp.training.metrics_file import MetricsFile


@pytest.fixture(autouse=True)
def _fresh() -> None:
    disk.forget()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "No space left on device"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), os.strerror(errno.EDQUOT)),
        (OSError(errno.EIO, os.strerror(errno.EIO)), os.strerror(errno.EIO)),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), os.strerror(errno.EROFS)),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), None),
        (PermissionError(errno.EACCES, "Permission denied"), None),
        (RuntimeError("shapes do not match"), None),
        (ValueError("iostream error"), None),
    ],
)
def test_what_counts_as_a_refusal(error: Exception, reason: str | None) -> None:
    assert refusal(error) == reason


def test_another_error_is_not_tolerated() -> None:
    with pytest.raises(PermissionError), tolerating("figures/a.png"):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert not unwritten()


def test_a_kind_is_warned_of_once_and_what_is_written_later_is_not_missing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "vitexp.system.disk")
    for name in ("figures/a.png", "figures/b.png", "report.html"):
        with tolerating(name):
            raise OSError(errno.ENOSPC, "No space left on device")
    with tolerating("figures/a.png"):
        pass
    assert list(unwritten()) == ["figures/b.png", "report.html"]
    assert [record.args[0] for record in caplog.records] == ["figures/a.png", "report.html"]  # type: ignore[index]


# In a separate process, because a limit on file size applies to all files of a process.
LIMITED_FILES = """
import resource, sys
from pathlib import Path
from vitexp.system.disk import GrowingFile, refusal
from vitexp.training.metrics_file import MetricsFile
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
log, metrics = GrowingFile(Path(sys.argv[1])), MetricsFile(Path(sys.argv[2]))
refused = 0
for step in range(100):
    metrics.log_metrics({"loss": step / 7, **({"late": 1.0} if step > 50 else {})}, step)
    for write in (lambda: log.append(f"line {step}\\n"), metrics.save):
        try:
            write()
        except OSError as error:
            assert refusal(error) == "File too large", error
            refused += 1
    if step == 80:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(refused)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_what_waits_is_written_once_and_in_order(tmp_path: Path) -> None:
    log, metrics = tmp_path / "log", tmp_path / "metrics.csv"
    run = [sys.executable, "-c", LIMITED_FILES, str(log), str(metrics)]
    refused = int(subprocess.run(run, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert refused > 100
    assert log.read_text() == "".join(f"line {step}\n" for step in range(100))
    found = rows(metrics)
    assert [int(row["step"]) for row in found] == list(range(100))
    assert [float(row["loss"]) for row in found] == [step / 7 for step in range(100)]
    assert [row["late"] for row in found] == ["" if step <= 50 else "1.0" for step in range(100)]


def test_a_growing_file_goes_on_with_what_is_there(tmp_path: Path) -> None:
    for text in ("a\n", "ü\n"):
        GrowingFile(tmp_path / "log").append(text)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "a\nü\n"


def test_metrics_of_a_resumed_run_go_on_where_it_does(tmp_path: Path) -> None:
    """A killed process leaves rows beyond its last checkpoint, and perhaps half a row."""
    path = tmp_path / "metrics.csv"
    killed = MetricsFile(path)
    for step in range(10):
        killed.log_metrics({"loss": float(step)}, step)
        killed.save()
    with path.open("a") as file:
        file.write("10.0")
    resumed = MetricsFile(path)
    for step in range(6, 12):
        resumed.log_metrics({"loss": float(step), "other": 1.0}, step)
        resumed.save()
    assert [(row["loss"], row["other"]) for row in rows(path)] == [
        *((f"{step}.0", "") for step in range(6)),
        *((f"{step}.0", "1.0") for step in range(6, 12)),
    ]
