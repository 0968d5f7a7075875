"""The base class of tasks: what is trained on a batch of images, and what is measured on validation and test data."""

from __future__ import annotations

import hashlib
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from lightning import LightningModule, Trainer
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.utilities.distributed import gather_all_tensors

from vitexp.data.augment import per_image
from vitexp.data.datamodule import ImageDataModule
from vitexp.training.parameter_groups import parameter_groups
from vitexp.training.schedules import CosineWarmup, Schedule

Batch = tuple[Tensor, Tensor]


class Task(LightningModule, ABC):
    """A net that is trained and measured on uint8 images [B, S, S, 3] with labels int64 [B].

    A task of your own implements `learn` and `measure`, and states `metrics` and `monitor`:

        class MeanColor(Task):
            '''Predict the mean color of an image; the net has at least 3 outputs.'''

            metrics = ("loss",)
            monitor = "val/loss"
            uses_labels = False

            def learn(self, images, labels):
                return (self._errors(images).mean(),)

            def measure(self, images, labels):
                return (self._errors(images),)

            def _errors(self, images):
                return (self.apply_net(images)[:, :3] - images.mean(dim=(2, 3))).square().mean(dim=1)

    Select it with a file conf/task/mean_color.yaml that contains `_target_: package.module.MeanColor` and its options.
    The constructor may take any of the parts that a run has, as keyword arguments: net, num_classes, augment, loss,
    mixing, optimizer, schedule, seed, mean, std, layer_decay, image_sizes, distillation. A constructor that passes
    **kwargs on to Task also takes Task's arguments. Its other arguments are the options of the YAML file, annotated as
    in vitexp/options.py. Hooks that a task overrides must call super().

    Class attributes (facts that are read without importing the class):
        metrics: the names of what is measured, "loss" among them; logged as val/... and test/...
        monitor: what checkpoint.monitor=auto means. uses_labels: whether labels take part in training.
        train_metrics: the names of what `learn` returns after the loss; logged per epoch as train/...
        has_predictions: whether there are `predictions`, which the figures of classifiers need.
        has_reconstructions: whether there is a method `reconstruct`.

    Args:
        net: maps float images [B, 3, S, S] to its output; for vitexp's models, logits [B, num_classes].
        augment: runs on the training device, float [B, 3, S, S] in [0, 1] to the same; None does nothing.
        optimizer: takes groups of named parameters, e.g. a partial torch optimizer; default AdamW, lr 1e-3, decay 0.05.
        schedule: learning rate at each step; default CosineWarmup().
        seed: the random numbers of a step depend only on it, the epoch, the batch index and the process.
        mean, std: [3], of values in [0, 1]; default: those of the datamodule.
        layer_decay: see parameter_groups.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss",)
    monitor: ClassVar[str] = "val/loss"
    uses_labels: ClassVar[bool] = True
    train_metrics: ClassVar[tuple[str, ...]] = ()
    has_predictions: ClassVar[bool] = False
    has_reconstructions: ClassVar[bool] = False

    mean: Tensor
    std: Tensor
    train_loss: Tensor
    train_sums: Tensor  # of the epoch: loss, train_metrics and number of images, each summed over images
    images_measured: int  # in the last validation or test
    image_sizes: Sequence[int] | None = None

    def __init__(
        self,
        *,
        net: nn.Module,
        augment: nn.Module | None = None,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer] | None = None,
        schedule: Schedule | None = None,
        seed: int = 0,
        mean: ArrayLike | None = None,
        std: ArrayLike | None = None,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__()
        self.net, self.augment = net, nn.Identity() if augment is None else per_image(augment)
        self.optimizer = optimizer or partial(AdamW, lr=1e-3, weight_decay=0.05, fused=True)
        self.schedule = schedule or CosineWarmup()
        self.seed, self.layer_decay = seed, layer_decay
        self._given_normalization = mean is not None and std is not None
        for name, value, default in (("mean", mean, 0.0), ("std", std, 1.0)):
            numbers = torch.full((3,), default) if value is None else torch.as_tensor(value)
            self.register_buffer(name, numbers.view(3, 1, 1), persistent=False)
        self._measured: list[tuple[Tensor, ...]] = []
        self._compiled_for: int | None = None
        self._restored_sums: Tensor | None = None
        self._validated_step: int | None = None
        self._restored_val: tuple[int, dict[str, float]] = (-1, {})  # the step at which they were measured

    @abstractmethod
    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return the mean loss of a training batch, then for each of `train_metrics` its sum over the batch.

        images: float [B, 3, S, S], augmented and normalized. labels: int64 [B], or what `training_batch` returns.
        """

    @abstractmethod
    def measure(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return what `summarize` needs from a validation or test batch, each [B, ...].

        images: float [B, 3, S, S], normalized. labels: int64 [B].
        """

    def summarize(self, *measured: Tensor) -> dict[str, Tensor]:
        """Return the metrics of a whole set from what `measure` returned, each [N, ...] in the order of the set.

        By default, the mean of each, under the names of `metrics`.
        """
        return {name: rows.mean() for name, rows in zip(self.metrics, measured, strict=True)}

    def describe(self) -> str:
        """Return a line for the start of a run; "" if there is nothing to say."""
        return ""

    def forward(self, images: Tensor) -> Tensor:
        """Return the output of the net for uint8 images [B, S, S, 3]."""
        return self.apply_net(self.prepared(images))

    def apply_net(self, images: Tensor, *arguments: Tensor, **options: bool) -> Tensor:
        """Return the output of the net for float images [B, 3, S, S]."""
        # The layout in which convolutions are fastest: simple_cnn trains 1.7 times as fast with it.
        images = images.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.net(images, *arguments, **options))

    def prepared(self, images: Tensor) -> Tensor:
        """Return uint8 images [B, S, S, 3] as float [B, 3, S, S], normalized but not augmented."""
        return self.normalize(to_unit_range(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize float images [B, 3, S, S] in [0, 1] by the mean and standard deviation of each channel."""
        return (images - self.mean) / self.std

    def compile_net(self, *, batch_size: int) -> None:
        """Compile the net in place for batches of this size; smaller ones in an evaluation are padded."""
        self.net.compile(dynamic=False)
        self._compiled_for = batch_size

    @property
    def model(self) -> nn.Module:
        """The model whose weights a run keeps: the net, or a part of it."""
        return self.net

    # ---- training

    def setup(self, stage: str) -> None:
        if not self._given_normalization:
            data = getattr(self.trainer, "datamodule", None)
            for name in ("mean", "std"):
                if (value := getattr(data, name, None)) is not None:
                    getattr(self, name).copy_(torch.as_tensor(value).view(3, 1, 1))

    def on_train_start(self) -> None:
        if self._restored_sums is not None:  # read before Lightning moved the module to its device
            self.train_sums, self._restored_sums = self._restored_sums.to(self.device), None

    def on_train_epoch_start(self) -> None:
        # On the device, and read only once, at the end of the epoch.
        self.train_sums = torch.zeros(len(self.train_metrics) + 2, device=self.device)

    def training_batch(self, batch: Batch, batch_index: int) -> Batch:
        """Return the batch as the net sees it: images float [B, 3, S, S], augmented and normalized, and the targets."""
        seed_draws(self.device, self.seed, self.current_epoch, batch_index, self.global_rank)
        images, labels = batch
        return self.normalize(self.augmented(to_unit_range(images), batch_index)), labels

    def image_changes(self) -> list[str]:
        """Return how training images differ from validation images, in words for the learning curves."""
        is_empty = isinstance(self.augment, nn.Identity | nn.Sequential) and not list(self.augment.children())
        return [] if is_empty and data_of(self.trainer).sample_augment is None else ["augmented"]

    def loss_changes(self) -> list[str]:
        """Return how the training loss differs from the validation loss, apart from the images, in words."""
        return []

    def augmented(self, images: Tensor, batch_index: int) -> Tensor:
        """Augment float images [B, 3, S, S] in [0, 1]."""
        return cast(Tensor, self.augment(images))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images, targets = self.training_batch(batch, batch_index)
        loss, *sums = self.learn(images, targets)
        # Detached here because Lightning divides the loss if gradients are accumulated.
        self.train_loss = loss.detach()
        count = torch.full_like(self.train_loss, len(images))
        self.train_sums += torch.stack([self.train_loss * count, *sums, count])
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        """Log what is due and nothing else: `self.log` takes a quarter of a millisecond."""
        trainer = self.trainer
        if self.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", self.train_loss)
        # Not in on_train_epoch_end, because callbacks run before it.
        if trainer.is_last_batch or trainer.should_stop or self.global_step == self.total_steps:
            *sums, images = self._sums_of_all_processes()
            names = ("loss_epoch", *self.train_metrics)
            means = {f"train/{name}": total / images for name, total in zip(names, sums, strict=True)}
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=1)
            self.train_sums.zero_()

    def _sums_of_all_processes(self) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(self.train_sums.clone(), reduce_op="sum"))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(parameter_groups(self.net, layer_decay=self.layer_decay))
        # A fused optimizer would unscale fp16 gradients itself, so Lightning could not clip them first.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        # With max_steps alone, Lightning would count the batches only later.
        self.trainer.fit_loop.setup_data()
        self.total_steps = total_steps = int(self.trainer.estimated_stepping_batches)
        steps_per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        peak_lr = float(optimizer.defaults["lr"])

        def factor(step: int) -> float:
            lr = self.schedule(step, total_steps=total_steps, steps_per_epoch=steps_per_epoch, peak_lr=peak_lr)
            return lr / peak_lr

        # Each group keeps its ratio to the head's learning rate throughout the schedule.
        scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        scheduler = LambdaLR(optimizer, [lambda step, scale=scale: scale * factor(step) for scale in scales])  # type: ignore[misc]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # ---- validation and test

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._keep_measured(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_measured("val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self._keep_measured(batch)

    def on_test_epoch_end(self) -> None:
        self._log_measured("test")

    def _keep_measured(self, batch: Batch) -> None:
        images, labels = (self._filled(part) for part in batch)
        self._measured.append(tuple(rows[: len(batch[0])] for rows in self.measure(self.prepared(images), labels)))

    def _filled(self, rows: Tensor) -> Tensor:
        """Pad a batch to the size that the net is compiled for, or an empty one to 1, which any net accepts."""
        missing = (self._compiled_for or max(len(rows), 1)) - len(rows)
        return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows

    def _log_measured(self, part: str) -> None:
        measured = [self._of_all_processes(torch.cat(batches)) for batches in zip(*self._measured, strict=True)]
        self._measured = []
        self.images_measured = len(measured[0])
        self.log_dict({f"{part}/{name}": value for name, value in self.summarize(*measured).items()})
        if part == "val":
            self._validated_step = self.global_step

    def _of_all_processes(self, mine: Tensor) -> Tensor:
        """Return the rows of all processes, [N, ...], in the order of the set; BatchSampler deals them out in turn."""
        processes = self.trainer.world_size
        if processes == 1:
            return mine
        parts = gather_all_tensors(mine)
        rows = mine.new_empty((sum(map(len, parts)), *mine.shape[1:]))
        for rank, part in enumerate(parts):
            rows[rank::processes] = part
        return rows

    def val_metrics(self) -> dict[str, float]:
        """Return what validation logged for the present weights, such as "val/accuracy"; {} if they were not validated.

        Lightning keeps old values in `callback_metrics` if not every epoch is validated.
        """
        if self._validated_step != self.global_step:
            step, restored = self._restored_val  # of a run that is resumed after its training
            return restored if step == self.global_step else {}
        logged = self.trainer.callback_metrics
        return {key: float(value) for key, value in logged.items() if key.startswith("val/")}

    def epoch_metrics(self) -> dict[str, float]:
        """Return what was logged for the present epoch: training metrics, and those of validation if there was one."""
        logged = self.trainer.callback_metrics
        train = {key: float(value) for key, value in logged.items() if key.startswith("train/")}
        return {**train, **self.val_metrics()}

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the validation metrics of the weights and the sums of the unfinished epoch."""
        checkpoint["val_metrics"] = self.val_metrics()
        checkpoint["train_sums"] = self._sums_of_all_processes().cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored_val = (checkpoint["global_step"], checkpoint["val_metrics"])
        # The sums cover all processes, so only one process may start with them.
        share = 1.0 if self.trainer.is_global_zero else 0.0
        self._restored_sums = share * checkpoint["train_sums"]


def data_of(trainer: Trainer) -> ImageDataModule:
    """Return the datamodule that `trainer` fits or tests with."""
    return cast(ImageDataModule, trainer.datamodule)  # type: ignore[attr-defined]


def seed_draws(device: torch.device, *key: int) -> None:
    """Seed the random generators of the CPU and of `device` with a hash of `key`."""
    seed = hashed(*key)
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    elif device.type == "cuda":
        torch.default_generator.manual_seed(seed)
        torch.cuda.default_generators[device.index].manual_seed(seed)
    else:
        torch.manual_seed(seed)  # takes a third of a millisecond, the others two thousandths


def hashed(*key: int) -> int:
    """Hash the key to an independent 64-bit integer."""
    return int.from_bytes(hashlib.blake2b(struct.pack(f"<{len(key)}Q", *key), digest_size=8).digest(), "little")


def to_unit_range(images: Tensor) -> Tensor:
    """Convert uint8 [B, H, W, 3] to float [B, 3, H, W] in [0, 1]."""
    # Contiguous, because augmentation is up to six times faster on planes than on interleaved colors.
    return images.permute(0, 3, 1, 2).contiguous().float().div_(255.0)
