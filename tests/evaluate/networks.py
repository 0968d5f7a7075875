"""Small untrained networks to export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.conftest import composed
from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.runs.build import build_net
from vitexp.runs.finished import FinishedRun

TINY_VIT = ["model=vit_tiny", "model.dim=16", "model.depth=2", "model.num_heads=2", "model.patch_size=8"]
TINY_SWIN = ["model=swin_tiny", "model.dim=8", "model.depths=[1,2]", "model.num_heads=[2,4]"]
TINY_PVT = ["model=pvt_tiny", "model.dims=[8,16]", "model.depths=[1,1]", "model.num_heads=[2,4]"]
TINY_PVT += ["model.reductions=[4,2]", "model.mlp_ratios=[2,2]"]
TINY_TIMM = ["model=timm", "model.timm_name=test_convnext"]


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def untrained(*overrides: str) -> FinishedRun:
    """A network as if from a run, with weights whose logits differ by more than rounding."""
    config = composed(*overrides)
    torch.manual_seed(0)
    net = build_net(config, num_classes=43).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return FinishedRun(
        folder=Path("nowhere"),
        config=config,
        result={},
        net=net,
        classes=list(GTSRB_CLASSES),
        image_size=32,
        mean=torch.tensor([0.3, 0.4, 0.5]),
        std=torch.tensor([0.2, 0.25, 0.3]),
    )
