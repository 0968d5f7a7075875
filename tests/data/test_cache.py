"""The cache when damaged, shared by several processes, or not writable."""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.noise import entries, leftovers, noise, prepared
from tests.data.users import without_privileges
from vitexp.data.cache import MANIFEST, ensure
from vitexp.data.prepare import FILES, PARALLEL_FROM
from vitexp.data.source import DataError

FEW, DAMAGES = 24, 200
KILLS = 20


def _flip(content: bytearray, dice: random.Random) -> bytearray:
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return content


def _zero(content: bytearray, dice: random.Random) -> bytearray:
    """Zero a block, like a disk that lost it."""
    start = dice.randrange(len(content))
    content[start : start + 64] = bytes(len(content[start : start + 64]))
    return content


HOW: dict[str, Callable[[bytearray, random.Random], bytearray | None]] = {
    "flip": _flip,
    "zero": _zero,
    "truncate": lambda content, dice: content[: dice.randrange(len(content))],
    "extend": lambda content, dice: content + dice.randbytes(dice.randint(1, 100)),
    "remove": lambda content, dice: None,
}


@pytest.mark.parametrize("cases", [FEW, pytest.param(DAMAGES, marks=pytest.mark.soak)])
def test_damage_anywhere_is_detected_and_repaired(tmp_path: Path, cases: int, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(0)
    whole = np.array(prepared(noise(10), tmp_path).stored)
    [entry] = entries(tmp_path)
    for case in range(cases):
        file = entry / [*FILES, MANIFEST][case % (len(FILES) + 1)]
        before = file.read_bytes()
        how, damaged = "", bytearray(before)
        while damaged == before:  # the block may have been zeros
            how = dice.choice(list(HOW))
            damaged = HOW[how](bytearray(before), dice)
        # A new file, because that of an earlier case may still be mapped.
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        caplog.clear()
        again = prepared(noise(10), tmp_path)
        assert re.search(r"are damaged .*; preparing them again", caplog.text), (case, how, file)
        assert np.array_equal(again.stored, whole) and np.array_equal(again.labels, noise(10).labels), (case, how, file)
        assert file.read_bytes() == before
    assert leftovers(tmp_path) == []


def test_a_change_to_any_byte_of_the_manifest_is_detected(tmp_path: Path) -> None:
    entry, filled = tmp_path / "entry", []

    def fill(folder: Path) -> None:
        filled.append(1)
        (folder / "file").write_bytes(b"content")

    ensure(entry, fill, files=["file"], what="it")
    manifest = (entry / MANIFEST).read_bytes()
    for position in range(len(manifest)):
        content = bytearray(manifest)
        content[position] ^= 1 << position % 8
        (entry / MANIFEST).write_bytes(content)
        ensure(entry, fill, files=["file"], what="it")
        assert len(filled) == position + 2


@pytest.mark.parametrize("how", ["file", "link", "empty"])
def test_another_file_or_folder_in_its_place_is_replaced(tmp_path: Path, how: str) -> None:
    prepared(noise(3), tmp_path)
    [entry] = entries(tmp_path)
    shutil.rmtree(entry)
    if how == "file":
        entry.write_text("in the way")
    elif how == "link":
        entry.symlink_to("nowhere")
    else:
        entry.mkdir()
    assert len(prepared(noise(3), tmp_path)) == 3
    assert entry.is_dir() and not entry.is_symlink()


def test_mapped_images_survive_a_rebuild_of_the_entry(tmp_path: Path) -> None:
    mine = prepared(noise(10), tmp_path).stored
    whole = np.array(mine)
    [entry] = entries(tmp_path)
    (entry / "moments.npy").write_bytes(b"")
    again = prepared(noise(10), tmp_path).stored
    (entry / "images.npy").write_bytes(b"")  # the file of `again`; `mine` has another
    assert np.array_equal(mine, whole)
    assert again.shape == whole.shape


# A process that creates an entry and does not finish until there is a file "go".
MAKE = """
import logging, sys, time
from pathlib import Path
from vitexp.data.cache import ensure

def fill(folder):
    print("making", flush=True)
    while not Path(sys.argv[2]).exists():
        time.sleep(0.01)
    (folder / "file").write_text("content")

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
ensure(Path(sys.argv[1]), fill, files=["file"], what="it")
print("content is", (Path(sys.argv[1]) / "file").read_text(), flush=True)
"""


def _process(*command: object) -> subprocess.Popen[str]:
    arguments = [sys.executable, *map(str, command)]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[2]
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_process_works_while_the_others_wait(tmp_path: Path) -> None:
    entry, go = tmp_path / "entry", tmp_path / "go"
    first = _process("-c", MAKE, entry, go)
    assert _line(first) == "making\n"
    others = [_process("-c", MAKE, entry, go) for _ in range(2)]
    for other in others:
        assert re.fullmatch(rf"waiting for process {first.pid} on .*, which is preparing it\n", _line(other))
    go.touch()
    assert [process.communicate(timeout=60)[0] for process in (first, *others)] == ["content is content\n"] * 3
    assert sorted(os.listdir(tmp_path)) == [".entry.lock", "entry", "go"]


def test_a_waiting_process_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    entry, go = tmp_path / "entry", tmp_path / "go"
    first = _process("-c", MAKE, entry, go)
    assert _line(first) == "making\n"
    second = _process("-c", MAKE, entry, go)
    assert "waiting" in _line(second)
    first.kill()
    first.communicate()
    assert _line(second) == "making\n"
    assert len(leftovers(tmp_path)) == 1  # by the second process
    go.touch()
    assert second.communicate(timeout=60)[0] == "content is content\n"
    assert leftovers(tmp_path) == []


def _sum(length: int, cache: Path) -> int:
    return int(prepared(noise(length), cache).stored.sum(dtype=np.int64))


@pytest.mark.slow
def test_child_processes_of_a_killed_process_exit(tmp_path: Path) -> None:
    process = _process("-m", "tests.data.noise", tmp_path, PARALLEL_FROM, 1.0, 2)
    _until(lambda: len(_children(process.pid)) >= 3)  # two workers and the resource tracker
    children = _children(process.pid)
    process.kill()
    process.communicate()
    _until(lambda: not any(map(_lives, children)))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.soak
def test_a_process_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    dice, cache = random.Random(0), tmp_path / "shared"
    right = _sum(200, tmp_path / "mine")
    for _ in range(KILLS):
        process = _process("-m", "tests.data.noise", cache, 200, 0.01, 0)
        time.sleep(dice.uniform(0.5, 8.0))  # including the imports
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if cache.exists() and entries(cache) and dice.random() < 0.5:
            shutil.rmtree(entries(cache)[0])
    assert _sum(200, cache) == right
    assert len(entries(cache)) == 1
    shutil.rmtree(entries(cache)[0])
    assert _sum(200, cache) == right
    assert leftovers(cache) == []


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".other-12345678").mkdir()
    assert len(prepared(noise(3), tmp_path)) == len(prepared(noise(3), tmp_path)) == 3
    assert leftovers(tmp_path) == [".other-12345678"]


def test_a_full_disk_gives_a_one_line_error_and_leaves_no_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a stand-in: no file may be larger
    try:
        with pytest.raises(
            DataError, match=r"cannot cache the prepared images in .*; free some space, or set data\.cache_dir"
        ):
            prepared(noise(20), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert entries(tmp_path) == leftovers(tmp_path) == []


def _try(cache: Path) -> str:
    try:
        return f"sum {_sum(3, cache)}"
    except DataError as error:
        return str(error)


def test_a_cache_of_another_user(public: Path) -> None:
    cache = public / "cache"
    right = f"sum {_sum(3, cache)}"
    [entry] = entries(cache)
    cache.chmod(0o555)
    assert without_privileges(lambda: _try(cache)) == right
    entry.chmod(0o000)
    sentence = f"cannot cache the prepared images in {cache}: Permission denied; set data.cache_dir to another folder."
    assert without_privileges(lambda: _try(cache)) == sentence
    cache.chmod(0o000)
    assert without_privileges(lambda: _try(cache)) == sentence
    cache.chmod(0o755)
    entry.chmod(0o755)
    shutil.rmtree(entry)
    cache.chmod(0o555)
    assert without_privileges(lambda: _try(cache)) == sentence
    assert os.listdir(cache) == [f".{entry.name}.lock"]


def test_a_lock_of_another_user_in_a_shared_cache(public: Path) -> None:
    cache = public / "cache"
    right = f"sum {_sum(3, cache)}"
    [entry] = entries(cache)
    shutil.rmtree(entry)
    cache.chmod(0o777)
    assert without_privileges(lambda: _try(cache)) == right
    assert leftovers(cache) == []
