"""The training step: what happens to a batch on the device, from uint8 images to the loss."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from lightning import LightningModule
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.utilities.distributed import gather_all_tensors

from vitexp.training.distillation import Distillation
from vitexp.training.metrics import classification_metrics
from vitexp.training.mixing import Mixing
from vitexp.training.parameter_groups import parameter_groups
from vitexp.training.schedule import Schedule

Batch = tuple[Tensor, Tensor]


class Classifier(LightningModule):
    """Trains and measures a net that turns images, float [B, 3, S, S], into logits, [B, num_classes].

    augment: on the training device, float [B, 3, S, S] in [0, 1] to the same. mean, std: [3], of values in [0, 1].
    image_sizes: in pixels, of which each training batch draws one, the same in all processes; None: as they come.
    distillation: the teacher's share in the loss; a distillation token of the net, if it has one, learns from it alone.
    optimizer: takes groups of named parameters (a partial torch optimizer). seed: what is drawn at a step
    (augmentation, mixing, dropout) depends on it, the step and the process alone, not on what came before. After a
    validation or test epoch `predictions` holds its probabilities, float [N, C], and labels, int64 [N], of the whole
    set in its order, in every process; metrics are taken of them at once, so that they do not depend on how many
    processes shared the images.
    """

    mean: Tensor
    std: Tensor
    train_loss: Tensor
    train_sums: Tensor
    predictions: Batch

    def __init__(
        self,
        *,
        net: nn.Module,
        num_classes: int,
        augment: nn.Module,
        mixing: Mixing,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer],
        schedule: Schedule,
        label_smoothing: float,
        seed: int,
        mean: ArrayLike,
        std: ArrayLike,
        image_sizes: Sequence[int] | None = None,
        layer_decay: float = 1.0,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.net, self.augment, self.mixing = net, augment, mixing
        self.optimizer, self.schedule, self.label_smoothing = optimizer, schedule, label_smoothing
        self.seed, self.image_sizes, self.layer_decay = seed, image_sizes, layer_decay
        self.distillation = distillation
        self.register_buffer("mean", torch.as_tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.as_tensor(std).view(3, 1, 1), persistent=False)
        self._measured: list[tuple[Tensor, Tensor, Tensor]] = []
        self._compiled_for: int | None = None

    def compile_net(self, *, batch_size: int) -> None:
        """Compile the net, in place, for batches of this size alone: smaller ones of an evaluation are filled up.

        So is the net of a teacher.
        """
        self.net.compile(dynamic=False)
        if self.distillation is not None:
            self.distillation.net.compile(dynamic=False)
        self._compiled_for = batch_size

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [B, num_classes], of uint8 images, [B, S, S, 3]."""
        return self._logits(self.prepared(images))

    def _logits(self, images: Tensor, **options: bool) -> Tensor:
        # The layout in which convolutions are fastest: simple_cnn trains 1.7 times as fast with it.
        return cast(Tensor, self.net(images.contiguous(memory_format=torch.channels_last), **options))

    def prepared(self, images: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] as the net takes it without augmentation: float [B, 3, S, S], normalized."""
        return self.normalize(to_unit_range(images))

    def normalize(self, images: Tensor) -> Tensor:
        """float [B, 3, S, S] in [0, 1] to mean 0 and deviation 1 a channel."""
        return (images - self.mean) / self.std

    def training_batch(self, batch: Batch, batch_index: int) -> tuple[Tensor, Tensor]:
        """The batch as the net sees it: images float [B, 3, S, S], augmented, normalized and mixed; targets [B, C]."""
        _seed_draws(self.device, self.seed, self.current_epoch, batch_index, self.global_rank)
        images, labels = batch
        images = self.normalize(self._resized(self.augment(to_unit_range(images)), batch_index))
        return self.mixing(images, labels, progress=self.global_step / self.total_steps)

    def _resized(self, images: Tensor, batch_index: int) -> Tensor:
        """float [B, 3, S, S] at the size that this batch draws."""
        if self.image_sizes is None:
            return images
        size = self.image_sizes[_hashed(self.seed, self.current_epoch, batch_index) % len(self.image_sizes)]
        if size == images.shape[-1]:
            return images
        return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)

    def on_train_start(self) -> None:
        if self.distillation is not None:
            self.distillation.to(self.device)

    def on_train_epoch_start(self) -> None:
        # loss, images right, images of the epoch so far; read once, at its end
        self.train_sums = torch.zeros(3, device=self.device)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images, targets = self.training_batch(batch, batch_index)
        logits, loss = self._learn(images, targets)
        right = (logits.detach().argmax(dim=1) == targets.argmax(dim=1)).sum()
        self.train_loss = loss.detach()  # Lightning hands on a share of it where gradients are accumulated
        self.train_sums += torch.stack([self.train_loss * len(targets), right, torch.full_like(right, len(targets))])
        return loss

    def _learn(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, [B, C], and the loss, of a batch that is ready for the net."""
        two_tokens = self.distillation is not None and getattr(self.net, "distillation_token", False)
        of_labels, of_teacher = self._logits(images, separate=True) if two_tokens else [self._logits(images)] * 2
        loss = F.cross_entropy(of_labels.float(), targets, label_smoothing=self.label_smoothing)
        if self.distillation is None:
            return of_labels, loss
        unit = images * self.std + self.mean  # the very images, also mixed ones, in the range that all nets share
        return (of_labels + of_teacher) / 2, self.distillation(loss, of_teacher, unit)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        """Log what is due, and nothing else: `self.log` costs a quarter of a millisecond."""
        trainer = self.trainer
        if self.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", self.train_loss)
        # Logged here and not when the epoch has ended, because callbacks hear of that before the module.
        if trainer.is_last_batch or trainer.should_stop or self.global_step == self.total_steps:
            loss, right, images = self._sums_of_all_processes()
            told = {"train/loss_epoch": loss / images, "train/accuracy": right / images}
            self.log_dict(told, on_step=False, on_epoch=True, batch_size=1)
            self.train_sums.zero_()

    def _sums_of_all_processes(self) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(self.train_sums.clone(), reduce_op="sum"))

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_measured("val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self._measure(batch)

    def on_test_epoch_end(self) -> None:
        self._log_measured("test")

    def _measure(self, batch: Batch) -> None:
        """Keep probabilities, labels and losses of a batch; one without images goes through the net like any other."""
        images, labels = batch
        missing = (self._compiled_for or max(len(images), 1)) - len(images)
        filled = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images
        logits = self(filled)[: len(images)].float()
        losses = F.cross_entropy(logits, labels, reduction="none")
        self._measured.append((logits.softmax(dim=1), labels, losses))

    def _log_measured(self, part: str) -> None:
        probabilities, labels, losses = (
            self._of_all_processes(torch.cat(batches)) for batches in zip(*self._measured, strict=True)
        )
        self._measured = []
        self.predictions = probabilities, labels
        measured = {**classification_metrics(probabilities, labels), "loss": losses.mean()}
        self.log_dict({f"{part}/{name}": value for name, value in measured.items()})

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


def _seed_draws(device: torch.device, *key: int) -> None:
    """Start the random numbers of the CPU and `device` anew, the same ones for the same key."""
    seed = _hashed(*key)
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    elif device.type == "cuda":
        torch.default_generator.manual_seed(seed)
        torch.cuda.default_generators[device.index].manual_seed(seed)
    else:
        torch.manual_seed(seed)  # takes a third of a millisecond, the others two thousandths


def _hashed(*key: int) -> int:
    """A number below 2^64 that has nothing to do with that of another key."""
    return int.from_bytes(hashlib.blake2b(struct.pack(f"<{len(key)}Q", *key), digest_size=8).digest(), "little")


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] to float [B, 3, H, W] in [0, 1]."""
    # Contiguous, because augmentation is up to six times faster on planes than on interleaved colours.
    return images.permute(0, 3, 1, 2).contiguous().float().div_(255.0)
