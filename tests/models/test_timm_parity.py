"""With the plain options the model is timm's VisionTransformer: the same names, the same function, both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vitexp.models import ViT

timm_vit = pytest.importorskip("timm.models.vision_transformer")
timm_deit = pytest.importorskip("timm.models.deit")

MEAN = {"global_pool": "avg", "class_token": False}
PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"pool": "gap"}, MEAN),
    ({"qk_norm": True}, {"qk_norm": True}),
    ({"layer_scale": 0.1}, {"init_values": 0.1}),
    ({"registers": 2}, {"reg_tokens": 2}),
    (
        {"pool": "gap", "registers": 3, "qk_norm": True, "layer_scale": 0.5, "mlp_ratio": 2.0},
        {**MEAN, "reg_tokens": 3, "qk_norm": True, "init_values": 0.5, "mlp_ratio": 2.0},
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[str(ours) for ours, _ in PAIRS])
def test_weights_load_both_ways_and_logits_agree(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = ViT(image_size=32, num_classes=5, patch_size=8, dim=24, depth=2, num_heads=3, **ours).eval()
    reference = timm_vit.VisionTransformer(
        img_size=32, num_classes=5, patch_size=8, embed_dim=24, depth=2, num_heads=3, **theirs
    ).eval()
    x = torch.randn(3, 3, 32, 32)

    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    reference.load_state_dict(model.state_dict(), strict=True)
    torch.testing.assert_close(model(x), reference(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.forward_features(x), reference.forward_features(x), rtol=0, atol=1e-5)

    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.load_state_dict(reference.state_dict(), strict=True)
    torch.testing.assert_close(model(x), reference(x), rtol=0, atol=1e-5)


def test_with_a_distillation_token_it_matches_timms_distilled_model() -> None:
    shape = {"num_classes": 5, "patch_size": 8, "depth": 2, "num_heads": 3}
    model = ViT(image_size=32, dim=24, distillation_token=True, **shape).eval()  # type: ignore[arg-type]
    reference = timm_deit.VisionTransformerDistilled(img_size=32, embed_dim=24, **shape).eval()
    x = torch.randn(3, 3, 32, 32)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.load_state_dict(reference.state_dict(), strict=True)
    torch.testing.assert_close(model(x), reference(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.forward_features(x), reference.forward_features(x), rtol=0, atol=1e-5)
    reference.set_distilled_training()
    of_class, of_teacher = reference.train()(x)
    torch.testing.assert_close(model(x, separate=True), torch.stack([of_class, of_teacher]), rtol=0, atol=1e-5)
