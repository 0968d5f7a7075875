"""An evaluation reproduces the metrics of the run, on any copy of its data, and does not change the run."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import CONF, result
from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.data.signs.source import DrawSign
from vitexp.errors import ConfigError, UserError
from vitexp.evaluate.evaluation import evaluate

WRITTEN = (
    *("evaluation.json", "evaluation.html", "predictions.csv", "per_class.csv", "per_class.md", "confusions.csv"),
    *("confusion_matrix.png", "calibration.png", "confident_mistakes.png"),
)
TEST_IMAGES = 2 * 43  # of TINY


@pytest.fixture(scope="module")
def own(finished: Path) -> dict[str, Any]:
    """The evaluation on the run's own test set."""
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in finished.iterdir() if path.is_file()}
    results = evaluate(finished)
    after = {path: hashlib.sha256(path.read_bytes()).digest() for path in finished.iterdir() if path.is_file()}
    assert before == after
    return results


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same test images as files: in folders named after the classes, and in folders named by class number."""
    root = tmp_path_factory.mktemp("folders")
    draw = DrawSign(split="test", size=48, seed=0)
    for index in range(TEST_IMAGES):
        label = index % 43
        for kind, name in (("named", GTSRB_CLASSES[label].upper()), ("numbered", f"{label:05d}")):
            for part in ("train", "test"):
                folder = root / kind / part / name
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw(index)).save(folder / f"{index}.png")
    return root


def test_the_metrics_equal_those_of_the_run(own: dict[str, Any], finished: Path) -> None:
    recorded, metrics = result(finished)["metrics"]["test"], dict(own["metrics"])
    assert metrics.pop("loss") == pytest.approx(recorded.pop("loss"), abs=1e-6)  # a sum in another order
    assert metrics == recorded
    assert own["data"] == {
        "name": "signs",
        "images": TEST_IMAGES,
        "of_the_run": True,
        "classes": 43,
        "fingerprint": result(finished)["data"]["fingerprints"]["test"],
        "evaluated": "the run's own test split",
        "matching": "43 of the network's 43, matched by name",
    }


def test_all_files_are_written(own: dict[str, Any], finished: Path) -> None:
    folder = finished / "evaluation"
    written = {path.name for path in folder.iterdir()}
    assert written == set(WRITTEN)
    results = json.loads((folder / "evaluation.json").read_text())
    assert results["environment"]["device"]
    assert results["seconds"] > 0
    with open(folder / "per_class.csv") as file:
        rows = list(csv.DictReader(file))
    right = sum(int(row["correct"]) for row in rows)
    assert right / TEST_IMAGES == pytest.approx(results["metrics"]["accuracy"])
    with open(folder / "predictions.csv") as file:
        predictions = list(csv.DictReader(file))
    assert sum(row["true"] == row["predicted"] for row in predictions) == right and len(predictions) == TEST_IMAGES
    with open(folder / "confusions.csv") as file:
        assert right + sum(int(row["count"]) for row in csv.DictReader(file)) == TEST_IMAGES


@pytest.mark.parametrize("kind", ["named", "numbered"])
def test_the_same_images_in_a_folder_give_the_same_metrics(
    own: dict[str, Any], finished: Path, folders: Path, kind: str, tmp_path: Path
) -> None:
    """The classes are in another order there, and have names in capitals or numbers."""
    typed = ("data=folder", f"data.root={folders / kind}", f"data.name={kind}")
    results = evaluate(finished, data=typed, out=tmp_path)
    assert (results["data"]["name"], results["data"]["images"]) == (kind, TEST_IMAGES)
    assert not results["data"]["of_the_run"] and results["data"]["evaluated"].endswith("/test; not evaluated: train")
    recorded = result(finished)["metrics"]["test"]
    for name, value in results["metrics"].items():
        assert value == pytest.approx(recorded[name], abs=2e-3), name  # in other batches
    assert results["calibration"]["fitted_on"]["name"] == "signs"
    assert "result_json" not in results
    assert not (tmp_path / "model.onnx").exists()


def test_other_signs_are_not_the_test_set_of_the_run(own: dict[str, Any], finished: Path, tmp_path: Path) -> None:
    results = evaluate(finished, data=("data.test_per_class=1", "data.draw_seed=7"), out=tmp_path)
    assert results["data"]["images"] == 43
    assert not results["data"]["of_the_run"]
    # fitted on the run's own validation images, so other test images do not matter
    assert results["metrics"]["loss"] != own["metrics"]["loss"]
    assert results["calibration"]["temperature"] == own["calibration"]["temperature"]


def test_no_temperature_is_fitted_without_the_data_of_the_run(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("evaluation"))
    config = OmegaConf.load(folder / "config.yaml")
    config.data.source = {"_target_": "vitexp.data.folder.Folder", "root": str(tmp_path / "gone")}
    OmegaConf.save(config, folder / "config.yaml")
    with pytest.raises(UserError, match="does not exist"):
        evaluate(folder)
    results = evaluate(folder, data=("data=signs", "data.test_per_class=2", "data.train_per_class=4"))
    assert results["calibration"]["temperature"] is None
    assert any("no temperature was fitted" in note for note in results["notes"])
    recorded = result(finished)["metrics"]["test"]
    assert results["metrics"]["accuracy"] == recorded["accuracy"]
    assert (folder / "evaluation" / "on-signs" / "evaluation.json").exists()


def test_earlier_results_are_kept(own: dict[str, Any], finished: Path, tmp_path: Path) -> None:
    """This applies only to results of the same network and images."""
    first = evaluate(finished, out=tmp_path, tta=True)
    again = evaluate(finished, out=tmp_path)
    assert again["test_time_augmentation"] == first["test_time_augmentation"]
    other = evaluate(finished, out=tmp_path, data=["data.test_per_class=1"])
    assert "test_time_augmentation" not in other
    assert own["largest_difference_to_result_json"] < 1e-6


def test_other_classes_are_refused(finished: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(tmp_path / part / name / "1.png")
    for name, given in ((tmp_path.name, ()), ("mine", ("data.name=mine",))):
        with pytest.raises(UserError, match=f"does not know 2 of the 2 classes of {name} \\('cat', 'dog'"):
            evaluate(finished, data=("data=folder", f"data.root={tmp_path}", *given))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("data.image_size=64", "the network takes images of 32 pixels"),
        ("data.nonsense=1", "there is no key 'data.nonsense'"),
        ("data.test_per_class=some", "data.test_per_class=some must be an integer"),
    ],
)
def test_wrong_data_keys_are_refused(finished: Path, typed: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate(finished, data=(typed,))


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs=nowhere"],
        pytest.param(["run=nowhere"], marks=pytest.mark.slow),
        pytest.param(["data=gtsbr", "run=RUN"], marks=pytest.mark.slow),
    ],
)
def test_wrong_arguments_are_one_sentence_and_exit_code_2(finished: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "vitexp", "evaluate", *(each.replace("RUN", str(finished)) for each in arguments)]
    done = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("vitexp: ")
    assert done.stderr.count("\n") == 1
