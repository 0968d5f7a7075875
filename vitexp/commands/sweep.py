"""Run a sweep: many training runs spread over all GPUs, and a table of their results.

    python sweep.py ablation=NAME [key=value ...]           rows of a table, from conf/ablation
    python sweep.py optim.lr=1e-4,3e-4,1e-3 seed=0,1,2      a grid
    python sweep.py search=NAME [key=value ...]             each trial learns from earlier ones
    python sweep.py folds=5 [key=value ...]                 5-fold cross-validation
    python sweep.py ablation=NAME show=true                 the table of the results so far

for example  ablation=augmentation data=gtsrb seed=0,1,2

The same command resumes a sweep: it runs only the trials that are missing or failed. All other
keys are those of the trials: python train.py --help. --config-dir DIR adds a folder of
additional options, laid out like conf/.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from vitexp.commands.words import help_requested, options_first
from vitexp.config.components import Option
from vitexp.config.conf import CONF
from vitexp.config.overrides import config_dir_of
from vitexp.config.plain_errors import plain_errors
from vitexp.config.schema import SWEEP
from vitexp.config.secrets import refuse_typed_secrets
from vitexp.sweeps.grid import ABLATION, ROW
from vitexp.sweeps.search.study import RANGE, SETTINGS
from vitexp.sweeps.sweep import own_arguments
from vitexp.sweeps.sweep import sweep as run_sweep

if TYPE_CHECKING:
    from vitexp.config.reference import Section


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="sweep")
def sweep(config: DictConfig) -> None:
    with plain_errors():
        run_sweep(config)


def main() -> None:
    with plain_errors():
        if not help_requested(sys.argv[1:], _help):
            sys.argv[1:] = options_first("sweep", sys.argv[1:], (*SWEEP, "ablation", "search", "engine"))
            refuse_typed_secrets(sys.argv[1:])
            sys.argv[1:] = own_arguments(sys.argv[1:])
            sweep()


def described(*engines: str) -> list[Section]:
    """Return the keys of the sweep command and of `engines`, and of the files of conf/ablation/ and conf/search/."""
    from vitexp.config.reference import Section, section_of_node

    def node(path: str) -> Any:
        return OmegaConf.to_container(OmegaConf.load(CONF / path))

    def section(title: str, prefix: str, options: Mapping[str, Option]) -> Section:
        return Section(title, prefix, options, {key: option.default for key, option in options.items()})

    return [
        Section("sweep", "", SWEEP, node("sweep.yaml")),
        *(section_of_node("engine", node(f"engine/{name}.yaml")) for name in engines),
        section("ablation: a file in conf/ablation/", "ablation.", ABLATION),
        section("each row of ablation.rows", "", ROW),
        Section("search: a file in conf/search/", "search.", SETTINGS, node("search/recipe.yaml")),
        section("each range of search.space", "", RANGE),
    ]


def _help() -> str:
    from vitexp.config.reference import help_text, options_of_group

    config_dir, _ = config_dir_of(sys.argv[1:])
    folders = [] if config_dir is None else [Path(config_dir).expanduser()]
    groups = {group: options_of_group(group, *folders, first="ray") for group in ("ablation", "search", "engine")}
    return help_text(__doc__, groups=groups, sections=described("ray"))


if __name__ == "__main__":
    main()
