"""The Pyramid Vision Transformer, version 2 (Wang et al. 2022): maps that shrink, and attention to shrunk maps.

The names in the state dict and the computed function are those of timm's PyramidVisionTransformerV2 (with patch_size=4,
the only one there). The default sizes are those of B0; B1 has twice the channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitexp.errors import indivisible
from vitexp.models.attention import NORM_EPS, is_fused_slow
from vitexp.models.block import DropPath, TokenConv, drop_path_rates
from vitexp.models.initialization import initialize_layer
from vitexp.options import Checkpointing, Counts, Doc, DropPathRate, Pixels, Rate, Ratios, Sizes


class PyramidVisionTransformer(nn.Module):
    """A PVT v2: float images (B, in_channels, image_size, image_size) -> logits (B, num_classes).

    Stage i has a map of side image_size / patch_size / 2^i, rounded up. Square images of other sizes also work.

    Raises ValueError for values that do not fit together.
    """

    has_blocks: ClassVar[bool] = True
    has_attention: ClassVar[bool] = False
    has_patches: ClassVar[bool] = False
    has_batch_norm: ClassVar[bool] = False
    accepts_weights: ClassVar[bool] = True
    family: ClassVar[str] = "PVT v2"
    any_image_size: ClassVar[bool] = True

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        in_channels: int = 3,
        patch_size: Annotated[Pixels, Doc("pixels per side of the first map's cells; patches overlap")] = 4,
        dims: Annotated[Sizes, Doc("channels of each stage")] = (32, 64, 160, 256),
        depths: Annotated[Counts, Doc("blocks of each stage")] = (2, 2, 2, 2),
        num_heads: Annotated[Sizes, Doc("attention heads of each stage")] = (1, 2, 5, 8),
        reductions: Annotated[
            Counts, Doc("of each stage: cells per side of the map that are joined into one key and value")
        ] = (8, 4, 2, 1),
        mlp_ratios: Annotated[Ratios, Doc("hidden channels of each stage's MLPs, in multiples of its channels")] = (
            8.0,
            8.0,
            4.0,
            4.0,
        ),
        dropout: Annotated[Rate, Doc("after the attention, the convolution and the last layer of each block")] = 0.0,
        attention_dropout: Annotated[Rate, Doc("dropout of the attention weights")] = 0.0,
        drop_path: DropPathRate = 0.0,
        gradient_checkpointing: Checkpointing = False,
    ) -> None:
        super().__init__()
        lengths = {len(each) for each in (dims, depths, num_heads, reductions, mlp_ratios)}
        if len(lengths) > 1:
            raise ValueError("dims, depths, num_heads, reductions and mlp_ratios must have one number per stage.")
        if patch_size > image_size:
            raise ValueError(f"patch_size={patch_size} must be at most image_size={image_size}.")
        self.image_size, self.in_channels, self.patch_size = image_size, in_channels, patch_size
        self.dims, self.depths, self.num_heads = list(dims), list(depths), list(num_heads)
        self.reductions, self.mlp_ratios = list(reductions), list(mlp_ratios)
        self.gradient_checkpointing = gradient_checkpointing

        self.patch_embed = OverlappingPatches(in_channels=in_channels, stride=patch_size, dim=dims[0])
        rates = iter(drop_path_rates(maximum=drop_path, depth=sum(depths)))
        self.stages = nn.ModuleList()
        for stage, dim in enumerate(dims):
            blocks = [
                PyramidBlock(
                    dim=dim,
                    num_heads=num_heads[stage],
                    reduction=reductions[stage],
                    hidden_dim=int(dim * mlp_ratios[stage]),
                    dropout=dropout,
                    attention_dropout=attention_dropout,
                    drop_path=next(rates),
                )
                for _ in range(depths[stage])
            ]
            downsample = OverlappingPatches(in_channels=dims[stage - 1], stride=2, dim=dim) if stage > 0 else None
            self.stages.append(PyramidStage(blocks, dim=dim, downsample=downsample))
        self.head = nn.Linear(dims[-1], num_classes)
        self.apply(initialize_layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of images (B, C, H, W)."""
        return self.head(self.forward_features(x).mean(dim=(1, 2)))  # type: ignore[no-any-return]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map (B, h, w, dim) of images (B, C, H, W), after its norm."""
        self._refuse_unfit(x)
        x = self.patch_embed(x)
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for stage in self.stages:
            x = stage(x, recompute=recompute)
        return x

    def received_attention(self, x: Tensor) -> list[list[Tensor]]:
        """Return the attention that each position receives, (B, heads, h, w), by stage and block.

        The maps are those of the keys, which are `reduction` times smaller than those of the queries. The mean of a map
        is 1.
        """
        self._refuse_unfit(x)
        received: list[list[Tensor]] = []
        x = self.patch_embed(x)
        for stage in self.stages:
            assert isinstance(stage, PyramidStage)
            tokens = stage.tokens(x)
            received.append([])
            for block in stage.blocks:
                assert isinstance(block, PyramidBlock)
                received[-1].append(block.attn.received(block.norm1(tokens)))
                tokens = block(tokens)
            x = stage.as_map(tokens)
        return received

    def _refuse_unfit(self, x: Tensor) -> None:
        channels, height, width = x.shape[1:]
        if channels != self.in_channels or height != width:
            raise ValueError(
                f"The images have {channels} channels and {height}x{width} pixels; this model takes square images with "
                f"{self.in_channels} channels."
            )

    def timm_config(self) -> dict[str, Any]:
        """Return what config.json tells timm about the network. Raises ValueError if timm does not have it."""
        if self.patch_size != 4:
            raise ValueError(f"timm's PVT v2 has no patch_size={self.patch_size}; only patch_size=4 is the same there.")
        return {
            "architecture": "pvt_v2_b0",
            "num_features": self.dims[-1],
            "global_pool": "avg",
            "model_args": {
                "embed_dims": self.dims,
                "depths": self.depths,
                "num_heads": self.num_heads,
                "sr_ratios": self.reductions,
                "mlp_ratios": self.mlp_ratios,
            },
            "pretrained_cfg": {"fixed_input_size": False, "first_conv": "patch_embed.proj", "classifier": "head"},
        }


class OverlappingPatches(nn.Module):
    """A convolution with kernels of 2 * stride - 1, normalized: (B, C, h, w) -> (B, h / stride, w / stride, dim).

    The sides are rounded up.
    """

    def __init__(self, *, in_channels: int, stride: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=2 * stride - 1, stride=stride, padding=stride - 1)
        self.norm = nn.LayerNorm(dim)  # with torch's default eps, as in timm

    def forward(self, x: Tensor) -> Tensor:
        # In bfloat16 on a CPU (torch 2.15), the gradient of kernels that are mostly outside a smaller map is partly
        # memory that nobody wrote. Zeros at the end change nothing else, because the map is padded with zeros anyway.
        missing = max(self.proj.stride[0] - x.shape[2], 0)
        x = F.pad(x, (0, missing, 0, missing)) if missing else x
        return self.norm(self.proj(x).permute(0, 2, 3, 1))  # type: ignore[no-any-return]


class PyramidStage(nn.Module):
    """Blocks on maps of one size, after the patches of the previous maps: (B, h, w, C) -> (B, h', w', C')."""

    def __init__(self, blocks: Sequence[nn.Module], *, dim: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, *, recompute: bool) -> Tensor:
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        return self.as_map(tokens)

    def tokens(self, x: Tensor) -> Tensor:
        """Return what the first block gets: (B, h, w, C) -> (B, h' * w', C')."""
        return (x if self.downsample is None else self.downsample(x.permute(0, 3, 1, 2))).flatten(1, 2)

    def as_map(self, tokens: Tensor) -> Tensor:
        """Normalize what the last block returns, as a map: (B, h' * w', C') -> (B, h', w', C')."""
        side = math.isqrt(tokens.shape[1])
        return self.norm(tokens).view(-1, side, side, tokens.shape[2])  # type: ignore[no-any-return]


class PyramidBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): (B, T, dim) -> (B, T, dim), the tokens of a square map."""

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        reduction: int,
        hidden_dim: int,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = ReducedAttention(
            dim=dim, num_heads=num_heads, reduction=reduction, dropout=dropout, attention_dropout=attention_dropout
        )
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = ConvMlp(dim=dim, hidden_dim=hidden_dim, dropout=dropout)
        self.drop_path = DropPath(rate=drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class ReducedAttention(nn.Module):
    """Softmax attention of every cell of a map to a map whose sides are shrunk by `reduction`, rounded down.

    A map that is smaller than that is padded with zeros to a single cell.

    Raises ValueError unless num_heads divides dim.
    """

    def __init__(
        self, *, dim: int, num_heads: int, reduction: int, dropout: float = 0.0, attention_dropout: float = 0.0
    ) -> None:
        super().__init__()
        if misfit := indivisible("num_heads", num_heads, "dim", dim):
            raise ValueError(misfit)
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.reduction, self.attention_dropout = reduction, attention_dropout
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, kernel_size=reduction, stride=reduction)
            self.norm = nn.LayerNorm(dim)  # with torch's default eps, as in timm
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, dim) to (B, T, dim), the tokens of a square map."""
        tokens, dim = x.shape[1:]  # not the batch size, which an export to ONNX would take for a constant
        q, k, v = self._queries_keys_values(x)
        dropout = self.attention_dropout if self.training else 0.0
        if is_fused_slow(v):
            heads = F.dropout(self._weights(q, k), dropout, self.training) @ v
        else:
            heads = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.proj_drop(self.proj(heads.transpose(1, 2).reshape(-1, tokens, dim)))  # type: ignore[no-any-return]

    def received(self, x: Tensor) -> Tensor:
        """Return the attention that each position of the shrunk map of (B, T, dim) receives: (B, heads, h, w)."""
        q, k, _ = self._queries_keys_values(x)
        maps = self._weights(q, k).float().mean(dim=2) * k.shape[2]
        side = math.isqrt(k.shape[2])
        return maps.view(-1, self.num_heads, side, side)

    def _queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, heads, T, head_dim), keys and values (B, heads, T / reduction^2, head_dim)."""
        q = self.q(x).view(-1, x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)
        kept = self._reduced(x)
        kv = self.kv(kept).view(-1, kept.shape[1], 2, self.num_heads, self.head_dim)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the attention weights, (B, heads, T, T / reduction^2)."""
        scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
        return scores.softmax(dim=-1)  # type: ignore[no-any-return]

    def _reduced(self, x: Tensor) -> Tensor:
        """Return the tokens of the shrunk map: (B, T, dim) -> (B, T / reduction^2, dim)."""
        if self.reduction == 1:
            return x
        side = math.isqrt(x.shape[1])
        grid = x.transpose(1, 2).view(-1, x.shape[2], side, side)
        if (missing := self.reduction - side) > 0:
            grid = F.pad(grid, (0, missing, 0, missing))
        return self.norm(self.sr(grid).flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


class ConvMlp(nn.Module):
    """Linear, 3x3 depthwise convolution, GELU, linear: (B, T, dim) -> (B, T, dim), the tokens of a square map."""

    def __init__(self, *, dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = TokenConv(dim=hidden_dim, prefix_tokens=0)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.dwconv(self.fc1(x))))))  # type: ignore[no-any-return]
