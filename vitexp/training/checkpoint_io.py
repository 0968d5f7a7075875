"""Checkpoints on disk: whole or not there, recognised where damaged, and never executed."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from vitexp.disk import tolerating
from vitexp.errors import UserError
from vitexp.records import write_atomically

_MARK = b"sha256:"
_COMMENT = len(_MARK) + 64


class DamagedCheckpoint(UserError):
    """The bytes of a checkpoint are not those that were written."""

    exit_code = 1


class CheckedCheckpointIO(CheckpointIO):
    """Writes what torch.save writes, with the SHA-256 of all before it as the comment that a zip archive may end in.

    So torch.load reads the file as it is, and its checksum cannot be separated from it. It is written under a temporary
    name, synced and renamed. Where the disk takes no more, a warning says what was not written, and what was there
    before stays.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        with tolerating(f"checkpoints/{path.name}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, sealed(checkpoint))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """See `read_checkpoint`; `weights_only` is always on."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def sealed(checkpoint: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint file, its checksum included."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    content[-2:] = _COMMENT.to_bytes(2, "little")  # a zip archive ends in the length of its comment
    return b"".join((content, _MARK, hashlib.sha256(content).hexdigest().encode()))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What was saved, on the CPU.

    Raises DamagedCheckpoint where a byte differs from what was written, FileNotFoundError where there is no file, and
    UserError where the file holds more than tensors and plain containers: such a pickle could run any program.
    """
    data = path.read_bytes()
    content, mark, digest = data[:-_COMMENT], data[-_COMMENT:-64], data[-64:]
    if mark != _MARK or hashlib.sha256(content).hexdigest().encode() != digest:
        raise DamagedCheckpoint(f"the checkpoint {path} is damaged: its checksum differs.")
    try:
        checkpoint: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the checkpoint {path} is not loaded: it holds more than tensors and plain values, and may run a program."
        ) from error
    return checkpoint
