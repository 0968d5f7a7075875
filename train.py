"""One training run.

    python train.py [key=value ...]           for example  data=gtsrb model=vit_tiny seed=1
    python train.py --help                    every key and every option

The configuration is composed from conf/train.yaml; what happens in a run is vitexp/run.py.
"""

import sys

import hydra
from omegaconf import DictConfig

from vitexp.checks import check
from vitexp.credentials import refuse_typed_secrets
from vitexp.errors import plain_errors
from vitexp.multirun import one_run, refuse_several_devices
from vitexp.resume import as_begun


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    with plain_errors():
        refuse_several_devices(config)
    with one_run():
        config = as_begun(config)
        check(config)
        from vitexp.run import run  # imports torch: only once the configuration stands

        run(config)


if __name__ == "__main__":
    with plain_errors():
        refuse_typed_secrets(sys.argv[1:])
        main()
