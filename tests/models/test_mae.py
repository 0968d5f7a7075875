"""The masked autoencoder: what it sees, what it predicts, and what it must not see."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vitexp.models import MaskedAutoencoder, ViT

STEMS = ("patch", "conv", "shifted")


def autoencoder(*, mask_ratio: float = 0.75, normalize_targets: bool = True, **encoder: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    vit = ViT(**{"image_size": 16, "num_classes": 3, "patch_size": 4, "dim": 24, "depth": 2, "num_heads": 3, **encoder})
    return MaskedAutoencoder(
        encoder=vit,
        mask_ratio=mask_ratio,
        decoder_dim=16,
        decoder_depth=1,
        decoder_heads=2,
        normalize_targets=normalize_targets,
    ).eval()


@pytest.mark.parametrize("options", [{"pool": "cls"}, {"pool": "gap", "registers": 2}, {"pool": "seqpool"}], ids=str)
@pytest.mark.parametrize("stem", STEMS)
def test_the_encoder_of_all_patches_equals_the_vit(stem: str, options: dict[str, Any]) -> None:
    net = autoencoder(mask_ratio=0.0, stem=stem, **options)
    images = torch.randn(2, 3, 16, 16)
    visible = net.draw_visible(2)
    assert visible.tolist() == [list(range(16))] * 2
    expected = net.encoder.fc_norm(net.encoder.forward_features(images))
    torch.testing.assert_close(net.encode(images, visible), expected)


@pytest.mark.parametrize("stem", STEMS)
def test_covered_pixels_do_not_affect_encoding_or_reconstruction(stem: str) -> None:
    net = autoencoder(stem=stem, pool="gap")
    visible = net.draw_visible(3)
    covered = net.covered_pixels(visible)
    assert covered.sum(dim=(1, 2, 3)).tolist() == [12 * 16] * 3
    images = torch.randn(3, 3, 16, 16)
    others = torch.where(covered.bool(), torch.randn(3, 3, 16, 16), images)
    with torch.no_grad():
        assert torch.equal(net.encode(images, visible), net.encode(others, visible))
        assert torch.equal(net.predict_patches(images, visible), net.predict_patches(others, visible))
        seen = torch.where(covered.bool(), images, torch.randn(3, 3, 16, 16))
        assert not torch.allclose(net.encode(images, visible), net.encode(seen, visible))


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_matches_a_computation_over_covered_patches(normalize: bool) -> None:
    net = autoencoder(normalize_targets=normalize)
    images, visible = torch.randn(2, 3, 16, 16), torch.tensor([[0, 5, 9, 15], [1, 2, 3, 4]])
    with torch.no_grad():
        losses, drawn = net(images, visible), net.predict_patches(images, visible)
    for image in range(2):
        errors = []
        for number in sorted(set(range(16)) - set(visible[image].tolist())):
            row, column = divmod(number, 4)
            patch = images[image, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten()
            if normalize:
                patch = (patch - patch.mean()) / torch.sqrt(patch.var() + 1e-6)
            errors.append((drawn[image, number] - patch).square().mean())
        assert len(errors) == 12
        torch.testing.assert_close(losses[image], torch.stack(errors).mean())


def test_visible_patches_do_not_contribute_to_the_loss() -> None:
    """The decoder's output there does not affect the loss."""
    net = autoencoder()
    images, visible = torch.randn(2, 3, 16, 16), net.draw_visible(2)
    drawn = net.predict_patches(images, visible).detach().requires_grad_()
    net.predict_patches = lambda *_: drawn  # type: ignore[method-assign, assignment]
    net(images, visible).sum().backward()
    assert drawn.grad is not None
    assert torch.equal(drawn.grad.abs().sum(dim=2) > 0, net.covered(visible).bool())


@pytest.mark.parametrize("normalize", [True, False])
def test_completed_images_keep_the_visible_patches(normalize: bool) -> None:
    net = autoencoder(normalize_targets=normalize, image_size=8, upsample=16)
    images, visible = torch.rand(2, 3, 8, 8), net.draw_visible(2)
    whole, covered = net.encoder.enlarged(images), net.covered_pixels(visible).bool()
    with torch.no_grad():
        completed = net.complete(images, visible)
        net.predict_patches = lambda images, visible: net.targets(images)  # type: ignore[method-assign]
        perfect = net.complete(images, visible)
    assert torch.equal(torch.where(covered, 0, completed), torch.where(covered, 0, whole))
    assert not torch.allclose(completed, whole)
    torch.testing.assert_close(perfect, whole)


def test_the_blocks_compute_only_visible_patches() -> None:
    net, lengths = autoencoder(pool="cls", registers=1), []
    for block in net.encoder.blocks:
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    net(torch.randn(2, 3, 16, 16))
    assert lengths == [1 + 1 + 4] * 2


def test_masks_differ_from_image_to_image_and_are_even() -> None:
    visible = autoencoder().draw_visible(4000)
    assert visible.shape == (4000, 4)
    assert len({tuple(row) for row in visible.tolist()}) > 1500  # of 1820
    assert torch.bincount(visible.flatten(), minlength=16).sub(1000).abs().max() < 150


def test_every_parameter_gets_a_gradient_and_only_the_encoder_has_vit_names() -> None:
    """Otherwise several processes would wait for gradients that never come."""
    for options in ({"pool": "cls", "distillation_token": True}, {"pool": "gap"}, {"pool": "seqpool"}):
        net = autoencoder(**options).train()
        net(torch.randn(2, 3, 16, 16)).sum().backward()
        assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []
        whole = ViT(image_size=16, num_classes=3, patch_size=4, dim=24, depth=2, num_heads=3, **options)  # type: ignore[arg-type]
        lacking = whole.state_dict().keys() - net.encoder.state_dict().keys()
        assert {name.partition(".")[0] for name in lacking} <= {"head", "head_dist", "seq_pool"}
        assert net.encoder.state_dict().keys() <= whole.state_dict().keys()


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="mlp_conv=True needs the whole grid"):
        autoencoder(mlp_conv=True, pool="gap")
    with pytest.raises(ValueError, match=r"mask_ratio=1\.0 must be"):
        autoencoder(mask_ratio=1.0)
    with pytest.raises(ValueError, match=r"mask_ratio=0\.01 covers none of the 16 patches"):
        autoencoder(mask_ratio=0.01)
