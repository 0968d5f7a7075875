"""Run a sweep: many training runs spread over all GPUs, and a table of their results.

    python sweep.py ablation=NAME [key=value ...]           rows of a table, from conf/ablation
    python sweep.py optim.lr=1e-4,3e-4,1e-3 seed=range(3)   a grid
    python sweep.py search=NAME [key=value ...]             each trial learns from earlier ones
    python sweep.py ablation=NAME show=true                 the table of the results so far

for example  ablation=augmentation data=gtsrb seed=range(5)

The same command resumes a sweep: it runs only the trials that are missing or failed. All other
keys are those of the trials: python train.py --help. --config-dir DIR adds a folder of
additional options, laid out like conf/.
"""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from vitexp.commands.words import help_requested, options_first
from vitexp.config.conf import CONF
from vitexp.config.overrides import config_dir_of
from vitexp.config.plain_errors import plain_errors
from vitexp.config.schema import SWEEP
from vitexp.config.secrets import refuse_typed_secrets
from vitexp.sweeps.search.study import SETTINGS
from vitexp.sweeps.sweep import own_arguments
from vitexp.sweeps.sweep import sweep as run_sweep


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="sweep")
def sweep(config: DictConfig) -> None:
    with plain_errors():
        run_sweep(config)


def main() -> None:
    with plain_errors():
        if not help_requested(sys.argv[1:], _help):
            sys.argv[1:] = options_first("sweep", sys.argv[1:], tuple(SWEEP))
            refuse_typed_secrets(sys.argv[1:])
            sys.argv[1:] = own_arguments(sys.argv[1:])
            sweep()


def _help() -> str:
    from vitexp.config.reference import Section, help_text, options_of_group, section_of_node

    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / "sweep.yaml"))
    engine: Any = OmegaConf.to_container(OmegaConf.load(CONF / "engine" / "ray.yaml"))
    search: Any = OmegaConf.to_container(OmegaConf.load(CONF / "search" / "recipe.yaml"))
    config_dir, _ = config_dir_of(sys.argv[1:])
    folders = [] if config_dir is None else [Path(config_dir).expanduser()]
    groups = {group: options_of_group(group, *folders, first="ray") for group in ("ablation", "search", "engine")}
    sections = [
        Section("sweep", "", SWEEP, values),
        section_of_node("engine", engine),
        Section("search", "search.", SETTINGS, search),
    ]
    return help_text(__doc__, groups=groups, sections=sections)


if __name__ == "__main__":
    main()
