"""The results in recipes.md and in the experiments equal the records of runs."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import composed
from vitexp.sweeps.grid import plan

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / ".readme" / "results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_guide_and_experiments_say_what_the_records_say(results: ModuleType) -> None:
    for path, text in results.written().items():
        assert path.read_text() == text, f"run python .readme/results.py: {path.name} differs"


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_opens_with_its_command_and_composes(file: Path) -> None:
    head = file.read_text().partition("defaults:")[0]
    assert f"#   python train.py experiment={file.stem}" in head
    assert re.search(r"^# Reached: ", head, re.MULTILINE)
    assert composed(f"experiment={file.stem}").trainer.max_epochs != 1


def test_readme_repeats_only_recorded_results(results: ModuleType) -> None:
    repeated = re.findall(r"\d+\.\d+ ± \d+\.\d+%", (ROOT / "README.md").read_text())
    assert repeated and all(number in results.table() for number in repeated)


def test_experiments_that_were_not_run_share_one_line(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RECORDS", tmp_path)
    _, _, empty, line = results.table().splitlines()
    assert not empty and line.startswith("Not run yet: `cifar100_best`, ") and "`signs_zero_shot`" in line


def a_record() -> dict[str, Any]:
    return {
        "status": "completed",
        "overrides": ["experiment=gtsrb_clahe", "seed=3"],
        "seed": 3,
        "epochs": 80,
        "model": {"name": "vit_gtsrb", "parameters": 1000},
        "data": {"name": "gtsrb"},
        "timing": {"fit_s": 600.0},
        "environment": {"git_dirty": False, "hostname": "secret", "device": "a machine"},
    }


def test_a_record_without_its_machines_name(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RECORDS", tmp_path / "records")
    record = a_record()
    for seed, share in ((3, 0.98), (4, 0.99)):
        run = tmp_path / str(seed)
        (run / "evaluation" / "on-signs").mkdir(parents=True)
        record |= {"seed": seed, "metrics": {"test": {"accuracy": share}}}
        (run / "result.json").write_text(json.dumps(record))
        elsewhere = {"data": {"name": "signs"}, "metrics": {"accuracy": share / 2}}
        (run / "evaluation" / "on-signs" / "evaluation.json").write_text(json.dumps(elsewhere))
        if seed == 4:  # a row reports views only if all of its seeds have them
            views = {"views": ["as it is", "left"], "metrics": {"accuracy": 0.9}}
            (run / "evaluation" / "evaluation.json").write_text(json.dumps({"test_time_augmentation": views}))
        assert "secret" not in "".join(file.read_text() for file in results.add(run).iterdir())
    assert results.reached("gtsrb_clahe") == (
        "# Reached: vit_gtsrb on GTSRB 98.50 ± 0.71% (2 seeds) (80 epochs, 10 min, a machine); "
        "vit_gtsrb on drawn signs 49.25 ± 0.35% (2 seeds) (80 epochs, 10 min, a machine).\n"
    )
    alone = json.loads((tmp_path / "records" / "gtsrb_clahe" / "vit_gtsrb-gtsrb-80-4.json").read_text())
    assert results.accuracy([alone]) == "99.00%; 90.00% as the mean of 2 views"
    (run / "result.json").write_text(json.dumps(record | {"epochs": 200}))
    results.add(run)
    assert [epochs for _, _, epochs in results.records_of("gtsrb_clahe")] == [80, 200, 80, 200]
    for wrong, why in (
        ({"status": "failed"}, "not a completed run"),
        ({"overrides": ["data=gtsrb"]}, "not a run of an experiment"),
        ({"overrides": ["experiment=x", "data.root=/home"]}, "absolute paths"),
        ({"environment": {"git_dirty": True}}, "uncommitted"),
    ):
        (run / "result.json").write_text(json.dumps(record | wrong))
        with pytest.raises(ValueError, match=why):
            results.add(run)


def test_a_table_of_a_sweep_from_its_records_alone(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RECORDS", tmp_path)
    words = ["ablation=clahe", "data=gtsrb", "logger=csv"]
    ablation = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "ablation" / "clahe.yaml"))
    for trial in plan(tmp_path / "clahe", ablation=ablation, arguments=words[1:]).trials:
        accuracy = (0.98 if trial.row == "CLAHE" else 0.96) + trial.seed / 1000
        metrics = {"test": {"accuracy": accuracy}, "val": {"accuracy": accuracy}}
        record = a_record() | {"seed": trial.seed, "overrides": trial.overrides, "metrics": metrics}
        trial.folder.mkdir(parents=True)
        (trial.folder / "result.json").write_text(json.dumps(record))
    written = results.add_ablation(words, logs=tmp_path).read_text()
    assert "secret" not in written and str(tmp_path) not in written
    table = results.ablation_table("clahe")
    assert table.startswith("`python sweep.py ablation=clahe data=gtsrb logger=csv`, on a machine:\n")
    assert re.search(r"\| CLAHE \| 3 of 3 .* 98\.10 .* \+2\.00 ", table), table
