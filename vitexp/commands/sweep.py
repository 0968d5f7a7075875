"""A sweep: many training runs, spread over all GPUs, and the table of their results.

    python sweep.py ablation=NAME [key=value ...]          for example  ablation=augmentation data=gtsrb seed=range(5)
    python sweep.py optim.lr=1e-4,3e-4,1e-3 seed=range(3)  a grid
    python sweep.py search=NAME [key=value ...]            values chosen in turn, learning from earlier trials
    python sweep.py ablation=NAME show=true                the table of the results so far

The same command again resumes: only what is missing or failed is run. conf/sweep.yaml configures the sweep and
conf/train.yaml its trials; vitexp/sweeps/sweep.py runs it.
"""

import sys

import hydra
from omegaconf import DictConfig

from vitexp.config.conf import CONF
from vitexp.config.plain_errors import plain_errors
from vitexp.config.secrets import refuse_typed_secrets
from vitexp.sweeps.sweep import own_arguments
from vitexp.sweeps.sweep import sweep as run_sweep


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="sweep")
def sweep(config: DictConfig) -> None:
    with plain_errors():
        run_sweep(config)


def main() -> None:
    with plain_errors():
        refuse_typed_secrets(sys.argv[1:])
        sys.argv[1:] = own_arguments(sys.argv[1:])
        sweep()


if __name__ == "__main__":
    main()
