"""Compose a configuration of conf/ from overrides, outside of Hydra's command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from vitexp.config.conf import CONF


def compose(
    overrides: Sequence[str], *, config_name: str = "train", config_dir: Path | str | None = None
) -> DictConfig:
    """Return the configuration of `vitexp train OVERRIDES`, not yet checked and without Hydra's own node.

    config_dir: a folder of further options, laid out like conf/, as `--config-dir` names it.
    """
    search = [] if config_dir is None else [f'hydra.searchpath=["file://{Path(config_dir).expanduser().absolute()}"]']
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(config_name, [*overrides, *search])
