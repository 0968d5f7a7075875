"""Decide whether a W&B run goes online. Imports no torch, because sweeps use it too."""

from __future__ import annotations

import os
from typing import Literal

from vitexp.errors import ConfigError

_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")


def refuse_unknown_mode() -> None:
    """Raise ConfigError if the variable WANDB_MODE has a value that W&B does not know."""
    if (mode := os.environ.get("WANDB_MODE", "online")) not in _MODES:
        raise ConfigError(f"the environment variable WANDB_MODE={mode} must be one of {', '.join(_MODES)}.")


def resolve_wandb_mode(mode: str) -> Literal["online", "offline"]:
    """Return "online" or "offline"; "auto": online if there is a login."""
    if mode != "auto":
        return "offline" if mode == "offline" else "online"
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return "offline"
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    import wandb

    return "online" if wandb.login(prompt=False) else "offline"
