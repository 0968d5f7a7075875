"""The Swin Transformer (Liu et al. 2021): attention in shifted windows, and maps that shrink from stage to stage.

With the plain options (stem "patch", no lsa) the names in the state dict and the computed function are those of timm's
SwinTransformer. With stem "shifted" and lsa it is the SL-Swin of Lee et al. 2021, for small data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitexp.errors import indivisible
from vitexp.models.block import DropPath, Mlp, drop_path_rates
from vitexp.models.initialization import initialize_layer
from vitexp.models.stems import ShiftedStem
from vitexp.models.window_attention import WindowAttention, padded
from vitexp.options import Checkpointing, Counts, Doc, DropPathRate, Field, Pixels, Rate, Sizes

Stem = Literal["patch", "shifted"]


class SwinTransformer(nn.Module):
    """A Swin Transformer: float images (B, in_channels, image_size, image_size) -> logits (B, num_classes).

    Stage i has a map of side image_size / patch_size / 2^i, rounded up, with dim * 2^i channels. Where the windows do
    not divide it, it is padded with zeros. Square images of other sizes divisible by `patch_size` also work.

    Raises ValueError for values that do not fit together.
    """

    has_blocks: ClassVar[bool] = True
    has_attention: ClassVar[bool] = False
    has_patches: ClassVar[bool] = False
    has_batch_norm: ClassVar[bool] = False
    accepts_weights: ClassVar[bool] = True
    family: ClassVar[str] = "Swin Transformer"
    any_image_size: ClassVar[bool] = True

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        in_channels: int = 3,
        patch_size: Annotated[Pixels, Doc("pixels per side; must divide data.image_size")] = 2,
        window_size: Annotated[
            int, Field(ge=1, le=64), Doc("patches per side of a window; a smaller map is one window")
        ] = 4,
        dim: Annotated[int, Field(ge=1, le=65_536), Doc("channels of the first stage; each other doubles them")] = 96,
        depths: Annotated[Counts, Doc("blocks of each stage")] = (2, 6, 4),
        num_heads: Annotated[Sizes, Doc("attention heads of each stage")] = (3, 6, 12),
        mlp_ratio: Annotated[
            float, Field(gt=0, le=1000), Doc("hidden channels of each MLP, in multiples of its input")
        ] = 2.0,
        dropout: Annotated[Rate, Doc("after the patch embedding and every linear layer but qkv")] = 0.0,
        attention_dropout: Annotated[Rate, Doc("dropout of the attention weights")] = 0.0,
        drop_path: DropPathRate = 0.0,
        stem: Annotated[Stem, Doc("patch | shifted (SPT, also where maps are merged; Lee et al. 2021)")] = "patch",
        lsa: Annotated[
            bool, Doc("locality self-attention: learned temperature, no token attends to itself (Lee et al. 2021)")
        ] = False,
        gradient_checkpointing: Checkpointing = False,
    ) -> None:
        super().__init__()
        if stem not in get_args(Stem):
            raise ValueError(f"stem={stem!r} is unknown; use {', '.join(get_args(Stem))}.")
        if misfit := indivisible("patch_size", patch_size, "image_size", image_size):
            raise ValueError(misfit)
        if len(depths) != len(num_heads):
            raise ValueError(f"depths={list(depths)} and num_heads={list(num_heads)} must have one number per stage.")
        self.image_size, self.in_channels = image_size, in_channels
        self.patch_size, self.window_size, self.mlp_ratio, self.lsa = patch_size, window_size, mlp_ratio, lsa
        self.dim, self.depths, self.num_heads = dim, list(depths), list(num_heads)
        self.gradient_checkpointing = gradient_checkpointing

        is_shifted = stem == "shifted"
        self.patch_embed: nn.Module = (
            ShiftedStem(in_channels=in_channels, patch_size=patch_size, dim=dim)
            if is_shifted
            else PatchEmbedding(in_channels=in_channels, patch_size=patch_size, dim=dim)
        )
        self.pos_drop = nn.Dropout(dropout)
        rates = drop_path_rates(maximum=drop_path, depth=sum(depths))
        self.layers = nn.ModuleList()
        side = image_size // patch_size
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            before = sum(depths[:stage])
            if stage > 0:
                side, dim = (side + 1) // 2, 2 * dim
            blocks = [
                SwinBlock(
                    dim=dim,
                    num_heads=heads,
                    window_size=min(window_size, side),
                    is_shifted=block % 2 == 1,
                    mlp_ratio=mlp_ratio,
                    dropout=dropout,
                    attention_dropout=attention_dropout,
                    drop_path=rates[before + block],
                    lsa=lsa,
                )
                for block in range(depth)
            ]
            merging = ShiftedMerging if is_shifted else Merging
            self.layers.append(Stage(blocks, downsample=merging(dim=dim // 2) if stage > 0 else None))
        self.norm = nn.LayerNorm(dim)
        self.head = MeanHead(dim=dim, num_classes=num_classes)
        self.apply(initialize_layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of images (B, C, H, W)."""
        return self.head(self.forward_features(x))  # type: ignore[no-any-return]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map (B, h, w, dim) of images (B, C, H, W), after the final norm."""
        x = self._embedded(x)
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for stage in self.layers:
            x = stage(x, recompute=recompute)
        return self.norm(x)  # type: ignore[no-any-return]

    def _embedded(self, x: Tensor) -> Tensor:
        """Return the first map (B, h, w, dim) of images (B, C, H, W)."""
        channels, height, width = x.shape[1:]
        if channels != self.in_channels or height != width or height % self.patch_size:
            raise ValueError(
                f"The images have {channels} channels and {height}x{width} pixels; this model takes square images with "
                f"{self.in_channels} channels and a side divisible by patch_size={self.patch_size}."
            )
        side = height // self.patch_size
        return self.pos_drop(self.patch_embed(x).reshape(-1, side, side, self.dim))  # type: ignore[no-any-return]

    def received_attention(self, x: Tensor) -> list[list[Tensor]]:
        """Return the attention that each position receives, (B, heads, h, w), by stage and block.

        Every position of a map gives 1 in total to the positions of its window, so the mean of a map is 1 (unless
        padding takes a part).
        """
        received: list[list[Tensor]] = []
        x = self._embedded(x)
        for stage in self.layers:
            assert isinstance(stage, Stage)
            x = stage.downsample(x)
            received.append([])
            for block in stage.blocks:
                assert isinstance(block, SwinBlock)
                received[-1].append(block.attn.received(block.norm1(x)))
                x = block(x)
        return received

    def timm_config(self) -> dict[str, Any]:
        """Return what config.json tells timm about the network. Raises ValueError if timm does not have it."""
        if isinstance(self.patch_embed, ShiftedStem):
            raise ValueError("timm's Swin Transformer has no stem=shifted; only stem=patch is the same there.")
        if self.lsa:
            raise ValueError("timm's Swin Transformer has no lsa=true; only lsa=false is the same there.")
        return {
            "architecture": "swin_tiny_patch4_window7_224",
            "num_features": self.norm.normalized_shape[0],
            "global_pool": "avg",
            "model_args": {
                "img_size": self.image_size,
                "patch_size": self.patch_size,
                "window_size": self.window_size,
                "embed_dim": self.dim,
                "depths": self.depths,
                "num_heads": self.num_heads,
                "mlp_ratio": self.mlp_ratio,
            },
            "pretrained_cfg": {"fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": "head.fc"},
        }


class PatchEmbedding(nn.Module):
    """Adjacent patches, each mapped linearly and normalized: (B, C, H, W) -> (B, N, dim)."""

    def __init__(self, *, in_channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Blocks on maps of one size, after the merging of the previous maps: (B, h, w, C) -> (B, h', w', C')."""

    def __init__(self, blocks: Sequence[nn.Module], *, downsample: nn.Module | None) -> None:
        super().__init__()
        self.downsample = downsample or nn.Identity()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, *, recompute: bool) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x


class Merging(nn.Module):
    """Join 2x2 neighbors, normalize them, and map them to twice the channels: (B, h, w, C) -> (B, h/2, w/2, 2C)."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = padded(x, to_multiple_of=2)
        side, channels = x.shape[2:]
        # Neighbors column by column, the order of published weights.
        x = x.view(-1, side // 2, 2, side // 2, 2, channels).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))  # type: ignore[no-any-return]


class ShiftedMerging(ShiftedStem):
    """Join 2x2 neighbors of a map and of its four copies shifted by one along the diagonals (Lee et al. 2021, 3.1)."""

    def __init__(self, *, dim: int) -> None:
        super().__init__(in_channels=dim, patch_size=2, dim=2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h/2, w/2, 2C)."""
        x = padded(x, to_multiple_of=2)
        side = x.shape[1] // 2
        return super().forward(x.permute(0, 3, 1, 2)).reshape(-1, side, side, self.proj.out_features)


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): (B, h, w, dim) -> (B, h, w, dim)."""

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        window_size: int,
        is_shifted: bool,
        mlp_ratio: float,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
        lsa: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(
            dim=dim,
            num_heads=num_heads,
            window_size=window_size,
            shift=window_size // 2 if is_shifted else 0,
            dropout=dropout,
            attention_dropout=attention_dropout,
            lsa=lsa,
        )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim=dim, hidden_dim=int(dim * mlp_ratio), dropout=dropout)
        self.drop_path = DropPath(rate=drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class MeanHead(nn.Module):
    """The mean of a map, and a linear layer `fc`: (B, h, w, dim) -> (B, num_classes)."""

    def __init__(self, *, dim: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean(dim=(1, 2)))  # type: ignore[no-any-return]
