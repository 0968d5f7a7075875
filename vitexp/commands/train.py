"""One training run.

    python train.py [key=value ...]           for example  data=gtsrb model=vit_tiny seed=1
    python train.py --help                    every key and every option

The configuration is composed from conf/train.yaml; vitexp/runs/run.py runs it.
"""

import sys

import hydra
from omegaconf import DictConfig

from vitexp.config.check import check
from vitexp.config.conf import CONF
from vitexp.config.multirun import one_run, refuse_several_devices
from vitexp.config.plain_errors import plain_errors
from vitexp.config.secrets import refuse_typed_secrets
from vitexp.runs.resume import with_stored_overrides
from vitexp.system.signals import Interrupted


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train(config: DictConfig) -> None:
    with plain_errors():
        refuse_several_devices(config)
    with one_run():
        config = with_stored_overrides(config)
        check(config)
        from vitexp.runs.run import run  # imports torch: only once the configuration is valid

        try:
            run(config)
        except Interrupted as interrupted:
            sys.exit(interrupted.exit_code)


def main() -> None:
    with plain_errors():
        refuse_typed_secrets(sys.argv[1:])
        train()


if __name__ == "__main__":
    main()
