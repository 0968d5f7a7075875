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

_TARGET_EPS = 1e-6  # added to the variance of a patch, which may have a single color


def remove_classifier(net: ViT) -> None:
    """Replace the head of a ViT by the identity, and learned pooling by the mean: neither is trained without labels."""
    net.head = nn.Sequential()
    if net.pool == "seqpool":
        del net.seq_pool
        net.pool = "gap"


class MaskedAutoencoder(nn.Module):
    """An encoder that sees a few patches of an image, and a small decoder that predicts the others.

    encoder: a ViT, whose head and pooling weights are removed. Its blocks compute only the visible patches, which makes
    training fast. Covered pixels are set to zero, the mean color, before the stem, so that stems with overlapping
    receptive fields do not see them either.
    mask_ratio: fraction of the patches that are covered. decoder_dim, decoder_depth, decoder_heads: sizes of the
    decoder, which has fixed sine-cosine positions.
    normalize_targets: predict each patch with its own mean and deviation removed (He et al. 2022, table 1d).

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
        self.patches = encoder.grid_size**2
        self.visible = visible_patches(self.patches, mask_ratio)

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
        """Return the losses, float32 (B,), of images (B, C, H, W): the mean squared error over their covered patches.

        visible: (B, V) int64, the indices of the visible patches, row by row; None draws them.
        """
        if visible is None:
            visible = self.draw_visible(len(images), device=images.device)
        predicted = self.predict_patches(images, visible).float()
        errors = (predicted - self.targets(images)).square().mean(dim=2)  # (B, N)
        covered = self.covered(visible)
        return (errors * covered).sum(dim=1) / covered.sum(dim=1).clamp(min=1)

    def draw_visible(
        self, images: int, *, device: torch.device | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the visible patches of `images` images: (B, V) int64, ascending along a row."""
        order = torch.rand(images, self.patches, device=device, generator=generator).argsort(dim=1)
        return order[:, : self.visible].sort(dim=1).values

    def covered(self, visible: Tensor) -> Tensor:
        """Return float32 (B, N), 1 for a covered patch and 0 for a visible one. visible: (B, V) int64."""
        return torch.ones(len(visible), self.patches, device=visible.device).scatter_(1, visible, 0.0)

    def covered_pixels(self, visible: Tensor) -> Tensor:
        """Return the same for pixels: float32 (B, 1, S, S)."""
        grid = self.covered(visible).view(-1, 1, self.encoder.grid_size, self.encoder.grid_size)
        return F.interpolate(grid, scale_factor=self.encoder.patch_size)  # nearest

    def encode(self, images: Tensor, visible: Tensor) -> Tensor:
        """Encode images (B, C, H, W) to normalized tokens (B, P + V, dim): P prefix tokens and the visible patches."""
        encoder = self.encoder
        images = encoder.enlarged(images)
        images = images * (1.0 - self.covered_pixels(visible))
        # One of the two norms is an identity: with pool "gap" it is the one inside forward_features.
        return encoder.fc_norm(encoder.forward_features(images, only=visible))  # type: ignore[no-any-return]

    def predict_patches(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return the decoder's prediction of all N patches of images (B, C, H, W): (B, N, C * patch_size^2)."""
        tokens = self.decoder_embed(self.encode(images, visible))  # (B, P + V, decoder_dim)
        prefix = self.encoder.prefix_tokens
        places = visible.unsqueeze(2).expand(-1, -1, tokens.shape[2])
        seen = tokens[:, prefix:]
        patches = self.mask_token.to(seen.dtype).expand(len(tokens), self.patches, -1).scatter(1, places, seen)
        x = torch.cat([tokens[:, :prefix], patches], dim=1) + self.positions
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x)[:, prefix:])  # type: ignore[no-any-return]

    def targets(self, images: Tensor) -> Tensor:
        """Return the targets of the prediction for images (B, C, H, W): (B, N, C * patch_size^2)."""
        patches = self.cut(images)
        if not self.normalize_targets:
            return patches
        mean, deviation = mean_and_deviation(patches)
        return (patches - mean) / deviation

    def complete(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return images (B, C, H, W) with the covered patches predicted, at the size that is cut into patches.

        With `normalize_targets`, the mean and deviation of a covered patch are not predicted; the true ones are used.
        """
        patches, predicted = self.cut(images), self.predict_patches(images, visible).float()
        if self.normalize_targets:
            mean, deviation = mean_and_deviation(patches)
            predicted = predicted * deviation + mean
        covered = self.covered(visible).unsqueeze(2)
        joined = torch.where(covered.bool(), predicted, patches)
        grid = joined.transpose(1, 2).reshape(len(images), -1, self.encoder.grid_size, self.encoder.grid_size)
        return F.pixel_shuffle(grid, self.encoder.patch_size)

    def cut(self, images: Tensor) -> Tensor:
        """Cut images (B, C, H, W) into the patches that the stem sees, row by row: (B, N, C * patch_size^2)."""
        images = self.encoder.enlarged(images).float()
        return F.pixel_unshuffle(images, self.encoder.patch_size).flatten(2).transpose(1, 2)


def visible_patches(patches: int, mask_ratio: float) -> int:
    """Return the number of visible patches, at least one."""
    return max(1, round(patches * (1.0 - mask_ratio)))


def mean_and_deviation(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each patch over its pixels and colors: (B, N, 1) each."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + _TARGET_EPS).sqrt()
