"""Train, test and record one run.

    python train.py [key=value ...] [-m] [--config-dir DIR]

for example  data=gtsrb model=vit_tiny seed=1

-m starts one run per combination of comma-separated values (optim.lr=1e-3,3e-4). DIR is a folder
of additional options, laid out like conf/. --cfg job prints the configuration. --help describes the
configuration that the other arguments select.
"""

import sys
from functools import partial
from pathlib import Path

import hydra
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vitexp.commands.words import help_requested, options_first
from vitexp.config.check import check
from vitexp.config.conf import CONF
from vitexp.config.multirun import one_run, place_on_gpu, refuse_several_devices
from vitexp.config.overrides import config_dir_of, with_quoted_paths
from vitexp.config.plain_errors import plain_errors
from vitexp.config.renames import with_recorded_defaults
from vitexp.config.secrets import refuse_typed_secrets
from vitexp.runs.inputs import check_inputs
from vitexp.runs.resume import as_it_began, resumed
from vitexp.system.signals import Interrupted
from vitexp.system.terminal import say_loading, say_starting


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train(config: DictConfig) -> None:
    with plain_errors():
        refuse_several_devices(config)
        place_on_gpu(config)
    with one_run():
        command = HydraConfig.get()
        folders = [each.path for each in command.runtime.config_sources if each.provider == "command-line"]
        if command.job.config_name != "train" and any(Path(each, "result.json").is_file() for each in folders):
            # --config-dir RUN --config-name config; vitexp may have new keys since then
            config = with_recorded_defaults(config)
        config = resumed(config, command.overrides.task, partial(compose, command.job.config_name))
        check(config)
        config = as_it_began(config)
        check_inputs(config)
        say_loading()
        from vitexp.runs.run import run  # imports torch: only once the configuration is valid

        try:
            run(config)
        except Interrupted as interrupted:
            sys.exit(interrupted.exit_code)


def main() -> None:
    with plain_errors():
        if not help_requested(sys.argv[1:], _help):
            say_starting()
            words = options_first("train", sys.argv[1:])
            sys.argv[1:] = with_quoted_paths(words, is_sweep="-m" in words or "--multirun" in words)
            refuse_typed_secrets(sys.argv[1:])
            train()


def _help() -> str:
    from vitexp.config.reference import train_help

    config_dir, words = config_dir_of(sys.argv[1:])
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    return train_help(__doc__, overrides, config_dir=config_dir)


if __name__ == "__main__":
    main()
