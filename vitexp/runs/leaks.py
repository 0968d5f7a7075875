"""Which images of a data set validate: whether a run may learn from another one that has seen labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.errors import ConfigError

# What tells apart data sets of one class; those of other classes by their folder. All else cuts the same images.
_IDENTITY = {
    "vitexp.data.signs.Signs": ("draw_seed",),
    "vitexp.data.cifar.CIFAR": ("kind",),
    "vitexp.data.gtsrb.GTSRB": (),
}
_NO_CUT = ("root", "download", "base_url", "draw_size", "test_per_class")


def refuse_another_cut(config: DictConfig, theirs: DictConfig, *, key: str) -> None:
    """Raise ConfigError where the run of `theirs`, which `key` names, has learned what validates that of `config`.

    That is so where both have the same images, cut otherwise into training and validation.
    """
    (images, mine), (its_images, its) = _cut(config), _cut(theirs)
    other = [name for name in mine if mine[name] != its.get(name)]
    if images != its_images or not other:
        return
    here, there = (" ".join(f"{name}={cut.get(name)}" for name in other) for cut in (mine, its))
    raise ConfigError(
        f"{key} was trained with {there} and so on images that validate this run of {here}; train both on the same "
        "part of the data."
    )


def _cut(config: DictConfig) -> tuple[list[Any], dict[str, Any]]:
    """Which images there are, and what decides over the part that validates."""
    source: Any = OmegaConf.to_container(config.data.source, resolve=True)
    identity = _IDENTITY.get(source["_target_"], ("root",))
    images = [source["_target_"], *(_where(key, source.get(key)) for key in identity)]
    cut = {f"data.source.{key}": value for key, value in source.items() if key not in (*identity, *_NO_CUT, "_target_")}
    return images, {"seed": config.seed, "data.val_fraction": config.data.val_fraction, **cut}


def _where(key: str, value: Any) -> Any:
    return Path(value).expanduser().resolve() if key == "root" and value is not None else value
