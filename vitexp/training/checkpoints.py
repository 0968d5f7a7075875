"""The checkpoint from which a stopped run goes on, to the same weights as if nothing had happened.

It holds all that Lightning keeps (net, optimizer, schedule, averaged weights, callbacks) and a `position`. Random
numbers need no place in it: the order of the images and every draw of a step follow from seed and position alone.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
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
from vitexp.errors import UserError
from vitexp.system.disk import tolerating, write_atomically
from vitexp.system.signals import StopSignals

log = logging.getLogger(__name__)

# The newest first. A checkpoint is "next" for an instant, so that two whole ones are there at any time.
NAMES = ("next.ckpt", "last.ckpt", "previous.ckpt")
Position = dict[str, Any]  # of a checkpoint: epochs done, images of the next one done, steps, and what must not change
_SHARE = 0.05  # of the time, for checkpoints after epochs
_AGREE_EVERY = 10  # steps, between processes: it makes each wait for all the others


class LastCheckpoint(Checkpoint):
    """Writes `folder`/last.ckpt after every epoch, and within it every so many steps or minutes; keeps the one before.

    Where epochs are so short that this would cost more than a twentieth of the time, some are passed over.
    length: how long the training is to be; one that stopped early goes on where this has changed.
    Obeys `stop` between two steps, once a checkpoint is written.
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
            epoch_loop.restarting = False  # with max_steps set, Lightning takes the start of an epoch for its middle

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._obey(trainer, batches=0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        step, between = divmod(batch_idx, trainer.accumulate_grad_batches)
        if between or (trainer.world_size > 1 and step % _AGREE_EVERY):
            return  # gradients that are not yet applied are not saved
        if not _anywhere(trainer, self.stop.requested is not None or self._is_due(trainer)):
            return
        self._save(trainer, epochs=trainer.current_epoch, batches=batch_idx)
        self._obey(trainer, batches=batch_idx)

    def _obey(self, trainer: Trainer, *, batches: int) -> None:
        """Stop in all processes where one of them was asked to."""
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
        """`epochs` are done, and of the next one `batches`."""
        if trainer.global_step == self._saved_step:
            return
        begun = time.monotonic()
        for logger in trainer.loggers:
            logger.save()  # what was logged so far belongs to this checkpoint
        self._position = {
            "epochs": epochs,
            "images": batches * _images_a_batch(trainer),
            "steps": trainer.global_step,
            "finished": trainer.should_stop,
            "length": self.length,
            "data": _data(trainer).fingerprint,
        }
        trainer.save_checkpoint(self.folder / NAMES[0])
        if trainer.is_global_zero:
            promote(self.folder)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        self._took_s = self._saved_at - begun

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["position"] = getattr(self, "_position", None)  # None: the best of the first epoch

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        position = checkpoint["position"]
        self._finished = position["finished"] and position["length"] == self.length
        _find_best(checkpoint["callbacks"], self.folder / "best.ckpt")
        checkpoint["loops"]["fit_loop"] = _fit_loop_at(trainer, position)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = self._finished  # stopped early, by patience or a search: nothing is left to train


def begin_at(position: Position, datamodule: ImageDataModule) -> None:
    """Let `datamodule`, which is set up, go on at the position of a checkpoint. Raises UserError for other data."""
    if position["data"] != datamodule.fingerprint:
        raise UserError(
            f"the training images of {datamodule.name} are not those that the run began with; it cannot go on with "
            "others, so leave resume away and begin a new run."
        )
    datamodule.begin_at(epoch=position["epochs"], images=position["images"])


def newest_checkpoint(folder: Path) -> tuple[Path, Position] | None:
    """The newest whole checkpoint in `folder` and its position; damaged ones are put aside, with a warning.

    Raises UserError for one that could run a program when loaded.
    """
    for path in (folder / name for name in NAMES):
        try:
            return path, read_checkpoint(path)["position"]
        except FileNotFoundError:
            continue
        except DamagedCheckpoint as error:
            log.warning("%s The one before it is used, if there is one.", error)
            with suppress(FileNotFoundError):  # another process of this run was faster
                os.replace(path, folder / "damaged.ckpt")
    return None


def promote(folder: Path) -> None:
    """Make a next.ckpt, if there is one, the last one, and the last one the previous one."""
    next_, last, previous = (folder / name for name in NAMES)
    if next_.exists():
        if last.exists():
            os.replace(last, previous)
        os.replace(next_, last)


def _find_best(states: dict[str, Any], best: Path) -> None:
    """Tell Lightning's ModelCheckpoint where its best checkpoint lies now, or let it forget one that is lost."""
    for key in [key for key in states if key.startswith("ModelCheckpoint")]:
        state = states[key]
        if not state["best_model_path"]:
            continue
        try:
            read_checkpoint(best)
        except (FileNotFoundError, DamagedCheckpoint):
            log.warning("%s is lost or damaged: what is tested is the best of the epochs from now on.", best)
            del states[key]
            continue
        score, place = state["best_model_score"], str(best)  # the run folder may have been moved
        state.update(dirpath=str(best.parent), best_model_path=place, kth_best_model_path=place)
        state["best_k_models"] = {place: score}


def _fit_loop_at(trainer: Trainer, position: Position) -> dict[str, Any]:
    """The state of Lightning's loops at a position, whatever the hook in which the checkpoint was written."""
    epochs, steps = position["epochs"], position["steps"]
    batches = position["images"] // _images_a_batch(trainer)
    state = cast(dict[str, Any], trainer.fit_loop.state_dict())

    def set_to(progress: dict[str, Any], number: int) -> None:
        progress.update(dict.fromkeys(progress, number))

    for span in ("total", "current"):
        set_to(state["epoch_progress"][span], epochs)
        if batches:  # the next epoch has begun
            state["epoch_progress"][span].update(ready=epochs + 1, started=epochs + 1)
        for counted in ("step", "zero_grad"):
            set_to(state["epoch_loop.automatic_optimization.optim_progress"]["optimizer"][counted][span], steps)
        set_to(state["epoch_loop.scheduler_progress"][span], steps)
    set_to(state["epoch_loop.batch_progress"]["total"], steps * trainer.accumulate_grad_batches)
    set_to(state["epoch_loop.batch_progress"]["current"], batches)
    state["epoch_loop.state_dict"]["_batches_that_stepped"] = steps
    return state


def _images_a_batch(trainer: Trainer) -> int:
    """Images of a forward pass on all devices together."""
    return _data(trainer).batch_size // trainer.accumulate_grad_batches


def _anywhere(trainer: Trainer, here: bool) -> bool:
    """Whether it is so in any process."""
    return trainer.strategy.reduce_boolean_decision(here, all=False)


def _data(trainer: Trainer) -> ImageDataModule:
    return cast(ImageDataModule, trainer.datamodule)  # type: ignore[attr-defined]


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
