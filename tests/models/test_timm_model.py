"""Networks of timm: what is refused, and how their published weights are used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import TINY, composed, result
from vitexp.config.check import check
from vitexp.errors import ConfigError
from vitexp.models import TimmModel
from vitexp.runs.build import build_net
from vitexp.runs.finished import load_run
from vitexp.runs.run import run
from vitexp.runs.tryout import try_out
from vitexp.runs.weights import normalization, starting_weights
from vitexp.training.parameter_groups import parameter_groups

timm = pytest.importorskip("timm")

CONVNEXT, VIT = "test_convnext", "test_vit"  # timm's own small networks for tests


def small(name: str = CONVNEXT, **options: Any) -> TimmModel:
    return TimmModel(image_size=32, num_classes=5, timm_name=name, **options)


@pytest.mark.parametrize("name", [CONVNEXT, VIT, "test_resnet"])
def test_it_is_timms_network(name: str) -> None:
    model = small(name).eval()
    size = {"img_size": 32} if name == VIT else {}
    reference = timm.create_model(name, num_classes=5, **size).eval()
    reference.load_state_dict(model.net.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), reference(images))


def test_arguments_of_the_network_are_passed_on() -> None:
    model = small(timm_kwargs={"drop_path_rate": 0.5})
    assert max(module.drop_prob for module in model.modules() if hasattr(module, "drop_prob")) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timm_name": "convnextv2_attoo"}, r"has no network 'convnextv2_attoo'; did you mean convnextv2_atto"),
        ({"timm_name": "1234567"}, r"has no network '1234567'; timm\.list_models\(\) lists all\."),
        ({"timm_name": "resnet18.unknown"}, r"has no weights 'resnet18\.unknown'; it has resnet18\.a1_in1k"),
        ({"timm_kwargs": {"drop_path_rat": 1}}, r"cannot be made with .*drop_path_rat.*; change timm_kwargs\."),
        ({"timm_kwargs": {"num_classes": 3}}, "contains 'num_classes', which vitexp sets; remove it"),
        ({"timm_kwargs": {"global_pool": ""}}, "is not a classifier of images; choose another network"),
        ({"timm_name": "inception_v3"}, r"inception_v3 does not take images of 32x32 pixels \(.*; use another"),
        ({"timm_name": VIT, "image_size": 33}, r"test_vit does not take images of 33x33 pixels|cannot be made with"),
    ],
)
def test_what_timm_does_not_have_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimmModel(**{"image_size": 32, "num_classes": 5, "timm_name": CONVNEXT, **options})


def test_layers_are_those_of_timm() -> None:
    model = small()
    groups = parameter_groups(model, layer_decay=0.5)
    scales = {name: group["lr_scale"] for group in groups for name, _ in group["params"]}
    assert scales.keys() == dict(model.named_parameters()).keys()
    assert scales["net.head.fc.weight"] == 1.0
    assert scales["net.stem.0.weight"] == min(scales.values())
    assert scales["net.stages.0.blocks.0.conv_dw.weight"] < scales["net.stages.3.blocks.0.conv_dw.weight"]


def test_recomputing_blocks_changes_nothing() -> None:
    torch.manual_seed(0)
    model, recomputing = small(VIT), small(VIT, gradient_checkpointing=True)
    recomputing.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    for each in (model, recomputing):
        each.train()(images).square().sum().backward()
    for mine, theirs in zip(model.parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_sizes_that_the_network_does_not_take_are_refused_before_training() -> None:
    tiny = [each for each in TINY if not each.startswith("model")]
    config = composed(*tiny, "model=timm", f"model.timm_name={VIT}", "training.image_sizes=[24,32]")
    check(config)
    with pytest.raises(ConfigError, match="failed on images of 24 pixels"):
        try_out(config)


# ---- published weights


class Hub:
    """Stands for timm with a network: its published weights are all 0.25, with a classifier of 1,000 classes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.create, self.downloads, self.error = timm.create_model, 0, None
        monkeypatch.setattr(timm, "create_model", self)

    def __call__(self, name: str, *, pretrained: bool, **arguments: Any) -> nn.Module:
        made = self.create(name, **arguments)
        if pretrained:
            self.downloads += 1
            if self.error is not None:
                raise self.error
            for parameter in made.parameters():
                nn.init.constant_(parameter, 0.25)
        return made  # type: ignore[no-any-return]


PRETRAINED = ("model=timm", f"model.timm_name={CONVNEXT}", "model.pretrained=true")


def test_published_weights_replace_all_but_the_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, config = Hub(monkeypatch), composed(*PRETRAINED)
    check(config)
    started = starting_weights(config)
    assert started is not None
    cfg = timm.get_pretrained_cfg(CONVNEXT)
    assert normalization("auto", started) == (cfg.mean, cfg.std)
    net = build_net(config, num_classes=7)
    assert hub.downloads == 0, "a network that is only built needs no download"
    head = net.net.head.fc.weight.clone()
    started.load_into(net, classes=["any"] * 7)
    assert torch.equal(net.net.head.fc.weight, head)
    assert bool((net.net.stem[0].weight == 0.25).all())
    assert started.info["from"] == f"timm {CONVNEXT}"
    assert len(started.info["sha256"]) == 64


def test_weights_that_cannot_be_loaded_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, config = Hub(monkeypatch), composed(*PRETRAINED)
    hub.error = OSError("no connection")
    with pytest.raises(ConfigError, match=r"cannot load the weights of test_convnext \(no connection\); check the net"):
        try_out(config, starting_weights(config))
    nothing = SimpleNamespace(has_weights=False, fixed_input_size=False)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: nothing)
    with pytest.raises(ConfigError, match=r"timm has no weights of test_convnext; use model\.pretrained=false\.$"):
        starting_weights(config)


def test_a_run_records_its_published_weights_and_resumes_without_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = Hub(monkeypatch)
    tiny = [each for each in TINY if not each.startswith("model")]
    options = [*tiny, *PRETRAINED, "logger=csv", "callbacks=none", f"log_dir={tmp_path}", "training.layer_decay=0.7"]
    run(composed(*options))
    [folder] = tmp_path.glob("*/*")
    assert folder.parent.name == f"signs-{CONVNEXT}"
    info = result(folder)["model"]["weights"]
    assert info["taken"] == info["of"] - 2
    hub.error = OSError("no connection")
    run(composed(*options, "trainer.max_epochs=2", f"resume={folder}"))
    assert (result(folder)["epochs"], result(folder)["model"]["weights"]) == (2, info)
    assert load_run(folder).mean.tolist() == pytest.approx(info["normalization"][0])
