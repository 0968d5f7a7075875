"""What every training of a net on batches of images has in common, whatever its loss."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, cast

import torch
from lightning import LightningModule
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.utilities.distributed import gather_all_tensors

from vitexp.training.parameter_groups import parameter_groups
from vitexp.training.schedules import Schedule

Batch = tuple[Tensor, Tensor]


class ImageTraining(LightningModule):
    """Trains and measures a net on uint8 images, [B, S, S, 3], and their labels, int64 [B].

    augment: on the training device, float [B, 3, S, S] in [0, 1] to the same. mean, std: [3], of values in [0, 1].
    optimizer: takes groups of named parameters (a partial torch optimizer). seed: what is drawn at a step depends on
    it, the step and the process alone, not on what came before.

    Of a subclass: `metrics`, what is measured of validation and test, in this order; `epoch_sums`, what is logged of a
    training epoch as train/..., means over its images. Its training_step sets `train_loss` and adds to `train_sums`
    one sum for each of them, and at last the number of images. `images_measured`: how many images the last validation
    or test had.
    """

    metrics: ClassVar[tuple[str, ...]]
    epoch_sums: ClassVar[tuple[str, ...]]
    mean: Tensor
    std: Tensor
    train_loss: Tensor
    train_sums: Tensor
    images_measured: int
    image_sizes: Sequence[int] | None = None

    def __init__(
        self,
        *,
        net: nn.Module,
        augment: nn.Module,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer],
        schedule: Schedule,
        seed: int,
        mean: ArrayLike,
        std: ArrayLike,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__()
        self.net, self.augment = net, augment
        self.optimizer, self.schedule = optimizer, schedule
        self.seed, self.layer_decay = seed, layer_decay
        self.register_buffer("mean", torch.as_tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.as_tensor(std).view(3, 1, 1), persistent=False)
        self._measured: list[tuple[Tensor, ...]] = []
        self._compiled_for: int | None = None

    def compile_net(self, *, batch_size: int) -> None:
        """Compile the net, in place, for batches of this size alone: smaller ones of an evaluation are filled up."""
        self.net.compile(dynamic=False)
        self._compiled_for = batch_size

    def prepared(self, images: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] as the net takes it without augmentation: float [B, 3, S, S], normalized."""
        return self.normalize(to_unit_range(images))

    def normalize(self, images: Tensor) -> Tensor:
        """float [B, 3, S, S] in [0, 1] to mean 0 and deviation 1 a channel."""
        return (images - self.mean) / self.std

    def on_train_epoch_start(self) -> None:
        # read once, at the end of the epoch
        self.train_sums = torch.zeros(len(self.epoch_sums) + 1, device=self.device)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        """Log what is due, and nothing else: `self.log` costs a quarter of a millisecond."""
        trainer = self.trainer
        if self.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", self.train_loss)
        # Logged here and not when the epoch has ended, because callbacks hear of that before the module.
        if trainer.is_last_batch or trainer.should_stop or self.global_step == self.total_steps:
            *sums, images = self._sums_of_all_processes()
            told = {f"train/{name}": total / images for name, total in zip(self.epoch_sums, sums, strict=True)}
            self.log_dict(told, on_step=False, on_epoch=True, batch_size=1)
            self.train_sums.zero_()

    def _sums_of_all_processes(self) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(self.train_sums.clone(), reduce_op="sum"))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of a batch."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_measured("val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self._measure(batch)

    def on_test_epoch_end(self) -> None:
        self._log_measured("test")

    def _measure(self, batch: Batch) -> None:
        """Keep what is to be known of the images of a batch, one row each."""
        raise NotImplementedError

    def _filled(self, images: Tensor) -> Tensor:
        """A batch without images goes through the net like any other, and one for a compiled net has all its images."""
        missing = (self._compiled_for or max(len(images), 1)) - len(images)
        return torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images

    def _log_measured(self, part: str) -> None:
        """Log what was kept, of all processes, as `part`/..., and forget it."""
        raise NotImplementedError

    def _all_measured(self) -> list[Tensor]:
        """What was kept, each [N, ...], of the whole set in its order; it is forgotten."""
        found = [self._of_all_processes(torch.cat(batches)) for batches in zip(*self._measured, strict=True)]
        self._measured = []
        self.images_measured = len(found[0])
        return found

    def _of_all_processes(self, mine: Tensor) -> Tensor:
        """The rows of all processes, [N, ...], in the order of the set: BatchSampler deals them out one by one."""
        processes = self.trainer.world_size
        if processes == 1:
            return mine
        parts = gather_all_tensors(mine)
        rows = mine.new_empty((sum(map(len, parts)), *mine.shape[1:]))
        for rank, part in enumerate(parts):
            rows[rank::processes] = part
        return rows

    def weights(self) -> dict[str, Tensor]:
        """What is kept of the net when it is trained."""
        return self.net.state_dict()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep beside the weights what was measured of them on validation, and the sums of the epoch under way."""
        checkpoint["val_metrics"] = self.val_metrics()
        checkpoint["train_sums"] = self._sums_of_all_processes().cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        share = 1.0 if self.trainer.is_global_zero else 0.0  # the sums are those of all processes
        self.train_sums = share * checkpoint["train_sums"].to(self.device)

    def val_metrics(self) -> dict[str, float]:
        """What the last validation logged, such as "val/accuracy"."""
        logged = self.trainer.callback_metrics
        return {key: float(value) for key, value in logged.items() if key.startswith("val/")}

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(parameter_groups(self.net, layer_decay=self.layer_decay))
        # A fused optimizer would unscale fp16 gradients itself, and Lightning could not clip them before.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        self.total_steps = total_steps = int(self.trainer.estimated_stepping_batches)
        steps_per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        peak_lr = float(optimizer.defaults["lr"])

        def factor(step: int) -> float:
            lr = self.schedule(step, total_steps=total_steps, steps_per_epoch=steps_per_epoch, peak_lr=peak_lr)
            return lr / peak_lr

        # Every group keeps its ratio to the head's, in warmup and down to min_lr.
        scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        scheduler = LambdaLR(optimizer, [lambda step, scale=scale: scale * factor(step) for scale in scales])  # type: ignore[misc]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def seed_draws(device: torch.device, *key: int) -> None:
    """Start the random numbers of the CPU and `device` anew, the same ones for the same key."""
    seed = hashed(*key)
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    elif device.type == "cuda":
        torch.default_generator.manual_seed(seed)
        torch.cuda.default_generators[device.index].manual_seed(seed)
    else:
        torch.manual_seed(seed)  # takes a third of a millisecond, the others two thousandths


def hashed(*key: int) -> int:
    """A number below 2^64 that has nothing to do with that of another key."""
    return int.from_bytes(hashlib.blake2b(struct.pack(f"<{len(key)}Q", *key), digest_size=8).digest(), "little")


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] to float [B, 3, H, W] in [0, 1]."""
    # Contiguous, because augmentation is up to six times faster on planes than on interleaved colours.
    return images.permute(0, 3, 1, 2).contiguous().float().div_(255.0)
