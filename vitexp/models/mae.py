"""The masked autoencoder (He et al. 2022) around a ViT, which learns from images alone by completing them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitexp.models.attention import NORM_EPS
from vitexp.models.block import Block, TokenConv
from vitexp.models.initialization import initialize_layer
from vitexp.models.position import sincos_position_embedding
from vitexp.models.vit import ViT

_TARGET_EPS = 1e-6  # added to the variance, which is 0 for a patch of a single color


def remove_classifier(net: ViT) -> None:
    """Replace the head of a ViT by the identity and learned pooling by the mean; remove the distillation head.

    None of them is trained without labels.
    """
    net.head = nn.Sequential()
    net.head_dist = None
    if net.pool == "seqpool":
        del net.seq_pool
        net.pool = "gap"


class MaskedAutoencoder(nn.Module):
    """An encoder that sees a few patches of an image, and a small decoder that predicts the others.

    Images are float (B, C, H, W), H = W = encoder.image_size; an encoder with `upsample` also enlarges other squares.
    N: patches per image. V: visible patches. P: prefix tokens. S: pixels per side of the image cut into patches.

    encoder: a ViT, whose heads and pooling weights are removed. Its blocks compute only the visible patches, which
    makes training fast. Covered pixels are set to zero, the mean color, before the stem, so that stems with overlapping
    receptive fields do not see them either.
    mask_ratio: fraction of the patches that are covered; with 0, none is, and the loss is 0.
    decoder_dim, decoder_depth, decoder_heads: sizes of the decoder, which has fixed sine-cosine positions.
    normalize_targets: predict each patch with its own mean and standard deviation removed (He et al. 2022, table 1d).

    Raises ValueError for values that do not fit together.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        encoder: ViT,
        mask_ratio: float = 0.75,
        decoder_dim: int = 96,
        decoder_depth: int = 2,
        decoder_heads: int = 3,
        normalize_targets: bool = True,
    ) -> None:
        super().__init__()
        if not 0.0 <= mask_ratio < 1.0:
            raise ValueError(f"mask_ratio={mask_ratio} must be at least 0 and below 1.")
        if any(isinstance(module, TokenConv) for module in encoder.modules()):
            raise ValueError("mlp_conv=True needs the whole grid of patches, but a masked autoencoder sees only some.")
        self.encoder = encoder
        remove_classifier(encoder)
        self.normalize_targets = normalize_targets
        self.num_patches = encoder.grid_size**2
        self.num_visible = _num_visible_patches(self.num_patches, mask_ratio)
        if mask_ratio > 0.0 and self.num_visible == self.num_patches:
            raise ValueError(f"mask_ratio={mask_ratio} covers none of the {self.num_patches} patches; increase it.")

        self.decoder_embed = nn.Linear(encoder.dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_dim))
        positions = sincos_position_embedding(
            grid=encoder.grid_size, dim=decoder_dim, prefix_tokens=encoder.prefix_tokens
        )
        self.register_buffer("positions", positions, persistent=False)
        self.decoder_blocks = nn.ModuleList(
            Block(dim=decoder_dim, num_heads=decoder_heads) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(decoder_dim, encoder.in_channels * encoder.patch_size**2)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            part.apply(initialize_layer)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the losses, float32 (B,), of images: the mean squared error over their covered patches.

        visible: (B, V) int64, the indices of the visible patches, row by row; None draws them.
        """
        if visible is None:
            visible = self.draw_visible(len(images), device=images.device)
        predicted = self.predict_patches(images, visible).float()
        errors = (predicted - self.targets(images)).square().mean(dim=2)  # (B, N)
        covered = self.covered(visible)
        return (errors * covered).sum(dim=1) / covered.sum(dim=1).clamp(min=1)  # not 0 / 0 if nothing is covered

    def draw_visible(
        self, batch_size: int, *, device: torch.device | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the visible patches of `batch_size` images: (B, V) int64, ascending along a row."""
        order = torch.rand(batch_size, self.num_patches, device=device, generator=generator).argsort(dim=1)
        return order[:, : self.num_visible].sort(dim=1).values

    def covered(self, visible: Tensor) -> Tensor:
        """Return float32 (B, N), 1 for a covered patch and 0 for a visible one. visible: (B, V) int64."""
        return torch.ones(len(visible), self.num_patches, device=visible.device).scatter_(1, visible, 0.0)

    def covered_pixels(self, visible: Tensor) -> Tensor:
        """Return the same for pixels: float32 (B, 1, S, S)."""
        grid = self.covered(visible).view(-1, 1, self.encoder.grid_size, self.encoder.grid_size)
        return F.interpolate(grid, scale_factor=self.encoder.patch_size)  # nearest

    def encode(self, images: Tensor, visible: Tensor) -> Tensor:
        """Encode images to normalized tokens (B, P + V, dim): prefix tokens, then visible patches."""
        encoder = self.encoder
        images = encoder.enlarged(images)
        images = images * (1.0 - self.covered_pixels(visible))
        # One of the two norms is an identity: with pool "gap" it is the one inside forward_features.
        return encoder.fc_norm(encoder.forward_features(images, only=visible))  # type: ignore[no-any-return]

    def predict_patches(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return the decoder's prediction of all patches of images: (B, N, C * patch_size^2)."""
        tokens = self.decoder_embed(self.encode(images, visible))  # (B, P + V, decoder_dim)
        prefix = self.encoder.prefix_tokens
        places = visible.unsqueeze(2).expand(-1, -1, tokens.shape[2])
        seen = tokens[:, prefix:]
        patches = self.mask_token.to(seen.dtype).expand(len(tokens), self.num_patches, -1).scatter(1, places, seen)
        x = torch.cat([tokens[:, :prefix], patches], dim=1) + self.positions
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x)[:, prefix:])  # type: ignore[no-any-return]

    def targets(self, images: Tensor) -> Tensor:
        """Return the targets of the prediction for images: float32 (B, N, C * patch_size^2)."""
        patches = self.patchify(images)
        if not self.normalize_targets:
            return patches
        mean, std = _mean_and_std(patches)
        return (patches - mean) / std

    def complete(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return images with the covered patches predicted: float32 (B, C, S, S).

        With `normalize_targets`, the mean and standard deviation of a covered patch are not predicted; the true ones
        are used.
        """
        patches, predicted = self.patchify(images), self.predict_patches(images, visible).float()
        if self.normalize_targets:
            mean, std = _mean_and_std(patches)
            predicted = predicted * std + mean
        covered = self.covered(visible).unsqueeze(2)
        joined = torch.where(covered.bool(), predicted, patches)
        grid = joined.transpose(1, 2).reshape(len(images), -1, self.encoder.grid_size, self.encoder.grid_size)
        return F.pixel_shuffle(grid, self.encoder.patch_size)

    def patchify(self, images: Tensor) -> Tensor:
        """Cut images into the patches that the stem sees, row by row: float32 (B, N, C * patch_size^2)."""
        images = self.encoder.enlarged(images).float()
        return F.pixel_unshuffle(images, self.encoder.patch_size).flatten(2).transpose(1, 2)


def _num_visible_patches(num_patches: int, mask_ratio: float) -> int:
    """Return the number of visible patches, at least one."""
    return max(1, round(num_patches * (1.0 - mask_ratio)))


def _mean_and_std(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each patch over its pixels and colors: (B, N, 1) each."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + _TARGET_EPS).sqrt()
