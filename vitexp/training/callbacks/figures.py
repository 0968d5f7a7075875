"""Figures of a run: learning curves, mistakes, and what the net attends to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from vitexp.data.prepare import Prepared
from vitexp.explain import figures
from vitexp.explain.captions import CONFUSION_MATRIX
from vitexp.explain.drawing import draw_position
from vitexp.explain.methods.attention import cls_attention
from vitexp.options import Doc, Field
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.best_checkpoint import BestCheckpoint
from vitexp.training.callbacks.figure_callback import EveryNEpochs, FigureCallback, predictions_of
from vitexp.training.classification import Classifier
from vitexp.training.faults import is_on, turning_off
from vitexp.training.masked_autoencoding import MaskedAutoencoding
from vitexp.training.task import Batch, Task, data_of

_RATES = 2000  # learning rates that are kept; of more, every second one
Images = Annotated[int, Field(ge=1, le=200), Doc("number of images, a fixed random sample")]


class ConfusionMatrix(FigureCallback):
    """A confusion matrix; for the test set also an interactive one in W&B."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {"confusion_matrix": CONFUSION_MATRIX}
    needs: ClassVar[tuple[str, ...]] = ("predictions",)

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Iterator[Figure]:
        classes = data_of(trainer).classes
        predicted, truth, _ = predictions_of(module)
        counts = figures.confusion_counts(predicted, truth, len(classes))
        yield figures.confusion_matrix(counts=counts, class_names=classes, part=_part(trainer, images))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_end(trainer, pl_module)
        if not trainer.is_global_zero or not self.applies(pl_module):
            return
        for logger in trainer.loggers:
            if isinstance(logger, BackgroundWandbLogger) and is_on(logger):
                predicted, truth, _ = predictions_of(cast(Classifier, pl_module))
                with turning_off(logger):
                    import wandb

                    plot = wandb.plot.confusion_matrix(
                        y_true=truth.tolist(), preds=predicted.tolist(), class_names=data_of(trainer).classes
                    )
                    logger.log_chart("confusion_matrix_interactive", plot)


class AttentionMaps(FigureCallback):
    """Maps of where the last layer of a ViT attends."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {
        "attention": (
            "Attention",
            "From top to bottom: the image, its attention map (bright is strong), and both overlaid. The map shows how "
            "strongly the class token attends to each patch in the last layer, as the mean of the heads; in a network "
            "without class token, how strongly all patches do on average. Each map has its own scale: compare "
            "positions, not strengths. Attention shows what that layer reads, but often not why the model decides.",
        )
    }
    needs: ClassVar[tuple[str, ...]] = ("predictions", "attention")

    def __init__(self, *, every_n_epochs: EveryNEpochs = 0, images: Images = 10) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.images = images

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Iterator[Figure]:
        predicted, truth, _ = predictions_of(module)  # trainer.limit_..._batches may leave fewer than self.images
        chosen = np.random.default_rng(0).permutation(len(truth))[: self.images]
        net: Any = module.net
        training = net.training
        net.eval()
        with torch.inference_mode():
            inputs = module.prepared(torch.from_numpy(images.images(chosen)).to(module.device))
            _, weights = net.forward_with_attention(inputs)
        net.train(training)
        classes = data_of(trainer).classes
        yield figures.attention_maps(
            images=images.images(chosen),
            maps=cls_attention(weights, prefix_tokens=net.prefix_tokens, has_cls=net.has_cls, grid_size=net.grid_size),
            truth=[classes[label] for label in truth[chosen]],
            predicted=[classes[label] for label in predicted[chosen]],
        )


class SamplePredictions(FigureCallback):
    """Random images with ground truth, prediction and confidence: some correct, some wrong."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {
        "samples": (
            "Sample predictions",
            "Images with the predicted class and its probability; ✓ is correct, ✗ wrong, followed by the true class. "
            "Correct and wrong predictions are drawn at random in fixed numbers, equal by default, so their numbers "
            "here say nothing about the accuracy.",
        )
    }
    needs: ClassVar[tuple[str, ...]] = ("predictions",)

    def __init__(
        self,
        *,
        every_n_epochs: EveryNEpochs = 0,
        right: Annotated[int, Field(ge=0, le=200), Doc("number of correct predictions")] = 10,
        wrong: Annotated[int, Field(ge=0, le=200), Doc("number of wrong predictions")] = 10,
    ) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.right, self.wrong = right, wrong

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Iterator[Figure]:
        predicted, truth, confidence = predictions_of(module)
        order = np.random.default_rng(0).permutation(len(truth))
        hits = (predicted == truth)[order]
        chosen = np.concatenate([order[hits][: self.right], order[~hits][: self.wrong]])
        if len(chosen):  # none if, for example, only wrong predictions are requested
            classes = data_of(trainer).classes
            yield figures.sample_predictions(
                images=images.images(chosen),
                truth=[classes[label] for label in truth[chosen]],
                predicted=[classes[label] for label in predicted[chosen]],
                confidence=confidence[chosen].tolist(),
                right=int(hits.sum()),
                wrong=int((~hits).sum()),
                part=_part(trainer, images),
            )


class PositionEmbedding(FigureCallback):
    """Maps of what a ViT has learned about the positions of its patches."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {
        "position_embedding": (
            "Position embeddings",
            "Each small map is at the position of its patch and shows how similar the embeddings of all positions are "
            "to its own; the brighter, the more similar. Only what differs from before training was learned: a pattern "
            "that is the same in both comes from the initialization, or from the weights that the run started from. "
            "The difference has its own scale, which may be much narrower.",
        )
    }
    needs: ClassVar[tuple[str, ...]] = ("patches",)

    def __init__(self, *, every_n_epochs: EveryNEpochs = 0) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.before: Tensor | None = None  # at the first step; unknown if a checkpoint of an older version lacks it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0 and self.applies(pl_module):
            positions = cast(Any, pl_module).model.pos_embed
            self.before = None if positions is None else positions.detach().cpu().clone()

    def draw(self, trainer: Trainer, module: Task, images: Prepared) -> Iterator[Figure]:
        if (figure := draw_position(cast(Any, module.model), self.before)) is not None:
            yield figure

    def state_dict(self) -> dict[str, Any]:
        return {"before": self.before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = state_dict["before"]


class AugmentedBatch(FigureCallback):
    """The first training batch as the net sees it: augmented and mixed. Drawn at the end of the first epoch."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {
        "augmented_batch": (
            "Augmented batch",
            "Training images, and below each the same image as the network sees it: augmented and, if mixing is on, "
            "mixed with another one, with its label. If you cannot recognize an image, it was changed too much.",
        )
    }

    def __init__(self, *, images: Annotated[int, Field(ge=1, le=200), Doc("number of images")] = 10) -> None:
        super().__init__()
        self.images = images
        self.batch: tuple[Tensor, Tensor, Tensor] | None = None  # original images, augmented images, targets

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step == 0 and batch_idx == 0 and trainer.is_global_zero:
            images, targets = cast(Task, pl_module).training_batch(batch, batch_idx)
            # On the CPU: a slice would keep the whole batch in the memory of the device.
            original, augmented, labels = (part[: self.images].cpu() for part in (batch[0], images, targets))
            self.batch = original, augmented, labels

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.batch is not None and self.publish(trainer, pl_module, data_of(trainer).train):
            self.batch = None  # otherwise the disk was full; try again after the next epoch

    def is_drawn_at_end(self, module: Any) -> bool:
        """Return False: test images are not augmented."""
        return False

    def draw(self, trainer: Trainer, module: Task, images: Prepared) -> Iterator[Figure]:
        assert self.batch is not None
        original, seen, targets = self.batch
        unit = seen.float() * module.std.cpu() + module.mean.cpu()
        yield figures.augmented_batch(
            originals=original.numpy(),
            images=unit.clamp(0, 1).permute(0, 2, 3, 1).numpy(),
            labels=[_in_words(target, data_of(trainer).classes) for target in targets],
        )


def _in_words(target: Tensor, classes: list[str]) -> str:
    """Return the name of the class or, for a mixed target, the names of both classes with their shares."""
    if target.ndim == 0:
        return classes[int(target)]
    shares, labels = target.float().topk(min(2, len(target)))
    names = [
        (classes[label], share) for label, share in zip(labels.tolist(), shares.tolist(), strict=True) if share > 0.005
    ]
    return names[0][0] if len(names) == 1 else " / ".join(f"{name} {share:.1f}" for name, share in names)


class LearningCurves(FigureCallback):
    """Loss and metrics per epoch, and the learning rate per step."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {
        "curves": (
            "Learning curves",
            "Loss, metrics and learning rate during training. A dashed line and a ring, if any, mark the best epoch by "
            "validation, whose weights are tested; otherwise the last weights are tested. Training values are averages "
            "over an epoch, measured on augmented images while the weights still change, so validation can be better, "
            "above all early on. Label smoothing and mixup or CutMix, if used, raise the training loss. Precision, "
            "recall and F1 are means in which every class counts the same; macro F1 is the mean of the F1 of each "
            "class, so it can be lower than both mean precision and mean recall.",
        )
    }

    def __init__(self, *, every_n_epochs: EveryNEpochs = 0) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.history: dict[str, tuple[list[float], list[float]]] = {}
        self.rate_every = 1  # steps

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step % self.rate_every == 0:
            # With layer decay, the groups have different rates; the highest is that of the head.
            rate = max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)
            self._add("lr", trainer.current_epoch + batch_idx / trainer.num_training_batches, rate)
            if len(self.history["lr"][0]) >= _RATES:
                self.rate_every *= 2
                for part in self.history["lr"]:
                    del part[1::2]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = cast(Task, pl_module).epoch_metrics()
        for name, value in logged.items():
            if name.startswith("val/") or name in ("train/accuracy", "train/loss_epoch"):
                self._add(name.removesuffix("_epoch"), trainer.current_epoch + 1, value)

    def _add(self, name: str, x: float, value: float) -> None:
        epochs, values = self.history.setdefault(name, ([], []))
        epochs.append(float(x))
        values.append(value)

    def draw(self, trainer: Trainer, module: Task, images: Prepared) -> Iterator[Figure]:
        if self.history:
            chosen = next((each for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)), None)
            best = (chosen.monitor, chosen.mode) if chosen and chosen.monitor else None
            labels = data_of(trainer).val.labels
            yield figures.learning_curves(
                history=self.history,
                best=cast(Any, best),
                image_changes=module.image_changes(),
                loss_changes=module.loss_changes(),
                baseline=float(np.bincount(labels).max() / len(labels)) if len(labels) else None,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "rate_every": self.rate_every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]
        self.rate_every = state_dict.get("rate_every", 1)  # older checkpoints have one rate per epoch


class Reconstructions(FigureCallback):
    """The first validation or test images, what the encoder sees of them, and the reconstruction."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {
        "reconstructions": (
            "Reconstructions",
            "Images, what the encoder sees of them, and the decoder's reconstruction of the rest. The model cannot "
            "recover fine detail; look for continued shapes. With task.normalize_targets the mean color and the "
            "contrast of each masked patch are not predicted; the true ones are shown.",
        )
    }
    needs: ClassVar[tuple[str, ...]] = ("reconstructions",)

    def __init__(
        self,
        *,
        every_n_epochs: EveryNEpochs = 0,
        images: Annotated[int, Field(ge=1, le=8), Doc("number of images")] = 8,
    ) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.images = images

    def draw(self, trainer: Trainer, module: MaskedAutoencoding, images: Prepared) -> Iterator[Figure]:
        val = data_of(trainer).val
        chosen = np.arange(min(self.images, len(val.labels)))
        with trainer.precision_plugin.forward_context():
            drawn = module.reconstruct(torch.from_numpy(val.images(chosen)).to(module.device))
        original, seen, completed = (each.permute(0, 2, 3, 1).cpu().numpy() for each in drawn)
        yield figures.reconstructions(
            images=original,
            seen=seen,
            completed=completed,
            visible=module.net.num_visible,
            patches=module.net.num_patches,
        )


def _part(trainer: Trainer, images: Prepared) -> str:
    return "test" if images is data_of(trainer).test else "validation"
