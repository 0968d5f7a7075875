"""Where scalars and figures go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import WandbLogger

from vitexp.errors import ConfigError
from vitexp.loggers import wandb_logger


def made(folder: Path, mode: str) -> WandbLogger:
    nothing: dict[str, Any] = {"entity": None, "group": None, "tags": ()}
    logger = wandb_logger(folder=folder, run_id="id", name="n", project="p", mode=mode, **nothing)
    assert isinstance(logger, WandbLogger)
    return logger


@pytest.mark.parametrize(
    ("mode", "environment", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "0" * 40}, "online"),
        ("auto", {"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline"}, "offline"),
        ("offline", {"WANDB_API_KEY": "0" * 40}, "offline"),
        ("online", {}, "online"),
    ],
)
def test_online_with_a_login_and_offline_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, environment: dict[str, str], expected: str
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # not that of whoever runs the tests
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert made(tmp_path, mode)._wandb_init["mode"] == expected


def test_refuses_another_mode(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auto, online or offline"):
        made(tmp_path, "sometimes")
