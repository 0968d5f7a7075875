"""python train.py -m: Hydra's own way to start several runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CONF, command, result, tiny_run


def multirun(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(folder, *overrides), "-m"], capture_output=True, text=True, check=False, timeout=300, cwd=folder
    )


def results(folder: Path) -> list[dict[str, object]]:
    return [result(path.parent) for path in sorted(folder.glob("signs-vit_tiny/*/result.json"))]


@pytest.mark.slow
def test_a_run_leaves_the_environment_as_it_was(tmp_path: Path) -> None:
    import vitexp.runs.run  # noqa: F401 - importing the libraries sets variables, too

    before = dict(os.environ)
    tiny_run(tmp_path, "logger=default")
    assert dict(os.environ) == before


@pytest.mark.slow
def test_one_failing_run_does_not_hide_the_rest_and_wandb_has_a_run_of_each(tmp_path: Path) -> None:
    diverging = ("optim.lr=1e-3,1e4,2e-3", "schedule.warmup_epochs=0", "trainer.log_every_n_steps=1")
    ended = multirun(tmp_path, *diverging, "logger=default", "callbacks=none")
    assert ended.returncode == 1
    assert sorted(str(told["status"]) for told in results(tmp_path)) == ["completed", "completed", "failed"]
    lines = [line for line in ended.stderr.splitlines() if line.startswith("vitexp: ")]
    assert "run 1 " in lines[0]
    assert "the loss has been NaN or infinite" in lines[0]
    assert lines[1:] == ["vitexp: some runs were not completed; their errors are printed above."]
    assert "Traceback" not in ended.stderr
    opened = {path.parents[1].name for path in tmp_path.glob("signs-vit_tiny/*/wandb/offline-run-*")}
    assert opened == {str(told["run_id"]) for told in results(tmp_path)}


@pytest.mark.parametrize("devices", ["2", "-1", "[0,1]"])
def test_several_devices_are_refused_with_the_line_that_works(tmp_path: Path, devices: str) -> None:
    ended = multirun(tmp_path, "seed=1,2", f"trainer.devices={devices}")
    assert ended.returncode == 2
    [sentence] = ended.stderr.splitlines()
    assert f"python {CONF.parent / 'sweep.py'} " in sentence
    assert "seed=1,2" in sentence
    assert " -m " not in sentence.partition("sweep.py")[2]
    assert not results(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers(tmp_path: Path, launcher: str) -> None:
    ended = multirun(tmp_path, f"hydra/launcher={launcher}", "seed=1,2", "callbacks=none")
    assert ended.returncode == 0, ended.stderr
    assert [(told["status"], told["seed"]) for told in results(tmp_path)] in (
        [("completed", 1), ("completed", 2)],
        [("completed", 2), ("completed", 1)],
    )
