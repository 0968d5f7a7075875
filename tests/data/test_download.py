from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import socket
import stat
import struct
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vitexp.data.download import fetch, one_at_a_time, unpack
from vitexp.data.source import DataError

if TYPE_CHECKING:
    from tests.data.conftest import FileServer

BODY = bytes(range(256)) * 40
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


def test_fetches_once(server: FileServer, tmp_path: Path) -> None:
    server.files["a.zip"] = BODY
    for _ in range(2):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert server.requests == [("a.zip", None)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_wrong_content_is_removed(server: FileServer, tmp_path: Path) -> None:
    server.files["a.zip"] = BODY[::-1]
    with pytest.raises(DataError, match="md5"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5=MD5)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_supplied_by_the_user_is_kept(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"a\.zip is not the published file"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").exists()
    assert not server.requests


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_continued(server: FileServer, tmp_path: Path, ranges: bool) -> None:
    server.files["a.zip"] = BODY
    server.cut, server.ranges = 3000, ranges
    with pytest.raises(DataError, match=f"stopped {len(BODY) - 3000:,} bytes before the end"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5=MD5)
    assert not (tmp_path / "a.zip").exists()
    server.cut = None
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert server.requests[1] == ("a.zip", "bytes=3000-")


def test_a_complete_partial_file_downloads_nothing_more(server: FileServer, tmp_path: Path) -> None:
    server.files["a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(BODY)
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_not_found(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="404") as caught:
        fetch(f"{server.url}/b.zip", tmp_path / "b.zip", md5=MD5)
    assert f"put the file into {tmp_path} yourself" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_connection_refused(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening, so no other process gets the port
        with pytest.raises(DataError, match="Connection refused"):
            fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip", tmp_path / "a.zip", md5="")


def test_an_invalid_address(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot download nowhere"):
        fetch("nowhere/a.zip", tmp_path / "a.zip", md5="")


def test_full_disk(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["a.zip"] = BODY
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10))
    with pytest.raises(DataError, match=r"10,240 bytes are needed and 10 are free"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5=MD5)


def test_unpacks_only_the_member(tmp_path: Path) -> None:
    _zip(tmp_path / "a.zip", {"set/one/x.ppm": b"x", "set/two/y.ppm": b"y", "readme.txt": b"r"})
    unpack(tmp_path / "a.zip", "set/one", tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"a.zip", "set/one/x.ppm"}


def test_unpacks_tar(tmp_path: Path) -> None:
    _tar(tmp_path / "a.tar.gz", "set/x", b"content")
    unpack(tmp_path / "a.tar.gz", "set", tmp_path)
    assert (tmp_path / "set" / "x").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["../evil", "/evil", "set/../../evil", "C:/evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_refuses_members_outside_the_folder(tmp_path: Path, name: str, kind: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        _zip(archive, {"set/x": b"x", name: b"evil"})
    else:
        _tar(archive, name, b"evil")
    with pytest.raises(DataError, match="is outside the folder"):
        unpack(archive, "set", target)
    assert list(target.iterdir()) == []
    assert not (tmp_path / "evil").exists()


SPECIAL = {
    "link out": (tarfile.SYMTYPE, "../../.."),
    "absolute link": (tarfile.SYMTYPE, "/etc"),
    "link within": (tarfile.SYMTYPE, "x"),
    "hard link out": (tarfile.LNKTYPE, "../../secret"),
    "hard link within": (tarfile.LNKTYPE, "set/x"),
    "device": (tarfile.CHRTYPE, ""),
    "block device": (tarfile.BLKTYPE, ""),
    "pipe": (tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("special", SPECIAL)
def test_refuses_all_but_files_and_folders(tmp_path: Path, special: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "secret").write_bytes(b"not to be touched")
    with tarfile.open(tmp_path / "a.tar", "w") as bundle:
        bundle.addfile(tarfile.TarInfo("set/x"))
        info = tarfile.TarInfo("set/special")
        info.type, info.linkname = SPECIAL[special]
        bundle.addfile(info)
        through = tarfile.TarInfo("set/special/evil")
        bundle.addfile(through)
    with pytest.raises(DataError, match=r"a\.tar is refused: its member 'set/special' is a link or device, .*\.$"):
        unpack(tmp_path / "a.tar", "set", target)
    assert list(target.iterdir()) == []
    assert (tmp_path / "secret").read_bytes() == b"not to be touched"


def test_refuses_links_in_a_zip(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("set/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr(link, "../../..")
    with pytest.raises(DataError, match="'set/link' is a link or device"):
        unpack(tmp_path / "a.zip", "set", tmp_path)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_refuses_an_archive_that_expands_implausibly(tmp_path: Path, kind: str) -> None:
    archive, size = tmp_path / f"a.{kind}", 101 << 20
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr("set/x", bytes(size))
    else:
        _tar(archive, "readme", bytes(size))  # skipping it takes as long as unpacking it
    with pytest.raises(DataError, match=rf"is refused: its {archive.stat().st_size:,} bytes expand to {size:,}"):
        unpack(archive, "set", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_a_zip_larger_than_it_declares_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("set/x", bytes(1 << 20))
    packed = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(packed.replace(struct.pack("<I", 1 << 20), struct.pack("<I", 10)))
    with pytest.raises(DataError, match="cannot unpack"):
        unpack(tmp_path / "a.zip", "set", tmp_path)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_a_damaged_archive_leaves_no_files(tmp_path: Path, damage: str) -> None:
    _zip(tmp_path / "a.zip", {"set/x": BODY, "set/y": BODY})
    whole = (tmp_path / "a.zip").read_bytes()
    middle = len(BODY) + len(BODY) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    (tmp_path / "a.zip").write_bytes({"cut": whole[:middle], "flip": flipped, "other": b"no archive"}[damage])
    with pytest.raises(DataError, match="cannot unpack"):
        unpack(tmp_path / "a.zip", "set", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_one_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with one_at_a_time(tmp_path):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_a_waiting_process_reports_which_process_it_waits_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside, told = threading.Event(), threading.Event()

    def work() -> None:
        with one_at_a_time(tmp_path):
            inside.set()
            told.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(10)
    threading.Timer(0.2, told.set).start()
    with caplog.at_level(logging.INFO), one_at_a_time(tmp_path):
        pass
    thread.join()
    assert re.fullmatch(
        rf"waiting for process {os.getpid()} on .*, which is downloading .* in {tmp_path}", caplog.messages[0]
    )
    assert len(caplog.messages) == 1


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write into"), one_at_a_time(tmp_path / "file"):
        pass


def _zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)


def _tar(path: Path, name: str, content: bytes) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as bundle:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        bundle.addfile(info, io.BytesIO(content))
