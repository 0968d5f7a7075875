"""Download an archive once, verify its checksum, and unpack it atomically."""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import os
import shutil
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from vitexp.data.source import DataError
from vitexp.system.disk import checksum
from vitexp.system.lock import take_turns
from vitexp.system.terminal import plain_console

log = logging.getLogger(__name__)

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 30.0  # seconds without a byte
_EXPANSION = 100  # times the size of the archive (at least 1 MiB); compressed images expand little


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Create `folder` and admit one process at a time, because the trials of a sweep start together."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}.") from error
    message = "waiting for %s, which is downloading or unpacking in %s"
    with take_turns(folder / ".download.lock", waiting=lambda who: log.info(message, who, folder)):
        yield


def fetch(url: str, path: Path, *, md5: str | None = None, sha256: str | None = None) -> None:
    """Download `url` to `path` unless the file exists, and verify its published checksum.

    sha256: may be just the first digits, because some sites publish no more.

    An interrupted download is kept as `<path>.part` and continued. Raises DataError, which names the folder for a
    manual download.
    """
    kind, published = ("md5", md5) if md5 is not None else ("sha256", sha256)
    assert published is not None
    by_hand = f"put the file into {path.parent} yourself"
    part = path.with_name(f"{path.name}.part")
    try:
        if path.exists():
            if not checksum(path, kind).startswith(published):
                raise DataError(
                    f"{path} is not the published file ({kind} checksum is not {published}); delete it and try again."
                )
            return
        if missing := _receive(url, part):
            raise DataError(
                f"the download of {url} stopped {missing:,} bytes before the end; run the same command to continue, "
                f"or {by_hand}."
            )
        if not checksum(part, kind).startswith(published):
            part.unlink()
            raise DataError(
                f"{url} is not the published file ({kind} checksum is not {published}); try again, or {by_hand}."
            )
        part.replace(path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"cannot download {url}: {_reason(error)}; try again, or {by_hand}.") from error


def _receive(url: str, part: Path) -> int:
    """Append the remaining bytes of `url` to `part`; return how many announced bytes the server did not send."""
    have = part.stat().st_size if part.exists() else 0
    # S310 below: the URLs come from our sources, and the checksum of the content is verified.
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return 0  # nothing is missing; the checksum decides
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:  # the server sends the whole file again
            have = 0
        length = response.headers.get("Content-Length")
        size = have + int(length) if length else None
        _require_space(part.parent, (size or 0) - have)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with (
            open(part, "ab" if have else "wb") as out,
            Progress(*columns, TimeRemainingColumn(), console=plain_console(stderr=True)) as progress,
        ):
            task = progress.add_task(part.stem, total=size, completed=have)
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                have += len(chunk)
                progress.advance(task, len(chunk))
    return size - have if size is not None else 0


def unpack(archive: Path, member: str, target: Path) -> None:
    """Put the file or folder `member` of a zip or tar archive at target/member.

    It is unpacked under a temporary name and renamed, so that a crash leaves nothing incomplete. Raises DataError for a
    damaged archive, a member that is outside the folder or a link or device, an implausible size, or a full disk.
    """
    scratch = target / f".{archive.name}.unpacking"
    final = target / member
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir()
        if zipfile.is_zipfile(archive):
            _unzip(archive, member, scratch)
        else:
            _untar(archive, member, scratch)
        final.parent.mkdir(parents=True, exist_ok=True)
        (scratch / member).replace(final)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        raise DataError(f"cannot unpack {archive} to {final}: {_reason(error)}.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unzip(archive: Path, member: str, scratch: Path) -> None:
    with zipfile.ZipFile(archive) as bundle:
        infos = [info for info in bundle.infolist() if _belongs(info.filename, member, archive)]
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if the archive was not made on Unix
            _refuse_special(info.filename, archive, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
        size = sum(info.file_size for info in infos)
        _refuse_expansion(size, archive)
        _require_space(scratch, size)
        console = plain_console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            for info in progress.track(infos, description=escape(f"unpacking {archive.name}")):
                bundle.extract(info, scratch)


def _untar(archive: Path, member: str, scratch: Path) -> None:
    size = 0
    with tarfile.open(archive) as bundle:
        for info in bundle:
            size += info.size  # of all members, because skipping one takes as much time as unpacking it
            _refuse_expansion(size, archive)
            if _belongs(info.name, member, archive):
                _refuse_special(info.name, archive, plain=info.isreg() or info.isdir())
                _require_space(scratch, info.size)
                bundle.extract(info, scratch, filter="data")  # no owner, no special permissions


def _belongs(name: str, member: str, archive: Path) -> bool:
    """Return whether `name` is `member` or inside it. Raises DataError for a path outside the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        raise DataError(f"{archive} is refused: its member {name!r} is outside the folder it is unpacked to.")
    return path.is_relative_to(member)


def _refuse_special(name: str, archive: Path, *, plain: bool) -> None:
    if not plain:
        raise DataError(f"{archive} is refused: its member {name!r} is a link or device, not a file.")


def _refuse_expansion(size: int, archive: Path) -> None:
    packed = archive.stat().st_size
    if size > _EXPANSION * max(packed, _CHUNK):
        raise DataError(f"{archive} is refused: its {packed:,} bytes expand to {size:,}, which is implausible.")


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes are needed and {free:,} are free", os.fspath(folder))


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server returned {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return _reason(error.reason) if isinstance(error.reason, BaseException) else error.reason
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return str(error) or type(error).__name__
