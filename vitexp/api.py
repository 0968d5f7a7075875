"""The Python API: `vitexp.train`, `pretrain`, `load`, `compose` and `build`; see vitexp/__init__.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig
from typing_extensions import Never

from vitexp.config.check import check
from vitexp.config.components import facts
from vitexp.config.compose import compose as compose_unchecked
from vitexp.config.overrides import quoted
from vitexp.errors import ConfigError, UserError
from vitexp.evaluate.evaluation import evaluate
from vitexp.explain import figures
from vitexp.explain.explainer import NAMES, Explainer
from vitexp.runs import predictions
from vitexp.runs.find import requested_run
from vitexp.runs.finished import FinishedRun, load_run
from vitexp.runs.inputs import check_inputs
from vitexp.runs.launcher import is_first_process
from vitexp.runs.predictions import ImageLike, Prediction
from vitexp.runs.rehearsal import build_parts
from vitexp.runs.resume import as_it_began, resumed
from vitexp.runs.run import run as run_training
from vitexp.system.hardware import choose_device
from vitexp.system.signals import Interrupted
from vitexp.text import plural, shortened


class Run(FinishedRun):
    """A finished run: its metrics, and its network for predictions, explanations and measurements."""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by split ("test" or "val") and name; run.metrics["test"]["accuracy"] is a fraction."""
        return dict(self.result["metrics"])

    def predict(self, images: ImageLike | Sequence[ImageLike]) -> Prediction | list[Prediction]:
        """Return predictions. Images are prepared exactly as the run prepared its own (resize, CLAHE, normalization).

        images: a path, a PIL image or a uint8 array [H, W, 3] gives one Prediction; a list of these, or a folder, gives
        a list. Raises UserError for anything else, and for a file that cannot be decoded; in a folder, a warning names
        the files that were not read.
        """
        if isinstance(images, str | os.PathLike) and os.path.isdir(images):
            predicted, unread = predictions.predict_all(self, Path(images))
            _warn_of_unread(unread)
            return predicted
        if isinstance(images, list | tuple):
            return list(predictions.predict(self, images))
        return next(predictions.predict(self, [images]))  # type: ignore[list-item]

    def explain(
        self, images: ImageLike | Sequence[ImageLike], *, method: str = "relevance", label: int | None = None
    ) -> Explanation:
        """Return attribution maps of one image or a list of images, given as for `predict`.

        method: relevance, rollout, attention, grad_cam or occlusion; networks without attention have only the last two.
        label: the class to explain; by default the predicted one. Raises UserError for a method or label that the
        network does not have.
        """
        explainer = Explainer(self)
        if method not in explainer.methods:
            raise UserError(f"method={method} must be one of {', '.join(explainer.methods)} for this network.")
        if label is not None and label not in range(len(self.classes)):
            raise UserError(f"label={label} must be a class number from 0 to {len(self.classes) - 1}.")
        given: Any = images if isinstance(images, list | tuple) else [images]
        if isinstance(images, str | os.PathLike) and os.path.isdir(images):
            readable, unread = predictions.predict_all(self, Path(images))
            given = [each.file for each in readable]
            _warn_of_unread(unread)
        if not given:
            raise UserError("there are no images to explain.")
        arrays = np.stack([self.prepare_image(predictions.as_array(image)) for image in given])
        predicted = list(predictions.predict(self, given))
        labels = [each.label if label is None else label for each in predicted]
        return Explanation(method, arrays, explainer.maps(method, arrays, labels), labels, predicted)

    def evaluate(
        self,
        *overrides: Never,
        data: str | None = None,
        out: str | Path | None = None,
        config_dir: str | Path | None = None,
        **keys: Any,
    ) -> dict[str, Any]:
        """Evaluate the run on its own test set, or on other data with the same classes; return evaluation.json.

        data: an option of conf/data, or of data/ in `config_dir`; "folder" evaluates all images of a folder, or of its
        subfolder test. keys: keys of that data set, such as root="photos".
        out: the folder for the files that `vitexp evaluate` writes; RUN/evaluation by default. Raises UserError
        if the data is missing or has other classes.
        """
        if overrides:
            raise UserError('evaluate takes the data set by name: run.evaluate(data="folder", root="photos").')
        typed = [] if data is None else [f"data={data}"]
        typed += [f"data.{key}={_as_override(value)}" for key, value in keys.items()]
        return evaluate(self.folder, data=typed, out=out, config_dir=config_dir)

    def __repr__(self) -> str:
        accuracy = self.metrics["test"].get("accuracy")
        shown = "" if accuracy is None else f", {accuracy:.2%} test accuracy"
        return f"Run({self.result['name']}, seed {self.result['seed']}{shown}, {self.folder})"


@dataclass(frozen=True, repr=False)
class Explanation:
    """Attribution maps of N images. Notebooks display it as a figure.

    images: uint8 [N, S, S, 3], as prepared for the network. maps: float32 [N, h, w], larger is more important.
    labels: the explained classes, [N]. predictions: what the run predicts, [N].
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

    def __repr__(self) -> str:
        return f"Explanation({NAMES[self.method]} of {plural(len(self.images), 'image')})"


def train(*overrides: str, config_dir: str | Path | None = None, **keys: Never) -> Run:
    """Train, test and record a run, as the command does: vitexp.train("data=gtsrb", "model=vit_tiny").

    config_dir: a folder of additional options, laid out like conf/. On several devices, Lightning runs the script again
    for each additional device; those processes exit in this function, so that the rest of the script runs only once.

    Raises UserError for what a user can fix (ConfigError before any data is read), KeyboardInterrupt for Ctrl-C, and
    SystemExit for SIGTERM and SIGUSR1. From the first step on, the run is recorded in every case.
    """
    _refuse_other_forms("train", overrides, keys)
    return load(_train(overrides, config_dir=config_dir, uses_labels=True))


def pretrain(*overrides: str, config_dir: str | Path | None = None, **keys: Never) -> Path:
    """Train on images without labels, with task=mae by default; return the run folder, for model.weights.

    Arguments and exceptions are those of `train`:
    vitexp.train("data=cifar10", f"model.weights={vitexp.pretrain('data=cifar10')}") trains a classifier from it.
    """
    _refuse_other_forms("pretrain", overrides, keys)
    task = [] if any(word.startswith("task=") for word in overrides) else ["task=mae"]
    return _train([*task, *overrides], config_dir=config_dir, uses_labels=False)


def _train(overrides: Sequence[str], *, config_dir: str | Path | None, uses_labels: bool) -> Path:
    """Train, test and record a run; return its folder. uses_labels: whether its task must."""
    composed = partial(compose_unchecked, config_dir=config_dir)
    config = resumed(composed(overrides), overrides, composed)
    check(config)
    if facts(config.task).get("uses_labels", True) != uses_labels:
        kind = "does not train a classifier; use vitexp.pretrain" if uses_labels else "needs labels; use vitexp.train"
        raise ConfigError(f"this task {kind}.")
    check_inputs(config)
    try:
        folder = run_training(as_it_began(config), overrides=overrides)
    except Interrupted as interrupted:
        if interrupted.exit_code != 128 + signal.SIGINT:
            sys.exit(interrupted.exit_code)
        raise KeyboardInterrupt(interrupted.sentence) from None
    if not is_first_process(config):
        sys.exit()
    return folder


def load(run: str | Path = "newest", *, device: torch.device | str = "cpu") -> Run:
    """Load a finished run: its folder, "newest" (completed last in logs/) or "pretrained" (the bundled GTSRB network).

    run: the folder may be named without logs/. device: a torch device, or "auto". Raises UserError if the run is not a
    completed classifier, or if there is no such device.
    """
    if isinstance(device, str):
        device = (
            choose_device(device, key="device") if device in ("auto", "gpu", "cuda", "mps") else torch.device(device)
        )
    return Run(**vars(load_run(requested_run(str(run)), device=device)))


def compose(*overrides: str, config_dir: str | Path | None = None, **keys: Never) -> DictConfig:
    """Return the configuration of `vitexp train OVERRIDES`, checked as the command checks it. Raises ConfigError."""
    _refuse_other_forms("compose", overrides, keys)
    config = compose_unchecked(overrides, config_dir=config_dir)
    check(config)
    return config


def build(config: DictConfig) -> tuple[LightningDataModule, LightningModule]:
    """Return the data module and the Lightning module of a configuration, for your own lightning.Trainer.

    The data is prepared, and the initial weights equal those of a run: random numbers are seeded with config.seed.
    Callbacks, loggers and checkpoints are up to you. Raises UserError.
    """
    if not isinstance(config, DictConfig):
        raise ConfigError(f"vitexp.build({config!r}): give the configuration that vitexp.compose returns.")
    return build_parts(config)


def _refuse_other_forms(function: str, overrides: Sequence[Any], keys: Mapping[str, Any]) -> None:
    """Raise ConfigError, which shows the right form, for settings that are not given as texts such as "data=folder"."""
    if not keys and all(isinstance(word, str) for word in overrides):
        return
    words: list[str] = []
    for given in (*overrides, keys):
        if isinstance(given, str):
            words.append(given)
        elif isinstance(given, Mapping):
            words += [f"{key}={value}" for key, value in given.items()]
        else:
            words += map(str, given if isinstance(given, list | tuple) else [given])
    meant = ", ".join(json.dumps(word, ensure_ascii=False) for word in words)
    raise ConfigError(f"settings are given as texts, as on the command line: vitexp.{function}({meant}).")


def _warn_of_unread(files: Sequence[Path]) -> None:
    if files:
        warnings.warn(f"not read: {shortened([str(file) for file in files])}", stacklevel=3)


def _as_override(value: Any) -> str:
    """Return a Python value as Hydra reads it in an override."""
    return quoted(str(value)) if isinstance(value, str | Path) else "null" if value is None else str(value)
