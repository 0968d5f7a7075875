"""Distilled runs: their record, how they resume, and which teachers are refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tests.conftest import TINY, composed, result, tiny_run
from vitexp.errors import ConfigError
from vitexp.evaluate.export import refuse_impossible
from vitexp.explain.explainer import Explainer
from vitexp.models import ViT
from vitexp.runs.finished import load_run
from vitexp.runs.record import config_hash
from vitexp.runs.teacher import load_teacher
from vitexp.runs.test_set import open_test_set

SMALL = ("callbacks=none", "model=vit_tiny", "model.dim=16", "model.depth=2", "model.num_heads=2")
TOKEN = ("model.distillation_token=true", "model.pool=cls")
STUDENT_RUN = (
    *SMALL,
    *TOKEN,
    *("training.distillation=soft", "training.teacher_weight=0.3", "training.mixup_alpha=0.5"),
    *("training.ema_decay=0.9", "trainer.accumulate_grad_batches=2"),
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher with another width and image size than the student."""
    return tiny_run(tmp_path_factory.mktemp("teacher"), "callbacks=none", "model.dim=24", "data.image_size=24")


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("student"), *STUDENT_RUN, f"training.teacher={teacher}")


def test_record_names_the_teacher(teacher: Path, student: Path) -> None:
    info, origin = result(student)["model"]["teacher"], result(teacher)
    assert info == {
        "from": str(teacher),
        "run_id": origin["run_id"],
        "model": "vit_tiny",
        "test_accuracy": origin["metrics"]["test"]["accuracy"],
        "flops_per_image": origin["model"]["flops_per_image"],
        "sha256": hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest(),
    }
    log = (student / "train.log").read_text()
    [line] = [line for line in log.splitlines() if "teacher   vit_tiny of" in line]
    assert "MFLOPs per image; soft, 0.3 of the loss" in line
    net = load_run(student).net
    assert isinstance(net, ViT)
    assert set(load_file(student / "model.safetensors")) == set(net.state_dict())
    assert {"dist_token", "head_dist.weight"} <= set(net.state_dict())
    assert config_hash(composed(f"training.teacher={teacher}")) != config_hash(composed())


def test_finished_student_works_without_its_teacher(teacher: Path, student: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(student, alone)
    config = OmegaConf.load(alone / "config.yaml")
    config.training.teacher = "/nowhere"
    OmegaConf.save(config, alone / "config.yaml")
    run = load_run(alone)
    images = run.data.test.images(np.arange(3))
    explainer = Explainer(run)
    for method in explainer.methods:
        maps = explainer.maps(method, images, [0, 1, 2])
        assert np.isfinite(maps).all(), method
    measured, test_set = open_test_set(run, ["data.test_per_class=1"])
    assert measured.config.model.distillation_token and len(test_set.labels) == len(run.classes)
    with pytest.raises(Exception, match="timm's ViT is the same only with distillation_token=false"):
        refuse_impossible(run, ["timm"])


def test_resuming_needs_the_same_teacher(teacher: Path, student: Path, tmp_path: Path) -> None:
    mine, run = tmp_path / "teacher", tmp_path / "task" / "run"
    shutil.copytree(teacher, mine)
    weights = mine / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x17")
    shutil.copytree(student, run)
    longer = (*STUDENT_RUN, f"training.teacher={teacher}", "trainer.max_epochs=2", f"resume={run}")
    config = composed(*TINY, *longer)
    before = result(run)
    info = load_teacher(config, resumed=before)
    assert info is not None and info.info == before["model"]["teacher"]
    config.training.teacher = str(mine)
    with pytest.raises(ConfigError, match=r"has different weights \(SHA-256 .*\) than when this run started"):
        load_teacher(config, resumed=before)


def test_teacher_must_be_a_finished_run(teacher: Path, tmp_path: Path) -> None:
    for typed in (tmp_path, "~nobody/run", "x" * 1000):
        config = composed(*TINY)
        config.training.teacher = str(typed)
        with pytest.raises(ConfigError, match=r"^training\.teacher="):
            load_teacher(config, resumed=None)


def with_data(teacher: Path, folder: Path, *overrides: str) -> Path:
    """Return a copy of the teacher whose config.yaml has these overrides."""
    shutil.copytree(teacher, folder)
    config, changed = OmegaConf.load(folder / "config.yaml"), composed(*overrides, "data.image_size=24")
    config.seed, config.data = changed.seed, OmegaConf.create(OmegaConf.to_container(changed.data, resolve=True))
    OmegaConf.save(config, folder / "config.yaml")
    return folder


@pytest.mark.parametrize(
    ("its", "mine", "sentence"),
    [
        ([], [], None),
        ([], ["seed=1"], "with seed=0, and therefore"),
        ([], ["data.val_fraction=0.5"], "with data.val_fraction=0.1, and therefore"),
        (["data.batch_size=8", "data.test_per_class=3"], [], None),
        (["data.train_per_class=5"], [], "data.source.train_per_class=5"),
        (["data.draw_seed=7", "seed=1"], [], None),  # other images
        (["data=gtsrb", "data.root=a"], ["data=gtsrb", "data.root=b"], None),  # the same images elsewhere
        (["data=gtsrb", "data.train_set=online"], ["data=gtsrb", "data.train_set=full"], "train_set=online"),
        (["data=gtsrb", "seed=1"], ["data=signs"], None),
        (["data=folder", "data.root=a", "seed=1"], ["data=folder", "data.root=b"], None),
        (
            ["data=folder", "data.root=a", "data.split_seed=1"],
            ["data=folder", "data.root=a"],
            "data.source.split_seed=1",
        ),
    ],
)
def test_teacher_trained_on_validation_images_is_refused(
    teacher: Path, tmp_path: Path, its: list[str], mine: list[str], sentence: str | None
) -> None:
    copied = with_data(teacher, tmp_path / "copied", *its)
    config = composed(*mine, f"training.teacher={copied}")
    if sentence is None:
        assert load_teacher(config, resumed=None) is not None
        return
    with pytest.raises(ConfigError) as caught:
        load_teacher(config, resumed=None)
    assert sentence in str(caught.value)
    assert "train both on the same part of the data." in str(caught.value)


def test_other_classes_are_refused_before_images_are_read(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitexp.data.signs.source.Signs.classes", property(lambda self: [str(i) for i in range(43)]))
    monkeypatch.setattr("vitexp.data.datamodule.ImageDataModule.setup", lambda self: pytest.fail("images were read"))
    with pytest.raises(ConfigError, match=r"has a class .* where this data set has '0'"):
        tiny_run(tmp_path, *SMALL, f"training.teacher={teacher}")


def test_differently_prepared_images_are_reported(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_teacher(composed(*TINY, f"training.teacher={teacher}"), resumed=None)
    assert not caplog.records
    copied = with_data(teacher, tmp_path / "copied", "data.prepare=[]")
    load_teacher(composed(f"training.teacher={copied}"), resumed=None)
    assert "prepared differently" in caplog.text
