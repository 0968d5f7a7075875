"""A sweep: many training runs, spread over all GPUs, and the table they end in.

    python sweep.py ablation=NAME [key=value ...]          for example  ablation=augmentation data=gtsrb seed=range(5)
    python sweep.py optim.lr=1e-4,3e-4,1e-3 seed=range(3)  a grid of its own
    python sweep.py search=NAME [key=value ...]            values chosen one after the other, by those that did best
    python sweep.py ablation=NAME show=true                the table of what there is so far

Typed again it goes on: only what is missing or failed is run. Sweeps are configured by conf/sweep.yaml, their trials by
conf/train.yaml; what happens is vitexp/sweeps/sweep.py.
"""

import sys

import hydra
from omegaconf import DictConfig

from vitexp.credentials import refuse_typed_secrets
from vitexp.errors import plain_errors
from vitexp.sweeps.sweep import own_arguments, sweep


@hydra.main(version_base="1.3", config_path="conf", config_name="sweep")
def main(config: DictConfig) -> None:
    with plain_errors():
        sweep(config)


if __name__ == "__main__":
    with plain_errors():
        refuse_typed_secrets(sys.argv[1:])
        sys.argv[1:] = own_arguments(sys.argv[1:])
        main()
