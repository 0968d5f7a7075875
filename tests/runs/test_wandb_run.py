"""What a run tells W&B."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vitexp.runs.wandb_run import own_files


def test_only_classes_of_ones_own_are_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ones_own.py", "ones_package/__init__.py", "ones_package/net.py", "site-packages/installed.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("class Part: ...")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "site-packages"), *sys.path])
    parts = ("ones_own.Part", "ones_package.Part", "ones_package.net.Part", "installed.Part", "not_imported.Part")
    for part in parts[:-1]:
        monkeypatch.delitem(sys.modules, part.rpartition(".")[0], raising=False)
        __import__(part.rpartition(".")[0])
    optim = {"_target_": "torch.optim.AdamW", "inner": [{"_target_": part} for part in parts]}
    config = OmegaConf.create({"model": {"_target_": "vitexp.models.vit.ViT"}, "optim": optim, "seed": 0})
    assert own_files(config) == {
        "ones_own.py": tmp_path / "ones_own.py",
        "ones_package/__init__.py": tmp_path / "ones_package" / "__init__.py",
        "ones_package/net.py": tmp_path / "ones_package" / "net.py",
    }
