"""The configuration of other data for a finished run: data=OPTION and data.KEY=VALUE. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vitexp.config.check import check
from vitexp.config.components import component
from vitexp.config.compose import compose
from vitexp.config.overrides import with_quoted_paths
from vitexp.errors import ConfigError

# Other data are prepared as in training.
_OF_THE_RUN = ("image_size", "prepare", "batch_size", "val_fraction", "folds", "fold")


def data_config(
    run: DictConfig, typed: Sequence[str], *, image_size: int, config_dir: Path | str | None = None
) -> DictConfig:
    """Return the configuration of a run with the data that the overrides `typed` select.

    image_size: what its network takes. config_dir: a folder of additional options. Raises ConfigError.
    """
    if not typed:
        return run
    keys = [override.partition("=")[0] for override in typed]
    full = compose(typed if "data" in keys else [], config_dir=config_dir)
    if "data" in keys:
        data = full.data
        kept = {key: run.data[key] for key in _OF_THE_RUN if f"data.{key}" not in keys}
        data = OmegaConf.merge(data, kept)
    else:
        data = _with_keys(run.data, typed)
    if data.image_size != image_size:
        raise ConfigError(f"data.image_size={data.image_size}, but the network takes images of {image_size} pixels.")
    _refuse_location_without_effect(data, keys)
    OmegaConf.set_struct(full, False)
    full.data, full.model = data, run.model
    full.training.teacher = run.training.teacher  # a distillation token requires one
    check(full)
    config = run.copy()
    config.data = OmegaConf.create(OmegaConf.to_container(full.data, resolve=True))
    return config


def _refuse_location_without_effect(data: DictConfig, keys: Sequence[str]) -> None:
    known = component(data.source._target_)
    for key in ("root", "download"):
        if f"data.{key}" in keys and known is not None and not known.is_open and key not in known.options:
            raise ConfigError(
                f"data.{key} has no effect because data={data.name} reads no files; data=folder data.root=PATH "
                "evaluates images in class folders."
            )


def _with_keys(data: DictConfig, typed: Sequence[str]) -> DictConfig:
    """Apply overrides to the data of a run and to its source, because config.yaml has no interpolations."""
    changed = OmegaConf.create()
    try:
        for override in OverridesParser.create().parse_overrides(with_quoted_paths(typed)):
            OmegaConf.update(changed, override.key_or_group, override.value())
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot read {' '.join(typed)}: write data.key=value.") from error
    if not isinstance(changed.get("data"), DictConfig):
        raise ConfigError(f"cannot read {' '.join(typed)}: write data=OPTION or data.key=value.")
    known = component(data.source._target_)
    options = data.source if known is None else known.options
    handed = {key: value for key, value in changed.data.items() if key in options}
    merged = OmegaConf.merge(data, {"source": handed}, changed.data)
    assert isinstance(merged, DictConfig)
    return merged
