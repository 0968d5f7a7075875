"""The rehearsal detects what it is for: one planted mistake of each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from tests.cuda.device import fake_gpu
from tests.cuda.rules import MixedDevices, ReadBack, WrongDtype
from tests.cuda.runs import rehearse
from tests.cuda.test_resume import STATEFUL, stopped
from vitexp.explain.explainer import Explainer, Images, Maps
from vitexp.runs.finished import load_run
from vitexp.training.callbacks.averaging import MovingAverage
from vitexp.training.classification import Classifier
from vitexp.training.lion import Lion
from vitexp.training.task import Batch, Task

Learn = Callable[[Classifier, Tensor, Tensor], tuple[Tensor, ...]]
learn: Learn = Classifier.learn
measure = Classifier.measure


def with_cpu_tensor(task: Classifier, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    return learn(task, images + torch.zeros(3, 1, 1), targets)


def with_item(task: Classifier, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    return learn(task, images / images.max().item(), targets)


def with_boolean_index(task: Classifier, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    bright = images.mean(dim=(1, 2, 3)) >= -9
    return learn(task, images[bright], targets[bright])


def with_copy_to_the_cpu(task: Classifier, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    return learn(task, images, targets.cpu().to(images.device))


def with_list(task: Classifier, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    return learn(task, images * torch.tensor([1.0, 1.0, 1.0], device=images.device).view(3, 1, 1), targets)


def with_loss_in_bf16(task: Classifier, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    loss, *sums = learn(task, images, targets)
    return loss.bfloat16(), *sums


def with_float32_product(task: Classifier, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    with torch.autocast("cuda", enabled=False):
        mixed = images.flatten(1) @ images.flatten(1).T
    return learn(task, images + 0 * mixed.sum(), targets)


MISTAKES: dict[Learn, type[Exception]] = {
    with_cpu_tensor: MixedDevices,
    with_item: ReadBack,
    with_boolean_index: ReadBack,
    with_copy_to_the_cpu: ReadBack,
    with_list: ReadBack,
    with_loss_in_bf16: WrongDtype,
    with_float32_product: WrongDtype,
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_in_a_training_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Learn) -> None:
    monkeypatch.setattr(Classifier, "learn", mistake)
    with pytest.raises(MISTAKES[mistake]):
        rehearse(tmp_path)


def test_in_a_validation_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(task: Classifier, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        assert labels.max().item() >= 0
        return measure(task, images, labels)

    monkeypatch.setattr(Classifier, "measure", read)
    with pytest.raises(ReadBack):
        rehearse(tmp_path)


def test_between_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(task: Classifier, batch: Batch, loader_index: int) -> Batch:
        assert batch[1].max().item() >= 0
        return batch

    monkeypatch.setattr(Classifier, "on_after_batch_transfer", read)
    with pytest.raises(ReadBack):
        rehearse(tmp_path)


def test_restored_tensor_stays_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(task: Task) -> None:
        if task._restored_sums is not None:
            task.train_sums = task._restored_sums

    made = stopped(tmp_path, *STATEFUL)
    monkeypatch.setattr(Classifier, "on_train_start", keep)
    with pytest.raises(MixedDevices):
        rehearse(tmp_path, *STATEFUL, f"resume={made}")


def test_teacher_stays_on_the_cpu(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "on_train_start", Task.on_train_start)
    with pytest.raises(MixedDevices):
        rehearse(tmp_path, f"training.teacher={finished}")


def test_averaging_that_reads_its_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitexp.runs.run.MovingAverage", lambda decay: WeightAveraging())
    with pytest.raises(ReadBack):
        rehearse(tmp_path, "training.ema_decay=0.9")


def test_average_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_cpu(decay: float) -> MovingAverage:
        average = MovingAverage(decay=decay)
        average._device = torch.device("cpu")
        return average

    monkeypatch.setattr("vitexp.runs.run.MovingAverage", on_cpu)
    with pytest.raises(MixedDevices):
        rehearse(tmp_path, "training.ema_decay=0.9")


def test_optimizer_state_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Lion.step

    def half(optimizer: Lion, closure: Any = None) -> Any:
        loss = step(optimizer, closure)
        for state in optimizer.state.values():
            state["momentum"] = state["momentum"].bfloat16()
        return loss

    monkeypatch.setattr(Lion, "step", half)
    with pytest.raises(WrongDtype, match=r"momentum of state 0 is torch\.bfloat16"):
        rehearse(tmp_path, "optim=lion")


def test_numpy_of_a_tensor_on_the_device(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_cpu(explainer: Explainer[Any], images: Images, classes: list[int]) -> Maps:
        return np.asarray(explainer.net(explainer.run.prepared(images)).detach().numpy())

    monkeypatch.setattr(Explainer, "_relevance", without_cpu)
    with fake_gpu():
        explainer = Explainer(load_run(finished, device="cuda"))
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            explainer.maps("relevance", np.zeros((1, 16, 16, 3), np.uint8), [0])


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": lambda cuda, cpu: cuda + cpu,
    "scalar": lambda cuda, cpu: cuda * cpu[0, 0],
    "scalar on the device": lambda cuda, cpu: cpu * cuda[0, 0],
    "in place": lambda cuda, cpu: cuda.add_(cpu),
    "in place of the CPU": lambda cuda, cpu: cpu.add_(cuda),
    "copy": lambda cuda, cpu: cuda.copy_(cpu),
    "product": lambda cuda, cpu: cuda @ cpu,
    "linear": lambda cuda, cpu: F.linear(cuda, cuda, cpu[0]),
    "concatenation": lambda cuda, cpu: torch.cat([cuda, cpu]),
    "where": lambda cuda, cpu: torch.where(cuda > 0, cuda, cpu[0, 0]),
    "condition": lambda cuda, cpu: torch.where(cpu > 0, cuda, cuda),
    "index of the CPU": lambda cuda, cpu: cuda[torch.tensor([0, 1])],
    "gather": lambda cuda, cpu: cuda.gather(0, torch.zeros(2, 2, dtype=torch.int64)),
    "assignment": lambda cuda, cpu: cuda.index_put_((torch.tensor([0, 1]),), cpu),
    "mean": lambda cuda, cpu: F.mse_loss(cuda, cpu),
    "normalization": lambda cuda, cpu: F.layer_norm(cuda, (2,), cpu[0], cpu[0]),
    "convolution": lambda cuda, cpu: F.conv1d(cuda[None], cpu[..., None]),
    "interpolation": lambda cuda, cpu: torch.lerp(cuda, cpu, 0.5),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_devices_mix_as_in_torch(operation: str) -> None:
    """FakeTensorMode knows the rules of torch, but no values and, without a GPU, no backward pass."""

    def is_refused() -> bool:
        cuda, cpu = torch.ones(2, 2, device="cuda"), torch.ones(2, 2)
        try:
            OPERATIONS[operation](cuda, cpu)
        except RuntimeError:
            return True
        return False

    with FakeTensorMode():
        expected = is_refused()
    with fake_gpu():
        assert is_refused() == expected


def test_what_torch_refuses_only_on_a_gpu() -> None:
    with fake_gpu():
        cuda, cpu = torch.ones(2, device="cuda"), torch.ones(2)
        with pytest.raises(MixedDevices):
            torch.stack([cuda[0], cpu[0]])
        with pytest.raises(MixedDevices):
            cpu[torch.tensor([0, 1], device="cuda")]
