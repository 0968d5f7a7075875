"""Prevent a run from learning from its own validation images through a teacher or pretrained weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vitexp.config.components import facts
from vitexp.config.validate import as_typed
from vitexp.errors import ConfigError, UserError


def refuse_other_split(config: Mapping[str, Any], theirs: Mapping[str, Any], *, key: str) -> None:
    """Raise ConfigError if the run of `theirs` was trained on validation images of `config`.

    This happens if both use the same images but split them differently. key: the override that names the other run.
    """
    (images, mine), (their_images, other) = _split(config), _split(theirs)
    changed = [name for name in mine if mine[name] != other.get(name)]
    if images != their_images or not changed or _has_validation(config):
        return
    here, there = (" ".join(f"{name}={as_typed(split.get(name))}" for name in changed) for split in (mine, other))
    raise ConfigError(
        f"{key} was trained with {there}, and therefore on validation images of this run, which has {here}; train both "
        "on the same part of the data."
    )


def _has_validation(config: Mapping[str, Any]) -> bool:
    """Return whether the data set has validation images of its own, so that no option chooses them."""
    try:
        return instantiate(config["data"]["source"]).validation() is not None
    except (UserError, InstantiationException):
        return False


def _split(config: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return what identifies the images, and the options that choose the validation images."""
    source: Any = config["data"]["source"]
    if isinstance(source, DictConfig):
        source = OmegaConf.to_container(source, resolve=True)
    split_by = facts(source).get("split_by")
    if split_by is None:
        split_by = [name for name in source if name not in (*_identity(source), *location(source), "_target_")]
    options = {f"data.source.{key}": source[key] for key in split_by if key in source}
    data = config["data"]
    earlier = {"folds": None, "fold": 0}  # of runs of earlier versions
    chosen = {f"data.{key}": data.get(key, earlier.get(key)) for key in ("val_fraction", *earlier)}
    return images_of(source), {"seed": config["seed"], **chosen, **options}


def images_of(source: Mapping[str, Any]) -> list[Any]:
    """Return what identifies the images of a source, whichever way they are split."""
    return [source["_target_"], *(_resolved(key, source.get(key)) for key in _identity(source))]


def _identity(source: Mapping[str, Any]) -> tuple[str, ...]:
    return facts(source).get("identity", ("root",))  # type: ignore[no-any-return]


def location(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options of a source that only say where its images are stored."""
    return facts(source).get("location", ("root", "download"))  # type: ignore[no-any-return]


def _resolved(key: str, value: Any) -> Any:
    return Path(value).expanduser().resolve() if key == "root" and value is not None else value
