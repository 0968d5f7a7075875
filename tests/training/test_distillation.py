"""Learning from a teacher: the losses of DeiT, what the teacher sees, and runs that have one."""

from __future__ import annotations

import copy
import hashlib
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from tests.conftest import TINY, composed, result, tiny_run
from vitexp.errors import ConfigError
from vitexp.evaluate.export_timm import refuse_unknown_to_timm
from vitexp.evaluate.test_set import open_test_set
from vitexp.explanations.explainer import Explainer
from vitexp.finished_run import load_run
from vitexp.models import ViT
from vitexp.records import config_hash
from vitexp.teacher import load_teacher
from vitexp.trained_net import TrainedNet
from vitexp.training.distillation import Distillation, Kind
from vitexp.training.mixing import Mixing
from vitexp.training.module import Classifier
from vitexp.training.schedule import Constant


class Recorder(nn.Module):
    """Logits of one linear layer, and every batch that it was given."""

    def __init__(self, *, pixels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * pixels**2, classes)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.linear(images.flatten(1))  # type: ignore[no-any-return]


def trained(net: nn.Module, *, pixels: int = 4, mean: float = 0.0, std: float = 1.0) -> TrainedNet:
    return TrainedNet(
        net=net, classes=["a", "b", "c"], image_size=pixels, mean=torch.full((3,), mean), std=torch.full((3,), std)
    )


class Fixed(nn.Module):
    """The same logits whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


STUDENT, TEACHER = [[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]], [[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]]


def of_teacher(kind: Kind, *, weight: float | None = None, temperature: float = 3.0) -> tuple[Tensor, Tensor]:
    """The loss, where that of the labels is 5, and the student's logits."""
    distillation = Distillation(
        teacher=trained(Fixed(torch.tensor(TEACHER))), kind=kind, weight=weight, temperature=temperature
    )
    logits = torch.tensor(STUDENT, requires_grad=True)
    return distillation(torch.tensor(5.0), logits, torch.zeros(2, 3, 4, 4)), logits


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(each / temperature) for each in logits]
    return [each / sum(powers) for each in powers]


def test_the_hard_loss_is_half_that_of_the_labels_and_half_that_of_the_teachers_choice() -> None:
    chosen = [-math.log(softmax(STUDENT[0])[0]), -math.log(softmax(STUDENT[1])[1])]  # the largest of TEACHER
    assert of_teacher("hard")[0].item() == pytest.approx(0.5 * 5 + 0.5 * sum(chosen) / 2)


@pytest.mark.parametrize("temperature", [3.0, 1.0])
def test_the_soft_loss_is_the_divergence_at_a_temperature_times_its_square(temperature: float) -> None:
    divergence = 0.0
    for student, teacher in zip(STUDENT, TEACHER, strict=True):
        pairs = zip(softmax(student, temperature), softmax(teacher, temperature), strict=True)
        divergence += sum(theirs * math.log(theirs / mine) for mine, theirs in pairs) / 2
    made = of_teacher("soft", temperature=temperature)[0].item()
    assert made == pytest.approx(0.9 * 5 + 0.1 * temperature**2 * divergence)
    made = of_teacher("soft", weight=1.0, temperature=temperature)[0].item()
    assert made == pytest.approx(temperature**2 * divergence, rel=1e-4)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_student_gets_a_gradient_and_the_teacher_none(kind: Kind) -> None:
    teacher = Fixed(torch.tensor(TEACHER))
    distillation = Distillation(teacher=trained(teacher), kind=kind, weight=None, temperature=3.0)
    logits = torch.tensor(STUDENT, requires_grad=True)
    distillation(torch.tensor(5.0), logits, torch.zeros(2, 3, 4, 4)).backward()
    assert logits.grad is not None and logits.grad.abs().min() > 0
    assert teacher.logits.grad is None and not teacher.logits.requires_grad


# ---- the training step


MEAN, STD = 0.25, 0.5  # of the student


def classifier(net: nn.Module, teacher: nn.Module, **options: Any) -> Classifier:
    return Classifier(
        net=net,
        num_classes=3,
        augment=nn.Identity(),
        mixing=Mixing(num_classes=3, mixup_alpha=1.0, cutmix_alpha=1.0),
        optimizer=partial(SGD, lr=0.1),
        schedule=Constant(warmup_epochs=0),
        seed=0,
        label_smoothing=0.0,
        mean=np.full(3, MEAN, np.float32),
        std=np.full(3, STD, np.float32),
        distillation=Distillation(
            teacher=trained(teacher, mean=0.5, std=0.1, **options), kind="hard", weight=None, temperature=3.0
        ),
    )


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen.append(float(outputs["loss"]))


def fit(module: Classifier) -> list[float]:
    losses = Losses()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[losses],
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 8, 8, 3), generator=generator, dtype=torch.uint8)
    trainer.fit(module, DataLoader([(images, torch.tensor([0, 1, 2] * 2))] * 3, batch_size=None))  # type: ignore[arg-type]
    return losses.seen


def test_the_teacher_sees_the_very_images_of_the_student_mixed_and_normalized_as_its_own() -> None:
    student, teacher = Recorder(pixels=8, classes=3), Recorder(pixels=8, classes=3)
    fit(classifier(student, teacher, pixels=8))
    assert len(teacher.seen) == len(student.seen) == 3
    for mine, theirs in zip(student.seen, teacher.seen, strict=True):
        torch.testing.assert_close((mine * STD + MEAN - 0.5) / 0.1, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.equal(student.seen[0], student.seen[1])  # each batch is mixed otherwise


def test_a_teacher_of_another_size_sees_them_at_its_own() -> None:
    teacher = Recorder(pixels=5, classes=3)
    fit(classifier(Recorder(pixels=8, classes=3), teacher, pixels=5))
    assert [tuple(images.shape) for images in teacher.seen] == [(6, 3, 5, 5)] * 3


def test_nobody_but_the_loss_knows_the_teacher() -> None:
    teacher = Recorder(pixels=8, classes=3).train()
    before = copy.deepcopy(teacher.state_dict())
    module = classifier(Recorder(pixels=8, classes=3), teacher, pixels=8)
    assert [name for name, _ in module.named_parameters()] == ["net.linear.weight", "net.linear.bias"]
    assert set(module.state_dict()) == {"net.linear.weight", "net.linear.bias"}
    assert module.distillation is not None
    assert copy.deepcopy(module).distillation is module.distillation  # as the averaging of weights makes one
    fit(module)
    assert not teacher.training and all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_the_labels_teach_the_class_token_and_the_teacher_the_distillation_token() -> None:
    torch.manual_seed(0)
    net = ViT(
        image_size=8, num_classes=3, patch_size=4, dim=8, depth=1, num_heads=1, distillation_token=True, init="mimetic"
    )
    teacher = Recorder(pixels=8, classes=3)
    module = classifier(net, teacher, pixels=8)
    images, targets = torch.randn(6, 3, 8, 8), torch.eye(3).repeat(2, 1)
    logits, loss = module._learn(images, targets)
    of_class, of_teacher = net(images, separate=True)
    choice = teacher((images * STD + MEAN - 0.5) / 0.1).argmax(dim=1)
    cross_entropy = nn.functional.cross_entropy
    torch.testing.assert_close(loss, 0.5 * cross_entropy(of_class, targets) + 0.5 * cross_entropy(of_teacher, choice))
    torch.testing.assert_close(logits, net.eval()(images))


# ---- runs


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
    """Of another size, and for images of another size."""
    return tiny_run(tmp_path_factory.mktemp("teacher"), "callbacks=none", "model.dim=24", "data.image_size=24")


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("student"), *STUDENT_RUN, f"training.teacher={teacher}")


def test_a_run_says_who_taught_it_and_keeps_none_of_it(teacher: Path, student: Path) -> None:
    told, origin = result(student)["model"]["teacher"], result(teacher)
    assert told == {
        "from": str(teacher),
        "run_id": origin["run_id"],
        "model": "vit_tiny",
        "test_accuracy": origin["metrics"]["test"]["accuracy"],
        "flops_per_image": origin["model"]["flops_per_image"],
        "sha256": hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest(),
    }
    log = (student / "train.log").read_text()
    [line] = [line for line in log.splitlines() if "teacher   vit_tiny of" in line]
    assert "MFLOPs an image; soft, 0.3 of the loss" in line
    net = load_run(student).net
    assert isinstance(net, ViT)
    assert set(load_file(student / "model.safetensors")) == set(net.state_dict())
    assert {"dist_token", "head_dist.weight"} <= set(net.state_dict())
    assert config_hash(composed(f"training.teacher={teacher}")) != config_hash(composed())


def test_the_finished_student_needs_no_teacher_and_is_explained(teacher: Path, student: Path, tmp_path: Path) -> None:
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
    with pytest.raises(Exception, match="timm's ViT has no distillation_token=True"):
        refuse_unknown_to_timm(run)


def test_a_run_goes_on_with_its_teacher_and_with_no_other(teacher: Path, student: Path, tmp_path: Path) -> None:
    mine, begun = tmp_path / "teacher", tmp_path / "task" / "run"
    shutil.copytree(teacher, mine)
    weights = mine / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x17")
    shutil.copytree(student, begun)
    longer = (*STUDENT_RUN, f"training.teacher={teacher}", "trainer.max_epochs=2", f"resume={begun}")
    config = composed(*TINY, *longer)
    going_on = result(begun)
    told = load_teacher(config, going_on=going_on)
    assert told is not None and told.told == going_on["model"]["teacher"]
    config.training.teacher = str(mine)
    with pytest.raises(ConfigError, match=r"holds other weights \(SHA-256 .*\) than those that this run began with"):
        load_teacher(config, going_on=going_on)


def test_what_is_no_finished_run_cannot_teach(teacher: Path, tmp_path: Path) -> None:
    for typed in (tmp_path, "~nobody/run", "x" * 1000):
        config = composed(*TINY)
        config.training.teacher = str(typed)
        with pytest.raises(ConfigError, match=r"^training\.teacher="):
            load_teacher(config, going_on=None)


def with_data(teacher: Path, folder: Path, *overrides: str) -> Path:
    """A copy of the teacher that says it was trained with these."""
    shutil.copytree(teacher, folder)
    config, said = OmegaConf.load(folder / "config.yaml"), composed(*overrides, "data.image_size=24")
    config.seed, config.data = said.seed, OmegaConf.create(OmegaConf.to_container(said.data, resolve=True))
    OmegaConf.save(config, folder / "config.yaml")
    return folder


@pytest.mark.parametrize(
    ("its", "mine", "told"),
    [
        ([], [], None),
        ([], ["seed=1"], "with seed=0 and so"),
        ([], ["data.val_fraction=0.5"], "with data.val_fraction=0.1 and so"),
        (["data.batch_size=8", "data.test_per_class=3"], [], None),
        (["data.train_per_class=5"], [], "data.source.train_per_class=5"),
        (["data.draw_seed=7", "seed=1"], [], None),  # other pictures
        (["data=gtsrb", "data.root=a"], ["data=gtsrb", "data.root=b"], None),  # the same images elsewhere
        (["data=gtsrb", "data.train_set=online"], ["data=gtsrb", "data.train_set=full"], "train_set=online"),
        (["data=gtsrb", "seed=1"], ["data=signs"], None),
        (["data=folder", "data.root=a", "seed=1"], ["data=folder", "data.root=b"], None),
        (["data=folder", "data.root=a", "data.split_seed=1"], ["data=folder", "data.root=a"], "data.source.seed=1"),
    ],
)
def test_a_teacher_may_not_have_learned_what_validates_the_student(
    teacher: Path, tmp_path: Path, its: list[str], mine: list[str], told: str | None
) -> None:
    copied = with_data(teacher, tmp_path / "copied", *its)
    config = composed(*mine, f"training.teacher={copied}")
    if told is None:
        assert load_teacher(config, going_on=None) is not None
        return
    with pytest.raises(ConfigError) as caught:
        load_teacher(config, going_on=None)
    assert told in str(caught.value)
    assert "train teacher and student on the same part of the data." in str(caught.value)


def test_other_classes_are_refused_before_images_are_read(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitexp.data.signs.source.Signs.classes", property(lambda self: [str(i) for i in range(43)]))
    monkeypatch.setattr("vitexp.data.datamodule.ImageDataModule.setup", lambda self: pytest.fail("images were read"))
    with pytest.raises(ConfigError, match=r"knows a class .* where these data have '0'"):
        tiny_run(tmp_path, *SMALL, f"training.teacher={teacher}")


def test_a_teacher_of_images_that_were_prepared_otherwise_is_told(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_teacher(composed(*TINY, f"training.teacher={teacher}"), going_on=None)
    assert not caplog.records
    copied = with_data(teacher, tmp_path / "copied", "data.prepare=[]")
    load_teacher(composed(f"training.teacher={copied}"), going_on=None)
    assert "prepared otherwise" in caplog.text
