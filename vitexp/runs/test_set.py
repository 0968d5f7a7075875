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
from yaml import YAMLError

from vitexp.config.check import check
from vitexp.config.components import component
from vitexp.config.compose import compose
from vitexp.data.datamodule import available_workers
from vitexp.data.prepare import Prepared, prepare
from vitexp.data.source import Source
from vitexp.errors import ConfigError, UserError
from vitexp.runs.build import build_a
from vitexp.runs.classes import match_classes
from vitexp.runs.finished import FinishedRun
from vitexp.runs.leaks import location

# Other data are prepared as in training.
_OF_THE_RUN = ("image_size", "prepare", "batch_size", "val_fraction")


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Test images for a network.

    images: prepared as in training. labels: int64 [N], in the numbering of the network's classes.
    own: whether this is the test set of the run's own data. source, config: where it comes from.
    """

    __test__ = False  # pytest would collect it as a test

    name: str
    images: Prepared
    labels: NDArray[np.int64]
    own: bool
    source: Source
    config: DictConfig


def open_test_set(
    run: FinishedRun, typed: Sequence[str], *, config_dir: Path | str | None = None
) -> tuple[FinishedRun, TestSet]:
    """Return the run, and the test set that the overrides `typed` (data=..., data.key=value) select.

    Without overrides it is the run's own. If they only say where the run's own data are stored, the returned run reads
    them from there. Raises ConfigError for overrides that cannot work, UserError if the images are missing or have
    different classes.
    """
    config = _data_config(run, typed, config_dir)
    if own := _identity(config) == _identity(run.config):
        run = dataclasses.replace(run, config=config)
        source, images = run.data.source, run.data.test
    else:
        source = build_a(Source, config.data.source, "data.source")
        images = prepare_test_images(source, config)
    numbers = match_classes(source.classes, run.classes, name=config.data.name)
    return run, TestSet(
        name=config.data.name, images=images, labels=numbers[images.labels], own=own, source=source, config=config
    )


def prepare_test_images(source: Source, config: DictConfig, steps: list[dict[str, Any]] | None = None) -> Prepared:
    """Prepare only the test images. steps: transforms in place of data.prepare. Raises UserError if there are none."""
    data = config.data
    images = prepare(
        source.split("test"),
        OmegaConf.to_container(data.prepare, resolve=True) if steps is None else steps,  # type: ignore[arg-type]
        name=f"{data.name}-test",
        image_size=data.image_size,
        cache_dir=Path(data.cache_dir).expanduser(),
        num_workers=available_workers(data.num_workers),
        on_broken=data.on_broken,
    )
    if not len(images):
        raise UserError(f"{data.name} has no test images.")
    return images


def _identity(config: DictConfig) -> tuple[Any, ...]:
    """Return what identifies the images, wherever they are stored, and their preparation."""
    source: Any = OmegaConf.to_container(config.data.source, resolve=True)
    images = {key: value for key, value in source.items() if key not in location(source)}
    return images, OmegaConf.to_container(config.data.prepare, resolve=True), config.data.val_fraction


def _data_config(run: FinishedRun, typed: Sequence[str], config_dir: Path | str | None) -> DictConfig:
    """Return the run's configuration with the data that the overrides select."""
    if not typed:
        return run.config
    keys = [override.partition("=")[0] for override in typed]
    full = compose(typed if "data" in keys else [], config_dir=config_dir)
    if "data" in keys:
        data = full.data
        kept = {key: run.config.data[key] for key in _OF_THE_RUN if f"data.{key}" not in keys}
        data = OmegaConf.merge(data, kept)
    else:
        data = _with_keys(run.config.data, typed)
    if data.image_size != run.image_size:
        raise ConfigError(
            f"data.image_size={data.image_size}, but the network takes images of {run.image_size} pixels."
        )
    OmegaConf.set_struct(full, False)
    full.data, full.model = data, run.config.model
    full.training.teacher = run.config.training.teacher  # a distillation token requires one
    check(full)
    config = run.config.copy()
    config.data = OmegaConf.create(OmegaConf.to_container(full.data, resolve=True))
    return config


def _with_keys(data: DictConfig, typed: Sequence[str]) -> DictConfig:
    """Apply overrides to the data of a run and to its source, because config.yaml has no interpolations."""
    try:
        changed = OmegaConf.from_dotlist(list(typed))
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read {' '.join(typed)}: write data.key=value.") from error
    if not isinstance(changed.get("data"), DictConfig):
        raise ConfigError(f"cannot read {' '.join(typed)}: write data=OPTION or data.key=value.")
    known = component(data.source._target_)
    options = data.source if known is None else known.options
    handed = {key: value for key, value in changed.data.items() if key in options}
    merged = OmegaConf.merge(data, {"source": handed}, changed.data)
    assert isinstance(merged, DictConfig)
    return merged
