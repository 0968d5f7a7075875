"""Runs and a sweep of released versions, in tests/released/<date>/, are read, measured, explained and resumed today.

Their folders are never changed. A test that fails here after a default has changed asks for an entry in
`renames.FORMER_DEFAULTS`, so that earlier runs keep their meaning and their hashes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import composed, result
from tests.forked import Server
from vitexp.config.compose import plain_of
from vitexp.config.defaults import without_defaults
from vitexp.config.renames import read_config, upgrade_overrides
from vitexp.explain.explainer import Explainer
from vitexp.runs.finished import load_run
from vitexp.runs.record import config_hash
from vitexp.runs.resume import run_to_resume
from vitexp.sweeps.engines.trial import status
from vitexp.sweeps.grid import plan

RELEASED = Path(__file__).parents[1] / "released"
VERSIONS = sorted(folder.name for folder in RELEASED.iterdir())


@pytest.fixture(params=VERSIONS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of the run of a version, as logs/released/run."""
    copied = shutil.copytree(RELEASED / request.param / "run", tmp_path / "logs" / "released" / "run")
    return Path(copied)


def test_a_released_run_is_what_its_command_still_composes(run: Path) -> None:
    typed = upgrade_overrides(result(run)["overrides"])
    now = composed(*(word for word in typed if not word.startswith("run_id=")), f"log_dir={run.parents[1]}")
    now.resume = "auto"
    assert run_to_resume(now) == run


def test_a_released_run_is_measured_and_explained(run: Path) -> None:
    loaded = load_run(run)
    images = loaded.data.test
    predicted = loaded.all_logits(images).argmax(dim=1).numpy()
    assert np.mean(predicted == images.labels) == pytest.approx(loaded.result["metrics"]["test"]["accuracy"])
    explainer, first = Explainer(loaded), images.images(np.arange(2))
    for method in explainer.methods:
        maps = explainer.maps(method, first, [0, 1])
        assert len(maps) == 2
        assert np.isfinite(maps).all()


@pytest.mark.slow
def test_a_released_run_is_resumed(run: Path) -> None:
    before, log = result(run), run / "log"
    words = (f"resume={run}", "trainer.max_epochs=2", "callbacks=none")
    assert Server().train(log, *words) == 0, log.read_text()
    after = result(run)
    assert (after["status"], after["epochs"], after["steps"]) == ("completed", 2, 2 * before["steps"])


def test_no_hash_changes() -> None:
    """Trials of a released sweep are complete, and the hash of a run is the recorded one."""
    folder = RELEASED / "2026-11-26"
    record = result(folder / "run")
    assert config_hash(read_config(folder / "run" / "config.yaml")) == record["config_hash"]
    as_then = ("checkpoint.monitor=auto",)  # the default has changed since
    assert config_hash(composed(*record["overrides"], *as_then)) == record["config_hash"]
    given = ("name=", "log_dir=", "run_id=", "optim.lr=", "seed=", "resume=")
    [first, _] = [result(path) for path in sorted((folder / "sweep").iterdir())]
    words = ["checkpoint.monitor=auto", *(word for word in first["overrides"] if not word.startswith(given))]
    trials = plan(folder / "sweep", ablation=None, arguments=[*words, "optim.lr=0.001,0.002"]).trials
    assert [status(trial) for trial in trials] == ["completed", "completed"]


@pytest.mark.parametrize("version", [name for name in VERSIONS if (RELEASED / name / "options.json").exists()])
def test_no_default_changes_unnoticed(version: str) -> None:
    """options.json: each option of conf/, as it was composed, and what it contributed to the hash."""
    options: dict[str, Any] = json.loads((RELEASED / version / "options.json").read_text())
    for option, (plain, counted) in options.items():
        assert without_defaults(plain) == counted, option


def test_a_new_key_changes_no_hash() -> None:
    config, earlier = plain_of(composed()), plain_of(composed())
    for key in ("model.registers", "training.layer_decay", "data.sampler", "optim.eps", "loss.label_smoothing"):
        section, name = key.split(".")
        assert name in config[section], f"{key} is no key of the default configuration"
        del earlier[section][name]
    assert config_hash(earlier) == config_hash(config)
    config["trainer"]["limit_train_batches"] = 1  # one batch, not the fraction 1.0
    assert config_hash(earlier) != config_hash(config)
