"""conf/wandb_sweep.yaml, with the code of `wandb agent` itself and without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tests.conftest import CONF, TINY, composed
from vitexp.config.check import check
from vitexp.metrics import METRICS


def command_of(**sampled: Any) -> list[str]:
    """Return the command of the agent for `sampled`; fixed parameters have their values."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    config: Any = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
    fixed = {key: spec["value"] for key, spec in config["parameters"].items() if "value" in spec}
    assert set(sampled) <= set(config["parameters"])
    args = {key: {"value": value} for key, value in {**fixed, **sampled}.items()}
    words = create_sweep_command_args({"args": args})
    words |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [config["program"]]}
    command = create_sweep_command(config["command"])
    made: list[str] = []
    for part in command:
        match = re.fullmatch(r"\$\{(\w+)\}", part)
        made += words[match.group(1)] if match else [part]
    return made


def test_every_value_composes() -> None:
    config: Any = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
    assert config["metric"]["name"] in [f"val/{name}" for name in METRICS]
    space = {key: spec for key, spec in config["parameters"].items() if "value" not in spec}
    for end in (0, -1):
        values = {key: (spec.get("values") or [spec["min"], spec["max"]])[end] for key, spec in space.items()}
        command = command_of(**values)
        assert command[:3] == ["/usr/bin/env", "python", "train.py"]
        composed_now = composed(*command[3:])
        check(composed_now)
        for key, value in values.items():
            assert OmegaConf.select(composed_now, key) == value


@pytest.mark.slow
def test_the_command_runs(tmp_path: Path) -> None:
    command = command_of(**{"optim.lr": 0.0012, "training.mixup_alpha": 0.2})
    debug = ["trainer=debug", *(word for word in TINY if not word.startswith("trainer")), f"log_dir={tmp_path}"]
    agent = {"WANDB_SWEEP_ID": "thesweep", "WANDB_RUN_ID": "theagentsrun", "WANDB_DIR": str(tmp_path)}
    environment = {**os.environ, **agent, "WANDB_MODE": "offline"}
    words = [sys.executable if word == "python" else word for word in command]
    done = subprocess.run([*words, *debug], cwd=CONF.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = tmp_path.glob("*/*/result.json")
    assert json.loads(record.read_text())["status"] == "completed"
    assert list(tmp_path.rglob("*-theagentsrun"))  # the run that the server waits for, not one of our own
    assert "lr: 0.0012" in (record.parent / "config.yaml").read_text()
