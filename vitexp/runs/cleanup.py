"""Remove checkpoints that are no longer needed. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from safetensors import SafetensorError, safe_open

from vitexp.errors import ConfigError, UserError
from vitexp.runs.inventory import Listed, listed
from vitexp.runs.record import LOCK, TRIAL_LOCK, RunRecord, now
from vitexp.system.disk import typed, write_atomically
from vitexp.system.lock import hold

_FOLDER = "checkpoints"
_NAMES = ("best.ckpt", "last.ckpt", "previous.ckpt", "next.ckpt", "damaged.ckpt")
_NOTE = "removed.txt"  # in the folder of the checkpoints: who removed them, and when


@dataclass(frozen=True, kw_only=True)
class Removable:
    """The checkpoints of a run that can be removed: their paths, and their size in bytes."""

    run: Listed
    files: tuple[Path, ...]
    size: int


def removable(run: Listed, *, log_dir: Path) -> Removable:
    """Return the checkpoints of a run that nothing else needs; of one that has not completed, those it resumes from.

    Only regular files that vitexp wrote, and nothing that is reached through a link below `log_dir`. Raises UserError,
    which says why, if none may be removed.
    """
    folder = run.folder / _FOLDER
    if not folder.is_dir():
        return Removable(run=run, files=(), size=0)
    if folder.resolve() != log_dir.resolve() / folder.relative_to(log_dir):
        raise UserError("its folder is reached through a link")
    if run.status in ("completed", "debug"):
        _check_weights(run.folder / "model.safetensors")
    files = {path: size for path, size in _regular_files(folder) if _is_ours(path.name)}
    return Removable(run=run, files=tuple(files), size=sum(files.values()))


def remove(found: Removable, *, log_dir: Path, command: str) -> int:
    """Remove checkpoints and leave a note that names `command`; return the freed bytes.

    Raises UserError, which says why, if the run is in use, has changed in the meantime, or its files cannot be removed.
    """
    folder = found.run.folder
    try:
        with ExitStack() as stack:
            for lock in (LOCK, TRIAL_LOCK):
                if lock == LOCK or (folder / lock).exists():
                    stack.enter_context(hold(folder / lock, wait=False))
            if listed(folder, log_dir).status != found.run.status:
                raise UserError("it has changed in the meantime")
            found = removable(found.run, log_dir=log_dir)
            write_atomically(folder / _FOLDER / _NOTE, f"removed by `{command}` on {now()[:10]}")
            for path in found.files:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{error.strerror or error}") from error
    return found.size


def refuse_lost_checkpoints(record: RunRecord, config: DictConfig) -> None:
    """Raise ConfigError if the run of `record`, which has no checkpoint to resume from, must not start from scratch.

    That would overwrite the results of a completed run, which can only be asked to become longer. One that did not
    complete starts again with resume=auto, as after a death before its first checkpoint.
    """
    try:
        note = (record.folder / _FOLDER / _NOTE).read_text(encoding="utf-8")
    except OSError:
        note = ""
    if record.result["status"] == "completed" or (note and config.resume not in (None, "auto")):
        reason = f"its checkpoints were {note}" if note else "it has no intact checkpoint"
        raise ConfigError(
            f"{typed(record.folder)} cannot be resumed because {reason}; start a new run without resume=."
        )


def _regular_files(folder: Path) -> Iterator[tuple[Path, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield folder / entry.name, entry.stat(follow_symlinks=False).st_size


def _is_ours(name: str) -> bool:
    """Return whether a file is a checkpoint of vitexp, or the beginning of one (see write_atomically)."""
    return name in _NAMES or name.startswith(tuple(f".{known}-" for known in _NAMES))


def _check_weights(path: Path) -> None:
    """Raise UserError unless `path` is a complete file of weights."""
    try:
        with safe_open(path, framework="numpy") as file:
            if file.keys():
                return
    except (OSError, SafetensorError):
        pass
    raise UserError(f"{path.name} is missing or damaged, so its checkpoints are kept")
