"""The checkpoint from which a stopped run resumes; it reaches the same weights as an uninterrupted run.

It contains everything that Lightning stores (net, optimizer, schedule, averaged weights, callbacks) and a `position`,
but no state of random generators: the order of images and the draws of a step depend only on seed and position.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from vitexp.data.datamodule import ImageDataModule
from vitexp.errors import UserError, one_line
from vitexp.system.disk import replace, tolerating, write_atomically
from vitexp.system.signals import StopSignals
from vitexp.training.task import data_of

log = logging.getLogger(__name__)

# Newest first. A new checkpoint is "next" until it is complete, so that two complete ones exist at any time.
NAMES = ("next.ckpt", "last.ckpt", "previous.ckpt")
BEST = "best.ckpt"  # the weights to test; nothing resumes from it
_ONLY_TO_RESUME = ("optimizer_states", "current_model_state")  # the latter are weights that are not averaged
Position = dict[str, Any]  # completed epochs, images of the next one, steps, and what must not change on resume
_SHARE = 0.05  # fraction of the time that may be spent on checkpoints after epochs
_AGREE_EVERY = 10  # steps between agreements of the processes, each of which waits for all others


class LastCheckpoint(Checkpoint):
    """A callback that writes `folder`/last.ckpt after epochs and every few steps or minutes; it keeps the previous one.

    Skips epochs if they are so short that checkpoints would take more than a twentieth of the time.
    length: the length of training; a run that stopped early continues only if this has changed.
    stop: obeyed between two steps, after a checkpoint.
    """

    def __init__(
        self,
        *,
        folder: Path,
        every_n_steps: int | None,
        every_n_minutes: float | None,
        length: Sequence[Any],
        stop: StopSignals,
    ) -> None:
        self.folder, self.stop, self.length = folder, stop, list(length)
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self._finished, self._took_s = False, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop.install()
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        epoch_loop = trainer.fit_loop.epoch_loop
        if epoch_loop.batch_progress.current.ready == 0:
            epoch_loop.restarting = False  # with max_steps, Lightning mistakes the start of an epoch for its middle

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._obey(trainer, batches=0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        step, between = divmod(batch_idx, trainer.accumulate_grad_batches)
        if between or (trainer.world_size > 1 and step % _AGREE_EVERY):
            return  # a checkpoint does not hold accumulated gradients
        if not _anywhere(trainer, self.stop.requested is not None or self._is_due(trainer)):
            return
        self._save(trainer, epochs=trainer.current_epoch, batches=batch_idx)
        self._obey(trainer, batches=batch_idx)

    def _obey(self, trainer: Trainer, *, batches: int) -> None:
        """Stop all processes if one of them received a signal."""
        if _anywhere(trainer, self.stop.requested is not None):
            self._save(trainer, epochs=trainer.current_epoch, batches=batches)
            self.stop.requested = self.stop.requested or signal.SIGTERM
            self.stop.obey()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs, steps = trainer.current_epoch + 1, trainer.global_step
        is_last = trainer.should_stop or epochs == trainer.max_epochs or steps == trainer.max_steps
        is_cheap = time.monotonic() - self._saved_at >= self._took_s / _SHARE
        if is_last or trainer.strategy.broadcast(is_cheap):
            self._save(trainer, epochs=epochs, batches=0)

    def _is_due(self, trainer: Trainer) -> bool:
        step, minutes = trainer.global_step, (time.monotonic() - self._saved_at) / 60
        every = self.every_n_steps
        return (every is not None and step // every > self._saved_step // every) or (
            self.every_n_minutes is not None and minutes >= self.every_n_minutes
        )

    def _save(self, trainer: Trainer, *, epochs: int, batches: int) -> None:
        """Save after `epochs` complete epochs and `batches` of the next one."""
        if trainer.global_step == self._saved_step:
            return
        start = time.monotonic()
        for logger in trainer.loggers:
            logger.save()  # what was logged so far belongs to this checkpoint
        self._position = {
            "epochs": epochs,
            "images": batches * _images_per_batch(trainer),
            "steps": trainer.global_step,
            "finished": trainer.should_stop,
            "length": self.length,
            "data": data_of(trainer).fingerprint,
        }
        trainer.save_checkpoint(self.folder / NAMES[0])
        if trainer.is_global_zero:
            promote(self.folder)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        self._took_s = self._saved_at - start

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["position"] = getattr(self, "_position", None)  # None in best.ckpt of the first epoch

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        position = checkpoint["position"]
        self._finished = position["finished"] and position["length"] == self.length
        _find_best(checkpoint["callbacks"], self.folder / BEST)
        checkpoint["loops"]["fit_loop"] = _fit_loop_at(trainer, position)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = self._finished  # it was stopped early, by patience or a search


def begin_at(position: Position, datamodule: ImageDataModule) -> None:
    """Start `datamodule`, which is set up, at the position of a checkpoint. Raises UserError if the data changed."""
    if position["data"] != datamodule.fingerprint:
        raise UserError(f"the training images of {datamodule.name} changed; start a new run without resume=.")
    datamodule.begin_at(epoch=position["epochs"], images=position["images"])


def newest_checkpoint(folder: Path) -> tuple[Path, Position] | None:
    """Return the newest intact checkpoint in `folder` and its position; warn of damaged ones.

    Raises UserError for a checkpoint that could execute code when loaded.
    """
    for path in (folder / name for name in NAMES):
        try:
            return path, read_checkpoint(path)["position"]
        except FileNotFoundError:
            continue
        except DamagedCheckpoint as error:
            log.warning("%s The previous checkpoint is used, if there is one.", error)
    return None


def set_damaged_aside(folder: Path, intact: Path | None) -> None:
    """Rename the checkpoints in `folder` that are newer than `intact`, the newest intact one, to damaged.ckpt."""
    newer = NAMES if intact is None else NAMES[: NAMES.index(intact.name)]
    for name in newer:
        with suppress(FileNotFoundError):
            os.replace(folder / name, folder / "damaged.ckpt")


def refuse_other_net(checkpoint: Path, module: LightningModule) -> None:
    """Raise UserError if the weights in a checkpoint do not fit `module`, whose weights may change."""
    try:
        module.load_state_dict(read_checkpoint(checkpoint)["state_dict"], strict=module.strict_loading)
    except RuntimeError as error:
        reason = one_line(str(error).partition("\n")[2] or str(error))
        raise UserError(
            f"the model of the configuration does not fit the checkpoint {checkpoint}; start a new run without resume= "
            f"({reason.rstrip('.')})."
        ) from error


def promote(folder: Path) -> None:
    """Rename last.ckpt to previous.ckpt and next.ckpt to last.ckpt, if there is a next.ckpt."""
    next_, last, previous = (folder / name for name in NAMES)
    if next_.exists():
        if last.exists():
            replace(last, previous)
        replace(next_, last)


def drop_previous(folder: Path) -> None:
    """Remove previous.ckpt of a complete run; last.ckpt is enough to make it longer."""
    _, last, previous = (folder / name for name in NAMES)
    if last.exists():
        previous.unlink(missing_ok=True)


def _find_best(states: dict[str, Any], best: Path) -> None:
    """Update the path of the best checkpoint in the state of ModelCheckpoint, or remove the state if it is lost."""
    for key in [key for key in states if key.startswith("ModelCheckpoint")]:
        state = states[key]
        if not state["best_model_path"]:
            continue
        try:
            read_checkpoint(best)
        except (FileNotFoundError, DamagedCheckpoint):
            log.warning("%s is missing or damaged; the best of the remaining epochs will be tested.", best)
            del states[key]
            continue
        score, place = state["best_model_score"], str(best)  # the run folder may have moved
        state.update(dirpath=str(best.parent), best_model_path=place, kth_best_model_path=place)
        state["best_k_models"] = {place: score}


def _fit_loop_at(trainer: Trainer, position: Position) -> dict[str, Any]:
    """Return the state of Lightning's loops at a position, independent of the hook that wrote the checkpoint."""
    epochs, steps = position["epochs"], position["steps"]
    batches = position["images"] // _images_per_batch(trainer)
    state = cast(dict[str, Any], trainer.fit_loop.state_dict())

    def set_to(progress: dict[str, Any], number: int) -> None:
        progress.update(dict.fromkeys(progress, number))

    for span in ("total", "current"):
        set_to(state["epoch_progress"][span], epochs)
        if batches:  # the next epoch has started
            state["epoch_progress"][span].update(ready=epochs + 1, started=epochs + 1)
        for counted in ("step", "zero_grad"):
            set_to(state["epoch_loop.automatic_optimization.optim_progress"]["optimizer"][counted][span], steps)
        set_to(state["epoch_loop.scheduler_progress"][span], steps)
    set_to(state["epoch_loop.batch_progress"]["total"], steps * trainer.accumulate_grad_batches)
    set_to(state["epoch_loop.batch_progress"]["current"], batches)
    state["epoch_loop.state_dict"]["_batches_that_stepped"] = steps
    return state


def _images_per_batch(trainer: Trainer) -> int:
    """Return the number of images in a forward pass on all devices together."""
    return data_of(trainer).batch_size // trainer.accumulate_grad_batches


def _anywhere(trainer: Trainer, here: bool) -> bool:
    """Return whether `here` is true in any process."""
    return trainer.strategy.reduce_boolean_decision(here, all=False)


_MARK = b"sha256:"
_COMMENT = len(_MARK) + 64


class DamagedCheckpoint(UserError):
    """The bytes of a checkpoint differ from those that were written."""

    exit_code = 1


class CheckedCheckpointIO(CheckpointIO):
    """Checkpoint files: the output of torch.save, then its SHA-256 as the comment that a zip archive may end with.

    torch.load can read such a file, and the checksum cannot get lost. Files are replaced atomically. If the disk is
    full, a warning says what was not written, and the old file remains. best.ckpt is stored without optimizer states.

    The first complete checkpoint is read back at once. Raises UserError if it contains what could not be loaded again.
    """

    _is_first = True

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        if path.name == BEST:
            checkpoint = {key: value for key, value in checkpoint.items() if key not in _ONLY_TO_RESUME}
        content = sealed(checkpoint)
        if self._is_first and path.name != BEST:
            self._is_first = False
            _load(content, path)
        with tolerating(f"checkpoints/{path.name}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint with `read_checkpoint`, always as if with `weights_only`."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def sealed(checkpoint: dict[str, Any]) -> bytes:
    """Return the bytes of a checkpoint file, including its checksum."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    content[-2:] = _COMMENT.to_bytes(2, "little")  # a zip archive ends with the length of its comment
    return b"".join((content, _MARK, hashlib.sha256(content).hexdigest().encode()))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises DamagedCheckpoint if the checksum does not match, FileNotFoundError if there is no file, and UserError if the
    file contains more than tensors and plain containers: such a pickle could execute code.
    """
    data = path.read_bytes()
    content, mark, digest = data[:-_COMMENT], data[-_COMMENT:-64], data[-64:]
    if mark != _MARK or hashlib.sha256(content).hexdigest().encode() != digest:
        raise DamagedCheckpoint(f"the checkpoint {path} is damaged: its checksum differs.")
    return _load(data, path)


def _load(content: bytes, path: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise UserError(
            f"the checkpoint {path} is not loaded because it contains more than tensors and plain values"
            f"{f' ({found[1]})' if found else ''}, which could execute code when loaded; the state_dict of a callback, "
            "an optimizer or a schedule may hold nothing else."
        ) from error
