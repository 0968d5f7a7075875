"""Standard output whose reader has gone, and a disk that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from vitexp.system.output import dropping_unread_output
with dropping_unread_output():
    for number in range(20_000):
        print("line", number)
        print("line", number, file=sys.stderr)
    print("still here")
open(sys.argv[1], "w").write("done")
print("after the block")
"""


@pytest.mark.parametrize("reads", [0, 1])
def test_a_program_outlives_its_reader(tmp_path: Path, reads: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "end")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    for _ in range(reads):
        assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    process.stderr.close()
    assert process.wait(30) == 0
    assert (tmp_path / "end").read_text() == "done"


def test_what_is_read_is_complete(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "end")], capture_output=True, text=True)
    lines = ended.stdout.splitlines()
    assert (len(lines), lines[-2:]) == (20_002, ["still here", "after the block"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_a_full_disk_is_not_silent(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "end")], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode != 0
    assert "No space left on device" in ended.stderr
