"""Compose configurations from conf/, and from folders that the user adds, outside Hydra's command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vitexp.config.conf import CONF
from vitexp.config.overrides import quoted
from vitexp.config.plain_errors import explain
from vitexp.errors import ConfigError


def compose(
    overrides: Sequence[str],
    *,
    config_name: str = "train",
    config_dir: Path | str | None = None,
    searchpath: Sequence[str] = (),
) -> DictConfig:
    """Return the configuration of `vitexp train OVERRIDES`, not yet checked and without Hydra's own node.

    config_dir: a folder of additional options, laid out like conf/; the same as `--config-dir`. searchpath: URLs of
    more such folders, see `user_searchpath`.

    Raises ConfigError if they cannot be composed.
    """
    if config_dir is not None and not Path(config_dir).expanduser().is_dir():
        raise ConfigError(f"config_dir={config_dir} is not a folder.")
    urls = [*searchpath, *([] if config_dir is None else [f"file://{Path(config_dir).expanduser().absolute()}"])]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra_compose(config_name, [*overrides, *searchpath_override(urls)])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides)) from error


def user_searchpath() -> list[str]:
    """Return URLs of the folders passed to the running Hydra command by --config-dir and hydra.searchpath."""
    return [
        f"{source.schema}://{source.path}"
        for source in HydraConfig.get().runtime.config_sources
        if source.provider not in ("hydra", "main", "schema")
    ]


def searchpath_override(urls: Sequence[str]) -> list[str]:
    """Return a list with the override that adds folders to a command; an empty list if there are none."""
    return [f"hydra.searchpath=[{','.join(map(quoted, urls))}]"] if urls else []
