"""Loading run folders: finished ones, those of earlier versions, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tests.conftest import tiny_run
from vitexp.errors import ConfigError, UserError
from vitexp.runs.find import newest_run, run_folder
from vitexp.runs.finished import load_run
from vitexp.runs.record import TRIAL_LOCK


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("runs"), "callbacks=none")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "wandb")))


def changed(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def without(folder: Path, *keys: str) -> None:
    """Remove keys from config.yaml, as if an earlier version had written it."""
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    for key in keys:
        *parents, last = key.split(".")
        node: Any = config
        for parent in parents:
            node = node[parent]
        del node[last]
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")


def test_network_has_the_saved_weights_in_evaluation_mode(folder: Path) -> None:
    run = load_run(folder)
    saved = load_file(folder / "model.safetensors")
    loaded = run.net.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert not any(module.training for module in run.net.modules())
    assert (len(run.classes), run.image_size, run.result["status"]) == (43, 32, "completed")


def test_images_are_normalized_as_in_training(folder: Path) -> None:
    run = load_run(folder)
    images = run.data.train.images(np.arange(len(run.data.train)))
    prepared = run.prepared(images)
    assert prepared.shape == (len(images), 3, 32, 32)
    torch.testing.assert_close(prepared.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(prepared.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_run_of_an_earlier_version_gets_new_defaults(folder: Path) -> None:
    before = load_run(folder)
    without(
        folder,
        *("data.on_broken", "data.resident", "training.patience", "trainer.precision", "checkpoint.every_n_steps"),
        *("seed", "trainer.compile", "data.cache_dir"),
    )
    run = load_run(folder)
    assert (run.config.data.on_broken, run.config.trainer.precision, run.config.seed) == ("refuse", "auto", 0)
    images = before.data.test.images(np.arange(8))
    assert np.array_equal(run.data.test.images(np.arange(8)), images)
    assert torch.equal(run.logits(images), before.logits(images))


def test_the_cache_of_this_machine_wins(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITEXP_CACHE", str(tmp_path / "mine"))
    assert load_run(folder).config.data.cache_dir == str(tmp_path / "mine")
    kept = load_run(folder)
    monkeypatch.delenv("VITEXP_CACHE")
    assert load_run(folder).config.data.cache_dir != kept.config.data.cache_dir


@pytest.mark.parametrize("missing", ["config.yaml", "result.json", "model.safetensors"])
def test_incomplete_folder_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(UserError, match=r"is not a finished run: .* are needed"):
        load_run(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "a: [b"),
        ("config.yaml", "a: ${nowhere"),
        ("result.json", "{"),
        ("result.json", "[1]"),
        ("model.safetensors", "no weights"),
    ],
)
def test_damaged_parts_are_refused(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(UserError, match="is not a finished run"):
        load_run(folder)


def test_config_of_another_program_is_refused(folder: Path) -> None:
    (folder / "config.yaml").write_text("answer: 42\n")
    with pytest.raises(UserError, match="is not the configuration of a run: model must be a mapping"):
        load_run(folder)


def test_interrupted_run_is_refused(folder: Path) -> None:
    changed(folder / "result.json", status="interrupted")
    with pytest.raises(UserError, match="is interrupted, not completed"):
        load_run(folder)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    config.model.depth = 3
    OmegaConf.save(config, folder / "config.yaml")
    with pytest.raises(UserError, match="do not fit the model"):
        load_run(folder)


def test_newest_run_was_completed_last(folder: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    for name, finished_at, status in (
        ("a/1", "2026-01-01T00:00:00+00:00", "completed"),
        ("paper/table1/2", "2026-03-01T00:00:00+00:00", "completed"),
        ("b/3", "2026-02-01T00:00:00+00:00", "completed"),
        ("c/4", "2026-05-01T00:00:00+00:00", "failed"),
        ("c/5", None, "running"),
    ):
        shutil.copytree(folder, logs / name)
        changed(logs / name / "result.json", finished_at=finished_at, status=status)
    (logs / "d" / "6").mkdir(parents=True)
    (logs / "d" / "6" / "result.json").write_text("{")
    assert newest_run(logs) == logs / "paper" / "table1" / "2"


def test_a_folder_of_runs_is_not_a_run_but_names_the_newest_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "logs" / "a" / "1")
    with pytest.raises(ConfigError, match=r"run=.*a is a folder of runs; the newest finished one is run=.*a/1"):
        run_folder(str(tmp_path / "logs" / "a"))
    for typed in (tmp_path / "logs", folder):  # only the folder of a name is likely to be meant as a run
        assert run_folder(str(typed)) == typed


def test_a_trial_is_the_newest_run_only_if_there_is_no_other(folder: Path, tmp_path: Path) -> None:
    trial, run = tmp_path / "logs" / "grid" / "0", tmp_path / "logs" / "a" / "1"
    shutil.copytree(folder, trial)
    (trial / TRIAL_LOCK).touch()
    assert newest_run(tmp_path / "logs") == trial
    shutil.copytree(folder, run)
    record = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**record, "finished_at": "2020-01-01T00:00:00+00:00"}))
    assert newest_run(tmp_path / "logs") == run


def test_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no finished run under .*; the train command creates one"):
        newest_run(tmp_path)
