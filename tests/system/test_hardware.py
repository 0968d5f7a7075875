"""Which device is chosen, how float32 is multiplied there, and which GPU each of several jobs gets."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import composed
from vitexp.config import multirun
from vitexp.errors import ConfigError
from vitexp.system.hardware import choose_device, float32_matmul_precision


@pytest.mark.parametrize(
    ("cuda", "mps", "accelerator", "device"),
    [
        (True, False, "auto", "cuda"),
        (True, False, "gpu", "cuda"),
        (False, True, "auto", "mps"),
        (False, True, "gpu", "mps"),
        (False, True, "cuda", None),
        (False, False, "auto", "cpu"),
        (False, False, "gpu", None),
        (False, False, "mps", None),
        (True, True, "mps", "mps"),
        (True, False, "cpu", "cpu"),
    ],
)
def test_a_gpu_is_whatever_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, accelerator: str, device: str | None
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    if device is not None:
        assert choose_device(accelerator) == torch.device(device)
        return
    with pytest.raises(ConfigError, match=f"trainer.accelerator={accelerator}, but torch finds no such device"):
        choose_device(accelerator)


def test_tf32_is_for_cuda_and_only_inside() -> None:
    for device, inside in (("cuda", "high"), ("cpu", "highest"), ("mps", "highest")):
        with float32_matmul_precision("high", torch.device(device)):
            assert torch.get_float32_matmul_precision() == inside
        assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("launcher", "accelerator", "visible", "expected"),
    [
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "auto", "3,5,7", ["3", "5", "7", "3"]),
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "auto", "3", ["3"] * 4),
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "cpu", "3,5", ["3,5"] * 4),
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", "auto", "3,5", ["3,5"] * 4),
    ],
)
def test_jobs_that_run_together_share_the_gpus(
    monkeypatch: pytest.MonkeyPatch, launcher: str, accelerator: str, visible: str, expected: list[str]
) -> None:
    config = composed(f"trainer.accelerator={accelerator}")
    monkeypatch.setattr(multirun, "is_multirun", lambda: True)
    placed = []
    for number in range(4):
        hydra: Any = SimpleNamespace(launcher=SimpleNamespace(_target_=launcher), job=SimpleNamespace(num=number))
        monkeypatch.setattr(multirun.HydraConfig, "get", lambda hydra=hydra: hydra)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)  # as each new process finds it
        multirun.place_on_gpu(config)
        placed.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert placed == expected


def test_a_process_keeps_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = SimpleNamespace(_target_="hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher")
    monkeypatch.setattr(multirun, "is_multirun", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    for number in (1, 2, 4):
        hydra: Any = SimpleNamespace(launcher=launcher, job=SimpleNamespace(num=number))
        monkeypatch.setattr(multirun.HydraConfig, "get", lambda hydra=hydra: hydra)
        multirun.place_on_gpu(composed())
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
