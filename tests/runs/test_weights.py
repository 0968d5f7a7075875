"""Starting weights: read safely, refused in one sentence if they do not fit, and recorded."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from tests.conftest import TINY, composed, result, tiny_run
from vitexp.config.check import check
from vitexp.errors import ConfigError
from vitexp.evaluate.export import export_onnx, refuse_impossible
from vitexp.explain.explainer import Explainer
from vitexp.models import SwinTransformer
from vitexp.models.pretrained import load_pretrained
from vitexp.runs.build import build_net
from vitexp.runs.finished import load_run
from vitexp.runs.inputs import check_files
from vitexp.runs.published import NORMALIZATIONS, PUBLISHED
from vitexp.runs.record import config_hash
from vitexp.runs.run import run
from vitexp.runs.weights import normalization, read_weights, refuse_unknown_heads, starting_weights

pytest.importorskip("timm")

from tests.models.published import CLASSES, SMALL, as_google, of_timm, of_torchvision


def net_of(path: Path) -> torch.nn.Module:
    """Return a network of five classes with the weights of a file, including the head."""
    config = composed(*SMALL, f"model.weights={path}")
    started = starting_weights(config, resumed=None)
    assert started is not None
    started.classes = ["these"] * CLASSES
    net = build_net(config, num_classes=CLASSES)
    started.load_into(net, classes=["these"] * CLASSES)
    return net.eval()


def saved(folder: Path, kind: str) -> tuple[Path, torch.nn.Module]:
    """Return a file of weights as another library publishes it, and that library's network."""
    net = of_torchvision() if kind.startswith("torchvision") else of_timm()
    state, path = net.state_dict(), folder / f"weights{kind[kind.index('.') :]}"
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".npz":
        np.savez(path, **as_google(state))
    else:
        torch.save({"model": state, "epoch": 3} if kind.startswith("deit") else state, path)
    return path, net


@pytest.mark.parametrize(
    ("kind", "normalized"),
    [
        ("torchvision.pth", NORMALIZATIONS["imagenet"]),
        ("timm.pth", None),
        ("deit.pth", None),
        ("timm.bin", None),
        ("timm.safetensors", None),
        ("google.npz", NORMALIZATIONS["half"]),
    ],
)
def test_files_of_other_libraries(tmp_path: Path, kind: str, normalized: Any) -> None:
    path, reference = saved(tmp_path, kind)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net_of(path)(images), reference(images), rtol=0, atol=1e-5)
    read = read_weights(path, name="x")
    assert read.normalization == normalized
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_normalization_of_a_timm_model_folder(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, "timm.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}))
    assert read_weights(path, name="x").normalization == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


def test_no_code_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"blocks.0.norm1.weight": Bomb()}, "a.pth")
    Path("b.bin").write_bytes(pickle.dumps({"model": Bomb()}, protocol=2))
    np.savez("c.npz", cls=np.array([Bomb()], dtype=object))
    for name in ("a.pth", "b.bin", "c.npz"):
        with pytest.raises(ConfigError, match=rf"^model\.weights={name} cannot be read as weights: "):
            read_weights(Path(name), name=name)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.npz", "a.bin"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        read_weights(tmp_path / name, name="it")


def test_missing_files_and_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights=imagenet: there is no imagenet; did you mean imagenet1k"):
        starting_weights(composed("model.weights=imagenet"), resumed=None)
    for name in ("~nobody/at/all", "x" * 1000):
        with pytest.raises(ConfigError, match="there is no "):
            starting_weights(composed(f"model.weights='{name}'"), resumed=None)
    with pytest.raises(ConfigError, match=r"there is no .*model\.safetensors"):
        starting_weights(composed(f"model.weights='{tmp_path}'"), resumed=None)
    torch.save({"fc.weight": torch.zeros(2), "step": 3}, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=r"is not a network of vitexp, .*; it contains fc\.weight"):
        read_weights(tmp_path / "a.pth", name="it")
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        read_weights(tmp_path / "a.pth", name="it")


def test_number_of_heads_in_googles_arrays_must_agree(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, "google.npz")
    config = composed(*SMALL, "model.num_heads=4", f"model.weights={path}")
    started = starting_weights(config, resumed=None)
    assert started is not None
    with pytest.raises(ConfigError, match=r"does not fit: it needs model\.num_heads=3, but this model has 4\.$"):
        started.load_into(build_net(config, num_classes=2), classes=[])


def test_files_that_do_not_show_their_heads_need_the_number(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, "timm.safetensors")
    config = composed(*SMALL, f"model.weights={path}")

    def refuse(*overrides: str) -> None:
        refuse_unknown_heads(starting_weights(config), config, overrides)

    with pytest.raises(
        ConfigError, match=r"does not say how many attention heads its network has; give model\.num_heads"
    ):
        refuse()
    refuse(f"model.num_heads={config.model.num_heads}")
    (tmp_path / "config.json").write_text(json.dumps({"model_args": {"num_heads": config.model.num_heads + 1}}))
    refuse()
    with pytest.raises(ConfigError, match=rf"it needs model\.num_heads={config.model.num_heads + 1}"):
        starting_weights(config).load_into(build_net(config, num_classes=2), classes=[])  # type: ignore[union-attr]
    google, _ = saved(tmp_path, "google.npz")
    config = composed(*SMALL, f"model.weights={google}")
    refuse()


# ---- normalization


def test_automatic_normalization_is_that_of_the_weights(tmp_path: Path) -> None:
    google, timm = (read_weights(saved(tmp_path, kind)[0], name="it") for kind in ("google.npz", "timm.pth"))
    assert normalization("auto", google) == NORMALIZATIONS["half"]
    assert normalization("auto", None) is None
    assert normalization("train", google) is None
    assert normalization("imagenet", google) == NORMALIZATIONS["imagenet"]
    assert normalization("half", timm) == NORMALIZATIONS["half"]
    with pytest.raises(ConfigError, match=r"does not state its normalization; set data\.normalize=half"):
        normalization("auto", timm)


# ---- runs


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("first"), "callbacks=none", "model.dim=24", "model.num_heads=3")


OURS = ("callbacks=none", "model.dim=24", "model.num_heads=3")


def test_run_of_the_same_classes_keeps_its_head(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The learning rate is almost 0, so that the final weights are those it started from.
    again = tiny_run(tmp_path, *OURS, f"model.weights={first}", "optim.lr=1e-12", "schedule.min_lr=0")
    before, after = (load_file(folder / "model.safetensors") for folder in (first, again))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-7)
    info = result(again)["model"]["weights"]
    assert (info["taken"], info["new"], info["unused"], info["grids"]) == (info["of"], [], [], None)
    assert info["sha256"] == hashlib.sha256((first / "model.safetensors").read_bytes()).hexdigest()
    assert info["from"] == str(first)
    assert f"weights   {info['taken']} of {info['of']} tensors from" in (again / "train.log").read_text()
    assert OmegaConf.load(again / "config.yaml").model.weights == str(first)
    assert result(again)["config_hash"] != result(first)["config_hash"]


def test_run_of_other_classes_and_size_keeps_the_normalization(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(first, source, ignore=shutil.ignore_patterns("checkpoints"))
    monkeypatch.setattr("vitexp.data.signs.source.Signs.classes", property(lambda self: [str(i) for i in range(43)]))
    options = (*OURS, f"model.weights={source}", "data.image_size=16", "model.upsample=48")
    run = tiny_run(tmp_path / "logs", *options, "training.layer_decay=0.5")
    info = result(run)["model"]["weights"]
    assert (info["new"], info["unused"], info["grids"]) == (["head"], ["head"], [4, 6])
    assert info["taken"] == info["of"] - 2
    log = (run / "train.log").read_text()
    assert "positions from 4 x 4 to 6 x 6; new: head" in log
    assert "images enlarged to 48 pixels" in log

    # A finished run no longer needs its starting weights.
    shutil.rmtree(source)
    finished, origin = load_run(run), load_run(first)
    assert torch.equal(finished.mean, origin.mean)
    assert torch.equal(finished.std, origin.std)
    images = finished.data.test.images(np.arange(4))
    assert finished.logits(images).shape == (4, 43)
    explainer = Explainer(finished)
    assert explainer.as_cut(images).shape == (4, 48, 48, 3)
    for method in explainer.methods:
        assert np.isfinite(explainer.maps(method, images, [0, 1, 2, 3])).all()
    assert export_onnx(finished, tmp_path / "net.onnx", images=images)["same_predictions"] == 4
    with pytest.raises(Exception, match="timm's ViT is the same only with upsample=null"):
        refuse_impossible(finished, ["timm"])

    # Resuming does not need them either.
    longer = (*options, "training.layer_decay=0.5", "trainer.max_epochs=2", f"resume={run}")
    with pytest.raises(ValueError, match="not enough values to unpack"):  # tiny_run finds no new folder
        tiny_run(tmp_path / "logs", *longer)
    assert result(run)["epochs"] == 2
    assert result(run)["model"]["weights"] == info
    assert torch.equal(load_run(run).mean, origin.mean)


def test_weights_of_another_model_are_refused_before_reading_data(first: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not fit: it needs model\.depth=2, but this model has 3\.$"):
        tiny_run(tmp_path, *OURS, f"model.weights={first}", "model.depth=3", "data.cache_dir=/nowhere")


def test_weights_trained_on_validation_images_are_refused(first: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model\.weights=.* was trained with seed=0, and therefore on"):
        tiny_run(tmp_path, *OURS, f"model.weights={first}", "seed=1", "data.cache_dir=/nowhere")
    starting_weights(composed("data=gtsrb", f"model.weights={first}", "seed=1"), resumed=None)  # other images


def test_only_a_vit_starts_from_weights() -> None:
    with pytest.raises(ConfigError, match=r"no key 'model\.weights' of vitexp\.models\.SimpleCNN"):
        check(composed("model=simple_cnn", "+model.weights=x"))
    assert config_hash(composed("model.weights=x")) != config_hash(composed())


# ---- networks with stages

WINDOWS = ("model=swin_tiny", "model.dim=12", "model.depths=[1,2]", "model.num_heads=[2,4]")
PYRAMID = ("model=pvt_tiny", "model.dims=[8,16]", "model.depths=[1,2]", "model.num_heads=[2,4]")
PYRAMID = (*PYRAMID, "model.reductions=[2,1]", "model.mlp_ratios=[2,2]")


def of_stages(model: tuple[str, ...]) -> torch.nn.Module:
    """Return timm's network with the sizes of `model`."""
    config: Any = SimpleNamespace(**OmegaConf.to_container(composed(*model).model))  # type: ignore[arg-type]
    common = {"num_classes": CLASSES, "depths": config.depths, "num_heads": config.num_heads}
    if model is WINDOWS:
        timm = pytest.importorskip("timm.models.swin_transformer")
        sizes = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": config.dim, "mlp_ratio": 2.0}
        return timm.SwinTransformer(**common, **sizes).eval()
    timm = pytest.importorskip("timm.models.pvt_v2")
    sizes = {"embed_dims": config.dims, "sr_ratios": config.reductions, "mlp_ratios": config.mlp_ratios}
    return timm.PyramidVisionTransformerV2(**common, **sizes).eval()


@pytest.mark.parametrize("model", [WINDOWS, PYRAMID], ids=["swin", "pvt"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_of_timms_networks_with_stages(model: tuple[str, ...], suffix: str, tmp_path: Path) -> None:
    reference = of_stages(model)
    path = tmp_path / f"weights.{suffix}"
    save_file(reference.state_dict(), path) if suffix == "safetensors" else torch.save(reference.state_dict(), path)
    config = composed(*model, f"model.weights={path}")
    check(config)
    check_files(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    started = starting_weights(config)
    assert started is not None
    if model is PYRAMID:
        with pytest.raises(ConfigError, match="does not say how many attention heads"):
            refuse_unknown_heads(started, config, [])
    else:
        refuse_unknown_heads(started, config, [])
    started.classes = ["these"] * CLASSES
    net = build_net(config, num_classes=CLASSES)
    started.load_into(net, classes=["these"] * CLASSES)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(images), reference(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "other", "message"),
    [
        (WINDOWS, ("model.dim=24",), r"it needs model\.dim=12, but this model has 24\.$"),
        (WINDOWS, ("model.depths=[1,3]",), r"it needs model\.depths=\[1,2\], but this model has \[1,3\]\.$"),
        (WINDOWS, ("model.num_heads=[2,2]",), r"it needs model\.num_heads=\[2,4\]"),
        (WINDOWS, ("model.lsa=true",), r"it needs model\.lsa=false"),
        (WINDOWS, ("model.stem=shifted",), r"it needs model\.stem=patch"),
        (WINDOWS, ("model.patch_size=4",), r"it needs model\.patch_size=2"),
        (PYRAMID, ("model.reductions=[1,1]",), r"it needs model\.reductions=\[2,1\]"),
        (PYRAMID, ("model.mlp_ratios=[2,3]",), r"it needs model\.mlp_ratios=\[2,2\], but this model has \[2,3\]"),
        (PYRAMID, WINDOWS, r"it is a PVT v2, but this model is a Swin Transformer\.$"),
        (WINDOWS, PYRAMID, r"it is a Swin Transformer, but this model is a PVT v2\.$"),
        (WINDOWS, ("model=vit_tiny",), r"it is a Swin Transformer, but this model is a ViT\.$"),
    ],
)
def test_weights_of_other_stages_are_refused(
    model: tuple[str, ...], other: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    """The header of a file tells before torch is imported; the tensors tell for other files."""
    reference = of_stages(model)
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    mine = other if other[0].startswith("model=") else (*model, *other)
    for name in ("weights.safetensors", "weights.pth"):
        config = composed(*mine, f"model.weights={tmp_path / name}")
        early = name.endswith("safetensors")
        with pytest.raises(ConfigError, match=message):
            check_files(OmegaConf.to_container(config, resolve=True)) if early else load(config)  # type: ignore[arg-type]


def load(config: DictConfig) -> None:
    """Load the starting weights into the network of a configuration."""
    started = starting_weights(config)
    assert started is not None
    started.load_into(build_net(config, num_classes=2), classes=[])


def test_windows_of_another_size_resize_the_biases() -> None:
    def built(size: int, window: int) -> SwinTransformer:
        sizes: dict[str, Any] = {"dim": 8, "depths": (2,), "num_heads": (2,)}
        return SwinTransformer(image_size=size, num_classes=3, window_size=window, **sizes).eval()

    large, images = built(16, 4), torch.randn(2, 3, 4, 4)
    small = built(4, 4)  # its map has 2 x 2 patches
    loaded = load_pretrained(small, large.state_dict(), keep_head=True, known={})
    assert loaded.taken == loaded.of
    torch.testing.assert_close(small(images), large(images))
    wide = built(16, 8)
    constant = large.state_dict()
    constant |= {name: torch.ones_like(each) for name, each in constant.items() if name.endswith("_table")}
    load_pretrained(wide, constant, keep_head=True, known={})
    table = wide.layers[0].blocks[0].attn.relative_position_bias_table
    torch.testing.assert_close(table, torch.ones(15**2, 2))


@pytest.mark.parametrize("model", [WINDOWS, pytest.param(PYRAMID, marks=pytest.mark.slow)], ids=["swin", "pvt"])
def test_a_run_with_stages_starts_from_another_and_resumes(model: tuple[str, ...], tmp_path: Path) -> None:
    tiny = tuple(each for each in TINY if not each.startswith("model"))
    common = [*tiny, *model, "logger=csv", "callbacks=none", "training.layer_decay=0.5", f"log_dir={tmp_path}"]
    run(composed(*common, "run_id=first"))
    common += [f"model.weights={tmp_path}/signs-{composed(*model).model.name}/first", "optim=muon"]
    run(composed(*common, "run_id=second"))
    [second] = tmp_path.glob("*/second")
    info = result(second)["model"]["weights"]
    assert (info["taken"], info["new"]) == (info["of"], [])
    run(composed(*common, "trainer.max_epochs=2", f"resume={second}"))
    assert result(second)["epochs"] == 2
    finished = load_run(second)
    assert finished.logits(finished.data.test.images(np.arange(4))).shape == (4, 43)


# ---- the recipes


def test_the_recipes_compose_and_pass_the_checks() -> None:
    check(tuned := composed("experiment=cifar10_finetune"))
    assert (tuned.data.image_size, tuned.model.upsample, tuned.augment.crop_padding) == (32, 224, 4)
    entry = PUBLISHED["imagenet21k"][tuned.model.dim, tuned.model.depth, tuned.model.patch_size]
    assert entry.num_heads == tuned.model.num_heads
    check(transfer := composed("experiment=signs_to_gtsrb"))
    with pytest.raises(ConfigError, match=r"model\.weights=logs/drawn/signs: there is no "):
        starting_weights(transfer, resumed=None)
