"""Measure how fast this machine trains, and where the time goes.

    vitexp bench [what=all|step|loader|train|memory|start] [peers=true] [key=value ...]

for example  what=step peers=true model=vit_small trainer=gpu trainer.compile=on

Prints one table per subject, and writes all numbers as JSON. The other keys are those of a
training run: python train.py --help.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vitexp.commands.words import help_requested, options_first
from vitexp.config.check import check
from vitexp.config.components import facts
from vitexp.config.compose import plain_of, searchpath_override, user_searchpath
from vitexp.config.conf import CONF
from vitexp.config.overrides import key_of, with_quoted_paths
from vitexp.config.plain_errors import plain_errors
from vitexp.config.schema import BENCH
from vitexp.errors import ConfigError
from vitexp.runs.inputs import check_files
from vitexp.system.terminal import plain_console

if TYPE_CHECKING:
    from vitexp.bench.report import Subject


def main() -> None:
    with plain_errors():
        if not help_requested(sys.argv[1:], _help):
            sys.argv[1:] = with_quoted_paths(options_first("bench", sys.argv[1:], tuple(BENCH)))
            run_bench()


def _help() -> str:
    from vitexp.config.reference import Section, help_text

    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / "bench.yaml"))
    return help_text(str(__doc__), groups={}, sections=[Section("bench", "", BENCH, values)])


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="bench")
def run_bench(config: DictConfig) -> None:
    with plain_errors():
        check(config, own_keys=BENCH)
        check_bench(config)
        check_files(plain_of(config))
        hydra_config = HydraConfig.get()
        typed, model = list(hydra_config.overrides.task), hydra_config.runtime.choices["model"]
        if ignored := [word for word in typed if re.match(r"[+~]*loss\b", word)]:
            raise ConfigError(f"{ignored[0]} has no effect: the cross-entropy is benchmarked; drop it.")
        bench(config, overrides=typed, model=model, searchpath=user_searchpath())


def check_bench(config: DictConfig) -> None:
    """Raise ConfigError for a configuration that cannot be benchmarked."""
    if not facts(config.task).get("has_predictions", True):
        raise ConfigError("only classification can be benchmarked; drop task=.")
    for key in ("devices", "accumulate_grad_batches"):
        if config.trainer[key] != 1:
            raise ConfigError(f"trainer.{key}={config.trainer[key]} is not benchmarked; use 1.")


def bench(config: DictConfig, *, overrides: Sequence[str], model: str, searchpath: Sequence[str] = ()) -> None:
    """Run the benchmarks that the checked `config` requests; print the tables and write the JSON file.

    overrides: as typed. model: the selected option of the group. searchpath: URLs of folders with additional options.
    Benchmarks that start training processes pass these on.
    """

    from vitexp.bench.loader import measure_loader
    from vitexp.bench.memory import measure_memory
    from vitexp.bench.start import measure_start
    from vitexp.bench.step import measure_step
    from vitexp.bench.train import measure_train
    from vitexp.system.hardware import choose_device, float32_matmul_precision

    for_train = [f"model={model}", f"data.batch_size={config.data.batch_size}", *searchpath_override(searchpath)]
    for_train += [each for each in overrides if key_of(each) not in (*BENCH, "model")]
    subjects: dict[str, Callable[[], Subject]] = {
        "step": lambda: measure_step(config),
        "loader": lambda: measure_loader(config),
        "train": lambda: measure_train(config),
        "memory": lambda: measure_memory(config, for_train),
        "start": lambda: measure_start(for_train, starts=config.starts),
    }
    console, path = plain_console(), Path(config.output).expanduser()
    device = choose_device(config.trainer.accelerator)
    info: dict[str, Any] = {"what": config.what, "overrides": list(overrides), **_circumstances(config)}
    info["subjects"] = {}
    console.print(f"{info['environment']['device']}, torch {info['environment']['torch']}, {info['precision']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in subjects if config.what == "all" else (config.what,):
        with float32_matmul_precision(config.trainer.float32_matmul_precision, device):
            subject = subjects[name]()
        console.print(subject.as_table())
        info["subjects"][name] = subject.as_json()
        # After each, because the next one may fail.
        path.write_text(json.dumps(info, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    console.print(f"numbers   {path}", soft_wrap=True, highlight=False)


def _circumstances(config: DictConfig) -> dict[str, Any]:
    """Return a description of the machine, the code and the settings."""
    import torch

    from vitexp.runs.record import environment
    from vitexp.system import hardware

    device = hardware.choose_device(config.trainer.accelerator)
    if device.type == "cpu":
        hardware.keep_freed_memory()  # as in a run; peers benefit as well
    return {
        "environment": {**environment(), "device": hardware.describe_device(device), "device_count": 1},
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": config.trainer.float32_matmul_precision,
        "precision": str(hardware.resolve_precision(config.trainer.precision, device)),
        "compiled": hardware.resolve_compile(config.trainer.compile, device),
        "model": config.model.name,
        "data": config.data.name,
        "image_size": config.data.image_size,
        "batch_size": config.data.batch_size,
    }


if __name__ == "__main__":
    main()
