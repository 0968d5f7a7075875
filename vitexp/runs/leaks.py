"""Keep validation images out of everything that a run learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.config.components import facts
from vitexp.errors import ConfigError

_NEVER = ("root", "download", "base_url", "draw_size", "test_per_class")  # say nothing about the training images


def refuse_other_split(config: DictConfig, theirs: DictConfig, *, key: str) -> None:
    """Raise ConfigError if the run of `theirs`, which `key` names, was trained on validation images of `config`.

    That is the case if both use the same images, split differently into training and validation.
    """
    (images, mine), (their_images, other) = _split(config), _split(theirs)
    changed = [name for name in mine if mine[name] != other.get(name)]
    if images != their_images or not changed:
        return
    here, there = (" ".join(f"{name}={split.get(name)}" for name in changed) for split in (mine, other))
    raise ConfigError(
        f"{key} was trained with {there}, and therefore on images that validate this run with {here}; train both on "
        "the same part of the data."
    )


def _split(config: DictConfig) -> tuple[list[Any], dict[str, Any]]:
    """Return which images there are, and what decides which of them validate."""
    source: Any = OmegaConf.to_container(config.data.source, resolve=True)
    known = facts(source)
    identity = known.get("identity", ("root",))
    split_by = known.get("split_by")
    if split_by is None:
        split_by = [name for name in source if name not in (*identity, *_NEVER, "_target_")]
    images = [source["_target_"], *(_location(key, source.get(key)) for key in identity)]
    options = {f"data.source.{key}": source[key] for key in split_by if key in source}
    return images, {"seed": config.seed, "data.val_fraction": config.data.val_fraction, **options}


def _location(key: str, value: Any) -> Any:
    return Path(value).expanduser().resolve() if key == "root" and value is not None else value
