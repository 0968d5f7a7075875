"""The images that a run is evaluated on: its own test set, or that of another data set with the same classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from vitexp.data.datamodule import available_workers
from vitexp.data.prepare import Prepared, prepare
from vitexp.data.source import Source, Split, TestPart
from vitexp.errors import UserError
from vitexp.runs.build import build_a
from vitexp.runs.classes import match_classes
from vitexp.runs.data_config import data_config
from vitexp.runs.finished import FinishedRun
from vitexp.runs.leaks import images_of, location
from vitexp.runs.record import data_set
from vitexp.text import plural


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Test images for a network.

    images: prepared as in training. labels: int64 [N], in the numbering of the network's classes.
    own: whether these are the images of the run's own test. fingerprint: changes with the images.
    about: which images of the data set these are. matching: how its classes match those of the network.
    source, split, config: where the images come from.
    """

    __test__ = False  # pytest would collect it as a test

    name: str
    images: Prepared
    labels: NDArray[np.int64]
    own: bool
    fingerprint: str
    about: str
    matching: str
    source: Source
    split: Split
    config: DictConfig


def open_test_set(
    run: FinishedRun, typed: Sequence[str], *, config_dir: Path | str | None = None
) -> tuple[FinishedRun, TestSet]:
    """Return the run, and the test set that the overrides `typed` (data=..., data.key=value) select.

    Without overrides it is the run's own. If they only say where the run's own data are stored, the returned run reads
    them from there; its own images are recognized by their recorded fingerprint, wherever they are. Of other data, all
    images are evaluated unless the data set has a test split. Raises ConfigError for overrides that cannot work,
    UserError if the images are missing or have different classes.
    """
    config = data_config(run.config, typed, image_size=run.image_size, config_dir=config_dir)
    source = build_a(Source, config.data.source, "data.source")
    as_in_training = _as_in_training(run, source, config)
    part, images = as_in_training or _all_of(source, config)
    fingerprint = _fingerprint(part, images)
    about = part.about
    if own := _is_own(run, config, fingerprint):
        about = "the run's own test split"
        if as_in_training:  # otherwise there are no training images
            run = dataclasses.replace(run, config=config)
    elif _is_alike(run, config) and _place(config) == _place(run.config):
        about += "; these images, or their preparation, have changed since training"
    if skipped := len(part.split) - len(images):
        about += f"; {plural(skipped, 'image')} skipped"
    matching = match_classes(part.classes, run.classes, name=data_set(config.data), numbered=part.numbered)
    return run, TestSet(
        name=data_set(config.data),
        images=images,
        labels=matching.labels[images.labels],
        own=own,
        fingerprint=fingerprint,
        about=about,
        matching=matching.how,
        source=source,
        split=part.split,
        config=config,
    )


def relocated(run: FinishedRun, typed: Sequence[str]) -> FinishedRun:
    """Return the run reading its data from where overrides (data.root=..., data.download=true) say."""
    return dataclasses.replace(run, config=data_config(run.config, typed, image_size=run.image_size)) if typed else run


def prepare_test_images(split: Split, config: DictConfig, steps: list[dict[str, Any]] | None = None) -> Prepared:
    """Prepare only the test images. steps: transforms in place of data.prepare. Raises UserError if there are none."""
    data = config.data
    images = prepare(
        split,
        OmegaConf.to_container(data.prepare, resolve=True) if steps is None else steps,  # type: ignore[arg-type]
        name=f"{data.name}-test",
        image_size=data.image_size,
        cache_dir=Path(data.cache_dir).expanduser(),
        num_workers=available_workers(data.num_workers),
        on_broken=data.on_broken,
    )
    if not len(images):
        raise UserError(f"{data_set(data)} has no test images.")
    return images


def _as_in_training(run: FinishedRun, source: Source, config: DictConfig) -> tuple[TestPart, Prepared] | None:
    """Return the split that training would test on, if `config` may contain the run's own; None if it does not.

    At the place of the run's own data it is None only if training images are missing but the test images are the run's
    own: all images there would include those it was trained on.
    """
    is_here = _place(config) == _place(run.config)
    if not is_here and not _is_alike(run, config):
        return None
    try:
        part = TestPart(classes=source.classes, split=source.split("test"), about="the test split")
        images = prepare_test_images(part.split, config)
    except UserError:
        if is_here and not (run.fingerprints and _is_own(run, config, _fingerprint(*_all_of(source, config)))):
            raise
        return None  # if it is here, only the training images are missing
    return (part, images) if is_here or _is_own(run, config, _fingerprint(part, images)) else None


def _all_of(source: Source, config: DictConfig) -> tuple[TestPart, Prepared]:
    part = source.test_part()
    return part, prepare_test_images(part.split, config)


def _fingerprint(part: TestPart, images: Prepared) -> str:
    return images.fingerprint(part.classes)


def _is_own(run: FinishedRun, config: DictConfig, fingerprint: str) -> bool:
    """Return whether `config` and the fingerprint of its test images are those of the run's own test.

    Runs of older versions recorded no fingerprint; their data are recognized by the place.
    """
    if not run.fingerprints:
        return _is_alike(run, config) and _place(config) == _place(run.config)
    return _is_alike(run, config) and fingerprint == run.fingerprints["test"]


def _is_alike(run: FinishedRun, config: DictConfig) -> bool:
    """Return whether the data differ from the run's own at most in where they are stored."""

    def options(data: DictConfig) -> tuple[Any, ...]:
        source: Any = OmegaConf.to_container(data.source, resolve=True)
        kept = {key: value for key, value in source.items() if key not in location(source)}
        split = (data.val_fraction, data.folds, data.fold)
        return kept, OmegaConf.to_container(data.prepare, resolve=True), split

    return options(config.data) == options(run.config.data)


def _place(config: DictConfig) -> Any:
    """Return the class of the source and what distinguishes its data sets, such as the folder."""
    return images_of(OmegaConf.to_container(config.data.source, resolve=True))  # type: ignore[arg-type]
