"""The Python API: `vitexp.train`, `load`, `compose` and `build`; see vitexp/__init__.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule, seed_everything
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig

from vitexp.config.check import check
from vitexp.config.compose import compose as compose_unchecked
from vitexp.errors import UserError
from vitexp.evaluate.evaluation import evaluate
from vitexp.explain import figures
from vitexp.explain.explainer import NAMES, Explainer
from vitexp.runs import predictions
from vitexp.runs.build import build_datamodule, build_module
from vitexp.runs.find import requested_run
from vitexp.runs.finished import FinishedRun, load_run
from vitexp.runs.predictions import ImageLike, Prediction
from vitexp.runs.run import run as run_training
from vitexp.runs.weights import starting_weights
from vitexp.system.signals import Interrupted


class Run(FinishedRun):
    """A finished run: its metrics, and its network for predictions, explanations and measurements."""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by part, "test" and "val", and name: run.metrics["test"]["accuracy"], a fraction."""
        return dict(self.result["metrics"])

    def predict(self, images: ImageLike | Sequence[ImageLike]) -> Prediction | list[Prediction]:
        """Predict classes; images are prepared exactly as the run prepared its own (resize, CLAHE, normalization).

        images: a path, PIL image or uint8 array [H, W, 3] gives one Prediction; a list of them or a folder, a list.
        Raises UserError for what is not an image.
        """
        if isinstance(images, str | os.PathLike) and os.path.isdir(images):
            return list(predictions.predict(self, predictions.images_in(Path(images))))
        if isinstance(images, list | tuple):
            return list(predictions.predict(self, images))
        return next(predictions.predict(self, [images]))  # type: ignore[list-item]

    def explain(
        self, images: ImageLike | Sequence[ImageLike], *, method: str = "relevance", label: int | None = None
    ) -> Explanation:
        """Explain predictions by attribution maps.

        images: as for `predict`, without folders. method: relevance, rollout, attention, grad_cam or occlusion.
        label: the class to explain; None: the predicted one. Raises UserError if the network has no such method.
        """
        explainer = Explainer(self)
        if method not in explainer.methods:
            raise UserError(f"method={method} must be one of {', '.join(explainer.methods)} for this network.")
        given: Any = images if isinstance(images, list | tuple) else [images]
        arrays = np.stack([self.prepare_image(predictions.as_array(image)) for image in given])
        predicted = list(predictions.predict(self, list(arrays)))
        labels = [each.label if label is None else label for each in predicted]
        return Explanation(method, arrays, explainer.maps(method, arrays, labels), labels, predicted)

    def evaluate(
        self,
        *,
        data: str | None = None,
        out: str | Path | None = None,
        config_dir: str | Path | None = None,
        **keys: Any,
    ) -> dict[str, Any]:
        """Measure the run in depth, on its own test set or on other data with the same classes.

        data: an option of conf/data, or of data/ in `config_dir`; keys: its keys (root="photos"). The files
        of `vitexp evaluate` are written into the run folder, or into `out`. Returns the content of evaluation.json.
        """
        typed = [] if data is None else [f"data={data}"]
        typed += [f"data.{key}={value}" for key, value in keys.items()]
        return evaluate(self.folder, data=typed, out=out, config_dir=config_dir)

    def __repr__(self) -> str:
        accuracy = self.metrics["test"].get("accuracy")
        shown = "" if accuracy is None else f", {accuracy:.2%} test accuracy"
        return f"Run({self.result['name']}, seed {self.result['seed']}{shown}, {self.folder})"


@dataclass(frozen=True)
class Explanation:
    """Attribution maps of some images.

    images: uint8 [N, S, S, 3], as the network sees them. maps: float32 [N, h, w], larger is more important.
    labels: the explained classes. predictions: what the run predicts.
    """

    method: str
    images: NDArray[np.uint8]
    maps: NDArray[np.float32]
    labels: list[int]
    predictions: list[Prediction]

    def figure(self) -> Figure:
        """Draw the images with their maps."""
        classes = self.predictions[0].classes
        return figures.map_grid(
            title=f"{NAMES[self.method]} of {', '.join(dict.fromkeys(classes[label] for label in self.labels))}"[:80],
            images=self.images,
            maps=[[np.maximum(each, 0)] for each in self.maps],
            columns=[NAMES[self.method]],
            rows=[f"{each.probability:.1%}\n{each.name}" for each in self.predictions],
        )

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        picture = BytesIO()
        self.figure().savefig(picture, format="png")
        return picture.getvalue()


def train(*overrides: str, config_dir: str | Path | None = None) -> Run:
    """Train, test and record a run, as the command does: vitexp.train("data=gtsrb", "model=vit_tiny").

    config_dir: a folder of further options, laid out like conf/. Raises UserError for what a user can fix.
    """
    config = compose(*overrides, config_dir=config_dir)
    try:
        folder = run_training(config, overrides=overrides)
    except Interrupted as interrupted:
        raise KeyboardInterrupt(interrupted.sentence) from None
    return load(folder)


def load(run: str | Path = "newest", *, device: torch.device | str = "cpu") -> Run:
    """Load a finished run: its folder, "newest" (the last one completed under logs/) or "pretrained" (bundled, GTSRB).

    Raises UserError if it is not a completed run.
    """
    loaded = load_run(requested_run(str(run)), device=device)
    return Run(**{name: getattr(loaded, name) for name in loaded.__dataclass_fields__})


def compose(*overrides: str, config_dir: str | Path | None = None) -> DictConfig:
    """Return the checked configuration of `vitexp train OVERRIDES`. Raises ConfigError, as the command would."""
    config = compose_unchecked(overrides, config_dir=config_dir)
    check(config)
    return config


def build(config: DictConfig) -> tuple[LightningDataModule, LightningModule]:
    """Return the data module, set up, and the Lightning module of a configuration, for your own lightning.Trainer.

    The random numbers are seeded with config.seed, as in a run. Callbacks, loggers, checkpoints and the record of a run
    are not part of them.
    """
    weights = starting_weights(config)
    datamodule, augment = build_datamodule(config, weights)
    datamodule.setup()
    seed_everything(config.seed, workers=True, verbose=False)
    return datamodule, build_module(config, datamodule, augment, weights)
