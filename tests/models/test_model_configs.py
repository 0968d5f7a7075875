from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vitexp.models import PyramidVisionTransformer, SwinTransformer, ViT

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


def read(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose(f"model/{name}").model, resolve=True)
    assert isinstance(config, dict)
    assert config.pop("name") in (name, config.get("timm_name"))
    for key in ("weights", "pretrained"):  # the initial weights are not an argument of the net
        config.pop(key, None)
    return {str(key): value for key, value in config.items()}


def test_all_documented_models_exist() -> None:
    vits = {"vit_tiny", "vit_tiny_conv", "vit_small", "vit_base", "vit_gtsrb", "vit_patch8", "vit_b16"}
    assert set(NAMES) >= vits | {"swin_tiny", "pvt_tiny", "timm", "simple_cnn", "resnet18"}


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_built_from_its_file_and_runs(name: str) -> None:
    config = read(name)
    if name == "timm":
        pytest.importorskip("timm")
    if "depth" in config:
        config["depth"] = 1
    model = hydra.utils.instantiate(config, num_classes=7, image_size=32).eval()
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("name", NAMES)
def test_the_header_counts_the_parameters(name: str) -> None:
    header = (CONF / "model" / f"{name}.yaml").read_text()
    said = re.search(r"([\d,]+) parameters at (\d+)x", header)
    assert said is not None
    if name == "timm":
        pytest.importorskip("timm")
    with torch.device("meta"):
        model = hydra.utils.instantiate(read(name), num_classes=43, image_size=int(said[2]))
        parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == int(said[1].replace(",", ""))


def test_vit_tiny_lists_every_key_and_differs_from_the_code_only_where_stated() -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(ViT).parameters.items()
        if name not in ("image_size", "num_classes", "in_channels")
    }
    chosen = {"init": "mimetic"}  # measured to learn faster; the class has the usual default
    assert read("vit_tiny") == {"_target_": "vitexp.models.ViT", **defaults, **chosen}


@pytest.mark.parametrize(("name", "network"), [("swin_tiny", SwinTransformer), ("pvt_tiny", PyramidVisionTransformer)])
def test_networks_with_stages_list_every_key(name: str, network: type) -> None:
    defaults = {
        key: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for key, parameter in inspect.signature(network).parameters.items()
        if key not in ("image_size", "num_classes", "in_channels")
    }
    config = read(name)
    assert config.pop("_target_") == f"vitexp.models.{network.__name__}"
    assert config == {**defaults, "drop_path": 0.1}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vit_tiny", (192, 6, 3, 4)),
        ("vit_tiny_conv", (192, 6, 3, 4)),
        ("vit_small", (256, 7, 4, 4)),
        ("vit_base", (512, 8, 8, 4)),
        ("vit_gtsrb", (384, 10, 8, 4)),
        ("vit_patch8", (192, 6, 6, 8)),
        ("vit_b16", (768, 12, 12, 16)),
    ],
)
def test_sizes_are_as_documented(name: str, sizes: tuple[int, ...]) -> None:
    config = read(name)
    assert tuple(config[key] for key in ("dim", "depth", "num_heads", "patch_size")) == sizes
