"""Decide whether a W&B run goes online. Imports no torch, because sweeps use it too."""

from __future__ import annotations

import os
from typing import Literal


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
