"""onnxruntime and timm compute the same logits as torch from exported networks."""

from __future__ import annotations

import json
import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import save_file

from tests.evaluate.networks import TINY_PVT, TINY_SWIN, TINY_TIMM, TINY_VIT, images, untrained
from vitexp import errors
from vitexp.errors import UserError
from vitexp.evaluate import export
from vitexp.evaluate.evaluation import evaluate
from vitexp.evaluate.export import export_onnx
from vitexp.evaluate.timm_export import export_timm
from vitexp.models import PyramidVisionTransformer, SwinTransformer, ViT
from vitexp.runs.finished import FinishedRun, load_run

MODELS = {
    "vit_tiny": TINY_VIT,
    "conv": [*TINY_VIT, "model.stem=conv", "model.pool=gap"],
    "shifted": [*TINY_VIT, "model.stem=shifted", "model.pool=seqpool", "model.lsa=true", "model.head=mlp"],
    "simple_cnn": ["model=simple_cnn"],
    "swin": TINY_SWIN,
    "sl_swin": [*TINY_SWIN, "model.stem=shifted", "model.lsa=true"],
    "pvt": TINY_PVT,
    "timm": TINY_TIMM,
}
PLAIN = {
    "cls": [],
    "swin": TINY_SWIN,
    "pvt": TINY_PVT,
    "timm": TINY_TIMM,
    "timm_vit": ["model=timm", "model.timm_name=test_vit", "model.timm_kwargs={drop_path_rate:0.1}"],
    "gap": ["model.pool=gap", "model.qk_norm=true", "model.layer_scale=0.1"],
    "sincos": ["model.position_embedding=sincos", "model.registers=2", "model.mlp_ratio=2"],
    "nowhere": ["model.position_embedding=none"],
}


def float32(run: FinishedRun, pictures: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return run.net(run.prepared(pictures))  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", MODELS)
def test_onnxruntime_gives_the_same_logits_for_any_batch(model: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    run = untrained(*MODELS[model])
    result = export_onnx(run, tmp_path / "model.onnx", images=images(5))
    assert result["largest_difference"] < 1e-3
    assert result["same_predictions"] == result["images_compared"] == 5
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 3, 17):
        [logits] = session.run(None, {"images": images(count)})
        np.testing.assert_allclose(logits, float32(run, images(count)).numpy(), atol=1e-3, rtol=1e-3)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == run.classes
    assert [step["_target_"] for step in json.loads(facts["prepare"])][-1] == "albumentations.CLAHE"


def test_a_file_with_other_logits_is_removed(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(export, "ONNX_TOLERANCE", -1.0)
    with pytest.raises(UserError, match="differs from torch by"):
        export_onnx(load_run(finished), tmp_path / "model.onnx", images=images(3))
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> ModuleSpec | None:
        return None if name == "onnxruntime" else ModuleSpec(name, None)

    monkeypatch.setattr(errors, "find_spec", find_spec)
    with pytest.raises(UserError, match="export=onnx needs one more package: pip install onnxruntime"):
        export_onnx(load_run(finished), tmp_path / "model.onnx", images=images(3))


@pytest.mark.parametrize("model", PLAIN)
def test_timm_loads_the_folder_and_gives_the_same_logits(model: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    own = any(each.startswith("model=") for each in PLAIN[model])
    run = untrained(*(PLAIN[model] if own else [*TINY_VIT, *PLAIN[model]]))
    result = export_timm(run, tmp_path / "timm", images=images(4))
    assert result["images_compared"] == 4
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    with torch.no_grad():
        logits = theirs(run.prepared(images(6)))
    torch.testing.assert_close(logits, float32(run, images(6)), atol=1e-4, rtol=0)
    assert theirs.pretrained_cfg["mean"] == pytest.approx(run.mean.tolist())
    assert tuple(theirs.pretrained_cfg["input_size"]) == (3, 32, 32)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([*TINY_VIT, "model.stem=conv"], "timm's ViT is the same only with stem=patch"),
        ([*TINY_VIT, "model.pool=seqpool"], "the same only with pool=cls or pool=gap"),
        (["model=simple_cnn"], "simple_cnn is a SimpleCNN"),
        ([*TINY_SWIN, "model.stem=shifted"], "timm's Swin Transformer has no stem=shifted; only stem=patch"),
        ([*TINY_SWIN, "model.lsa=true"], "timm's Swin Transformer has no lsa=true"),
        ([*TINY_PVT, "model.patch_size=2"], "timm's PVT v2 has no patch_size=2; only patch_size=4"),
    ],
)
def test_networks_that_timm_does_not_have_are_refused(overrides: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        export_timm(untrained(*overrides), tmp_path / "timm", images=images(2))
    assert not (tmp_path / "timm").exists()


class Gated(ViT):
    """A ViT with one more weight."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor, *, separate: bool = False) -> torch.Tensor:
        return self.gate * super().forward(x, separate=separate)


def test_a_subclass_with_other_weights_is_not_exported_to_timm(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    run = untrained(*TINY_VIT, f"model._target_={Gated.__module__}.Gated")
    with pytest.raises(UserError, match=r"vit_tiny \(Gated\) is not a network of timm: its weights differ in gate\."):
        export_timm(run, tmp_path / "timm", images=images(2))
    assert not list(tmp_path.iterdir())


class BrightViT(ViT):
    """A network that computes something else from the same weights."""

    def forward(self, x: torch.Tensor, *, separate: bool = False) -> torch.Tensor:
        return super().forward(x + 0.1, separate=separate)


class BrightSwin(SwinTransformer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0.1)


class BrightPVT(PyramidVisionTransformer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0.1)


class NaNs(ViT):
    def forward(self, x: torch.Tensor, *, separate: bool = False) -> torch.Tensor:
        return super().forward(x, separate=separate) * float("nan")


class GatedSwin(SwinTransformer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = torch.nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(
    ("overrides", "net", "words"),
    [
        (TINY_VIT, BrightViT, r"\(BrightViT\) is not a network of timm: it differs from timm's by .* in a logit\."),
        (TINY_SWIN, BrightSwin, r"\(BrightSwin\) is not a network of timm: it differs"),
        (TINY_PVT, BrightPVT, r"\(BrightPVT\) is not a network of timm: it differs"),
        (TINY_VIT, NaNs, "by nan in a logit"),
        (TINY_SWIN, GatedSwin, r"\(GatedSwin\) is not a network of timm: its weights differ in gate"),
    ],
)
def test_a_subclass_that_computes_something_else_is_not_exported_to_timm(
    overrides: list[str], net: type, words: str, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    run = untrained(*overrides, f"model._target_={net.__module__}.{net.__name__}")
    with pytest.raises(UserError, match=words):
        export_timm(run, tmp_path / "timm", images=images(2))
    assert not list(tmp_path.iterdir())


def test_a_possible_export_is_written_next_to_an_impossible_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")

    def timm_config(net: ViT) -> None:
        raise ValueError("timm's ViT is another one.")

    monkeypatch.setattr(ViT, "timm_config", timm_config)
    result: dict[str, Any] = evaluate(finished, out=tmp_path, export=("timm", "onnx"))
    assert result["export"].keys() == {"onnx"}
    assert any(note.startswith("export=timm: timm's ViT is another one.") for note in result["notes"])
    with pytest.raises(UserError, match="export=timm"):
        evaluate(finished, out=tmp_path, export=("timm",))


def test_impossible_exports_are_refused_before_measuring(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("evaluation"))
    config = OmegaConf.load(folder / "config.yaml")
    config.model.lsa = True  # its temperatures are weights, so they are added
    OmegaConf.save(config, folder / "config.yaml")
    weights = load_run(finished).net.state_dict()
    scales = {f"blocks.{block}.attn.scale": torch.ones(2, 1, 1) for block in range(2)}
    with safe_open(finished / "model.safetensors", "pt") as file:
        save_file({**weights, **scales}, folder / "model.safetensors", metadata=file.metadata())
    with pytest.raises(UserError, match="timm's ViT is the same only with lsa=false"):
        evaluate(folder, export=("timm",))
    assert not (folder / "evaluation").exists()


def test_exports_are_part_of_an_evaluation(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("timm")
    result: dict[str, Any] = evaluate(finished, out=tmp_path, export=("onnx", "timm"), tta=True, latency=True)
    assert {path.name for path in (tmp_path / "timm").iterdir()} == {"config.json", "model.safetensors"}
    assert (tmp_path / "model.onnx").stat().st_size == result["export"]["onnx"]["bytes"]
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["export"].keys() == {"onnx", "timm"}
    assert [row["batch_size"] for row in written["latency"]] == [1, 8, 32, 128, 512]
    assert written["test_time_augmentation"]["metrics"].keys() == written["metrics"].keys()
