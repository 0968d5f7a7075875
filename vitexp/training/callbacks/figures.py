"""Figures of a run: its curves, its mistakes, and what there is to see in the net."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vitexp.data.prepare import Prepared
from vitexp.explain import figures
from vitexp.explain.methods.attention import cls_attention
from vitexp.explain.methods.patches import position_norm, position_similarity
from vitexp.models import MaskedAutoencoder, ViT
from vitexp.training.callbacks.figure_callback import FigureCallback, data_of, predictions_of
from vitexp.training.classification import Classifier
from vitexp.training.loggers import BackgroundWandbLogger
from vitexp.training.masked_autoencoding import MaskedAutoencoding
from vitexp.training.task import Task


class ConfusionMatrix(FigureCallback):
    """Which classes are taken for which; on the test also interactive in W&B."""

    key = "confusion_matrix"
    needs = ("predictions",)

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Figure:
        classes = data_of(trainer).classes
        predicted, truth, _ = predictions_of(module)
        counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(counts, (truth, predicted), 1)
        return figures.confusion_matrix(counts=counts, class_names=classes)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_end(trainer, pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, BackgroundWandbLogger) and trainer.is_global_zero:
                import wandb

                predicted, truth, _ = predictions_of(cast(Classifier, pl_module))
                with logger.tolerating():
                    plot = wandb.plot.confusion_matrix(
                        y_true=truth.tolist(), preds=predicted.tolist(), class_names=data_of(trainer).classes
                    )
                    logger.experiment.log({"confusion_matrix_interactive": plot})


class AttentionMaps(FigureCallback):
    """Where a ViT's last layer looks, on images drawn at random (always the same ones)."""

    key = "attention"
    needs = ("attention", "predictions")

    def __init__(self, *, every_n_epochs: int = 0, images: int = 10) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.images = images

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Figure | None:
        if not isinstance(module.net, ViT):
            return None
        predicted, truth, _ = predictions_of(module)  # of fewer images under trainer.limit_..._batches
        chosen = np.random.default_rng(0).permutation(len(truth))[: self.images]
        maps = self._maps(module, module.net, images.images(chosen))
        classes = data_of(trainer).classes
        return figures.attention_maps(
            images=images.images(chosen),
            maps=maps,
            truth=[classes[label] for label in truth[chosen]],
            predicted=[classes[label] for label in predicted[chosen]],
        )

    @staticmethod
    def _maps(module: Classifier, net: ViT, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        training = net.training
        net.eval()
        with torch.inference_mode():
            _, weights = net.forward_with_attention(module.prepared(torch.from_numpy(images).to(module.device)))
        net.train(training)
        return cls_attention(weights, prefix_tokens=net.prefix_tokens, has_cls=net.has_cls, grid_size=net.grid_size)


class SamplePredictions(FigureCallback):
    """Images drawn at random with truth, prediction and confidence: some that are right, and some that are wrong."""

    key = "samples"
    needs = ("predictions",)

    def __init__(self, *, every_n_epochs: int = 0, right: int = 10, wrong: int = 10) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.right, self.wrong = right, wrong

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Figure | None:
        predicted, truth, confidence = predictions_of(module)
        order = np.random.default_rng(0).permutation(len(truth))
        hits = (predicted == truth)[order]
        chosen = np.concatenate([order[hits][: self.right], order[~hits][: self.wrong]])
        if not len(chosen):  # right ones were asked for alone, and there are none
            return None
        classes = data_of(trainer).classes
        return figures.sample_predictions(
            images=images.images(chosen),
            truth=[classes[label] for label in truth[chosen]],
            predicted=[classes[label] for label in predicted[chosen]],
            confidence=confidence[chosen].tolist(),
        )


class PositionEmbedding(FigureCallback):
    """What a ViT has learned about where its patches lie."""

    key = "position_embedding"
    needs = ("patches",)

    def draw(self, trainer: Trainer, module: Task, images: Prepared) -> Figure | None:
        net = module.net.encoder if isinstance(module.net, MaskedAutoencoder) else module.net
        if not isinstance(net, ViT) or net.pos_embed is None:
            return None
        where = {"prefix_tokens": net.pos_embed.shape[1] - net.grid_size**2, "grid_size": net.grid_size}
        return figures.position_embedding(
            similarity=position_similarity(net.pos_embed, **where), norm=position_norm(net.pos_embed, **where)
        )


class AugmentedBatch(FigureCallback):
    """The first training batch as the net sees it: augmented and mixed. Drawn when the first epoch has ended."""

    key = "augmented_batch"
    needs = ("predictions",)

    def __init__(self, *, images: int = 20) -> None:
        super().__init__()
        self.images = images
        self.batch: tuple[Tensor, Tensor] | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: tuple[Tensor, Tensor], batch_idx: int
    ) -> None:
        if trainer.global_step == 0 and batch_idx == 0 and trainer.is_global_zero:
            images, targets = cast(Classifier, pl_module).training_batch(batch, batch_idx)
            self.batch = images[: self.images], targets[: self.images]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.batch is not None and self._draw(trainer, pl_module, data_of(trainer).train):
            self.batch = None  # else, where the disk was full, once more after the next epoch

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: test images are not augmented."""

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Figure:
        assert self.batch is not None
        seen, targets = (part.float().cpu() for part in self.batch)
        unit = seen * module.std.cpu() + module.mean.cpu()
        return figures.augmented_batch(
            images=unit.clamp(0, 1).permute(0, 2, 3, 1).numpy(),
            labels=[_in_words(target, data_of(trainer).classes) for target in targets],
        )


class LearningCurves(FigureCallback):
    """Loss, accuracy and learning rate after every epoch; drawn as often as asked for, and at the end."""

    key = "curves"

    def __init__(self, *, every_n_epochs: int = 0) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.history: dict[str, tuple[list[float], list[float]]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = trainer.callback_metrics
        now: dict[str, Any] = {
            name: logged[name] for name in ("val/loss", "val/accuracy", "train/accuracy") if name in logged
        }
        if "train/loss_epoch" in logged:
            now["train/loss"] = logged["train/loss_epoch"]
        now["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        for name, value in now.items():
            epochs, values = self.history.setdefault(name, ([], []))
            epochs.append(trainer.current_epoch + 1)
            values.append(float(value))

    def draw(self, trainer: Trainer, module: Task, images: Prepared) -> Figure | None:
        return figures.learning_curves(history=self.history) if self.history else None

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]


def _in_words(target: Tensor, classes: list[str]) -> str:
    """The name of the class, or the two of a mixed target with their shares."""
    shares, labels = target.topk(min(2, len(target)))
    names = [
        (classes[label], share) for label, share in zip(labels.tolist(), shares.tolist(), strict=True) if share > 0.005
    ]
    return names[0][0] if len(names) == 1 else " / ".join(f"{name} {share:.1f}" for name, share in names)


class Reconstructions(FigureCallback):
    """The first validation images, what the encoder sees of them, and what is drawn; the same ones every time."""

    key = "reconstructions"
    needs = ("reconstructions",)

    def __init__(self, *, every_n_epochs: int = 0, images: int = 8) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.images = images

    def draw(self, trainer: Trainer, module: MaskedAutoencoding, images: Prepared) -> Figure:
        val = data_of(trainer).val
        chosen = np.arange(min(self.images, len(val.labels)))
        with trainer.precision_plugin.forward_context():
            drawn = module.reconstruct(torch.from_numpy(val.images(chosen)).to(module.device))
        original, seen, completed = (each.permute(0, 2, 3, 1).cpu().numpy() for each in drawn)
        return figures.reconstructions(
            images=original,
            seen=seen,
            completed=completed,
            visible=module.net.visible,
            patches=module.net.patches,
        )
