"""The Vision Transformer (Dosovitskiy et al. 2021) for images of any size, with the options that small data asks for.

With the plain options (stem "patch", pool "cls" or "gap", learned positions, linear head, no lsa) the names in the
state dict and the function computed are those of timm's VisionTransformer; "gap" is its global_pool="avg" without
class token; with `distillation_token` they are those of its VisionTransformerDistilled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitexp.models.argument_checks import check_divides, check_grid, check_option, check_positive, check_rates
from vitexp.models.attention import NORM_EPS, Attention
from vitexp.models.block import Block, drop_path_rates
from vitexp.models.initialisation import initialise_layer, initialise_mimetic
from vitexp.models.pooling import Head, SequencePool, classifier
from vitexp.models.position import interpolate_position_embedding, sincos_position_embedding
from vitexp.models.stems import ConvStem, PatchStem, ShiftedStem

Stem = Literal["patch", "conv", "shifted"]
Pool = Literal["cls", "gap", "seqpool"]
PositionEmbedding = Literal["learned", "sincos", "none"]
Init = Literal["default", "mimetic"]

STEMS: dict[Stem, type[PatchStem] | type[ConvStem] | type[ShiftedStem]] = {
    "patch": PatchStem,
    "conv": ConvStem,
    "shifted": ShiftedStem,
}


class ViT(nn.Module):
    """Images (B, in_channels, image_size, image_size), float, to logits (B, num_classes).

    Images of other sizes that `patch_size` divides are taken too: the position embedding is interpolated for them.
    Sizes: `image_size` and `patch_size` in pixels, `dim` channels, `depth` blocks of `num_heads` heads, MLPs of
    `mlp_ratio * dim` hidden channels. `upsample`: pixels a side to which images are enlarged first, bicubically, None
    for none; the patches are then those of the enlarged image. So small images stay small wherever they are kept.
    Regularisation: `dropout` after the position embedding and after every linear layer but qkv (Dosovitskiy et al.
    2021, appendix B.1); `attention_dropout` on the attention weights; `drop_path` rises linearly from 0 at the first
    block to its value at the last.
    Tokens: `stem` makes them (stems.py), `position_embedding` is added, `registers` learned tokens go in front
    (Darcet et al. 2024), and `pool` reads them out: the class token, the mean of the patches, or their learned
    weighted mean (pooling.py). `distillation_token` puts a second token behind the class token, with a head of its own
    for a teacher; the logits are the mean of both heads' (Touvron et al. 2021, DeiT, section 4).
    `mlp_conv` puts a depthwise convolution over the patches into each MLP (token_conv.py), but for the last block where
    the class token alone is read out: nobody would see there what it does to the patches.
    Attention: `qk_norm` and `lsa` (attention.py); `layer_scale` is the initial factor on each branch, None for none.
    `head`: "linear", or "mlp" with one hidden layer and tanh, the pre-training head of Dosovitskiy et al. 2021.
    `init`: "default" or "mimetic" (initialisation.py); with "mimetic" learned positions start as the sine-cosine
    ones, as in that paper. `gradient_checkpointing` computes every block again in the backward pass, to save memory.

    Raises ValueError, in one sentence, for values that do not fit together.
    """

    has_blocks: ClassVar[bool] = True
    has_attention: ClassVar[bool] = True
    has_patches: ClassVar[bool] = True
    has_batch_norm: ClassVar[bool] = False
    accepts_weights: ClassVar[bool] = True
    any_image_size: ClassVar[bool] = True

    pos_embed: Tensor | None

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        in_channels: int = 3,
        patch_size: int = 4,
        dim: int = 192,
        depth: int = 6,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        stem: Stem = "patch",
        pool: Pool = "cls",
        position_embedding: PositionEmbedding = "learned",
        registers: int = 0,
        qk_norm: bool = False,
        layer_scale: float | None = None,
        lsa: bool = False,
        mlp_conv: bool = False,
        head: Head = "linear",
        init: Init = "default",
        gradient_checkpointing: bool = False,
        upsample: int | None = None,
        distillation_token: bool = False,
    ) -> None:
        super().__init__()
        check_positive(
            image_size=image_size,
            num_classes=num_classes,
            in_channels=in_channels,
            patch_size=patch_size,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
        )
        check_rates(dropout=dropout, attention_dropout=attention_dropout, drop_path=drop_path)
        check_option("stem", stem, Stem)
        check_option("pool", pool, Pool)
        check_option("position_embedding", position_embedding, PositionEmbedding)
        check_option("head", head, Head)
        check_option("init", init, Init)
        if distillation_token and pool != "cls":
            raise ValueError(f"distillation_token stands beside a class token, which pool={pool!r} has not; use 'cls'.")
        if registers < 0:
            raise ValueError(f"registers={registers} is negative; use 0 for none.")
        check_grid(image_size=image_size, upsample=upsample, patch_size=patch_size)
        check_divides("num_heads", num_heads, "dim", dim)

        self.image_size = image_size
        self.upsample = upsample
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.dim = dim
        self.depth = depth
        self.num_heads = num_heads
        self.pool = pool
        self.distillation_token = distillation_token
        self.registers = registers
        self.gradient_checkpointing = gradient_checkpointing

        self.patch_embed = STEMS[stem](in_channels=in_channels, patch_size=patch_size, dim=dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if pool == "cls" else None
        self.dist_token = nn.Parameter(torch.empty(1, 1, dim)) if distillation_token else None
        self.reg_token = nn.Parameter(torch.empty(1, registers, dim)) if registers else None
        if position_embedding == "learned":
            self.pos_embed = nn.Parameter(torch.empty(1, self.prefix_tokens + self.grid_size**2, dim))
        elif position_embedding == "sincos":
            fixed = sincos_position_embedding(grid=self.grid_size, dim=dim, prefix_tokens=self.prefix_tokens)
            self.register_buffer("pos_embed", fixed, persistent=False)
        else:
            self.pos_embed = None
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                dim=dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                attention_dropout=attention_dropout,
                drop_path=rate,
                qk_norm=qk_norm,
                layer_scale=layer_scale,
                lsa=lsa,
                conv_behind=self.prefix_tokens if mlp_conv and not (pool == "cls" and block == depth) else None,
            )
            for block, rate in enumerate(drop_path_rates(maximum=drop_path, depth=depth), start=1)
        )
        # A mean is normalised after it is taken, all else before: so does timm.
        self.norm = nn.Identity() if pool == "gap" else nn.LayerNorm(dim, eps=NORM_EPS)
        self.fc_norm = nn.LayerNorm(dim, eps=NORM_EPS) if pool == "gap" else nn.Identity()
        if pool == "seqpool":
            self.seq_pool = SequencePool(dim=dim)
        self.head = classifier(head, dim=dim, num_classes=num_classes)
        self.head_dist = classifier(head, dim=dim, num_classes=num_classes) if distillation_token else None
        self._initialise(init)

    def forward(self, x: Tensor, *, separate: bool = False) -> Tensor:
        """Images (B, C, H, W) -> logits (B, num_classes).

        separate: those of the class token and of the distillation token by themselves, (2, B, num_classes).
        """
        # Of the last block only these tokens are read: they alone need a query there, and the MLP.
        read = 1 + int(self.distillation_token) if self.pool == "cls" else None
        return self.forward_head(self._encode(x, read=read), separate=separate)

    def forward_features(self, x: Tensor, *, only: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) -> tokens (B, T, dim) after the final norm: class token first, patches last.

        With pool "gap" the norm comes after the mean, and the tokens are those of the last block. only: (B, V) int64,
        numbers of patches; the blocks then compute no others.
        """
        return self._encode(x, read=None, only=only)

    def forward_head(self, tokens: Tensor, *, separate: bool = False) -> Tensor:
        """The tokens of `forward_features` (B, T, dim) -> logits (B, num_classes), or (2, B, num_classes)."""
        if self.head_dist is not None:
            both = torch.stack([self.head(tokens[:, 0]), self.head_dist(tokens[:, 1])])
            return both if separate else both.mean(dim=0)
        if self.pool == "cls":
            pooled = tokens[:, 0]
        elif self.pool == "gap":
            pooled = tokens[:, self.prefix_tokens :].mean(dim=1)
        else:
            pooled = self.seq_pool(tokens[:, self.prefix_tokens :])
        return self.head(self.fc_norm(pooled))  # type: ignore[no-any-return]

    def forward_with_attention(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (B, C, H, W) -> logits (B, num_classes) and each block's attention weights (B, num_heads, T, T).

        The weights are those after the softmax and before dropout; row i says where token i looks, and sums to 1.
        The logits depend on them in the autograd graph, so that `torch.autograd.grad(logit, weights)` works.
        """
        x = self._embed(x)
        attention = []
        for block in self.blocks:
            x, weights = block.forward_with_weights(x)  # type: ignore[operator]
            attention.append(weights)
        return self.forward_head(self.norm(x)), attention

    def load_resized(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the weights of the same model trained at another image size: its position embedding is interpolated.

        Raises RuntimeError, as `load_state_dict` does, where anything else differs.
        """
        state_dict = dict(state_dict)
        if isinstance(self.pos_embed, nn.Parameter) and "pos_embed" in state_dict:
            positions = state_dict["pos_embed"].shape[1] - self.prefix_tokens
            state_dict["pos_embed"] = interpolate_position_embedding(
                state_dict["pos_embed"],
                old_grid=math.isqrt(max(positions, 0)),
                new_grid=self.grid_size,
                prefix_tokens=self.prefix_tokens,
            )
        self.load_state_dict(state_dict)

    def enlarged(self, x: Tensor) -> Tensor:
        """Images (B, C, image_size, image_size), float -> as they are cut into patches, `upsample` pixels a side."""
        if self.upsample in (None, x.shape[-1]):
            return x
        return F.interpolate(x, size=(self.upsample, self.upsample), mode="bicubic", align_corners=False)

    @property
    def grid_size(self) -> int:
        """Patches a side."""
        return (self.upsample or self.image_size) // self.patch_size

    @property
    def has_cls(self) -> bool:
        """Whether the first token is a class token."""
        return self.cls_token is not None

    @property
    def prefix_tokens(self) -> int:
        """How many tokens come before the patches: the class token, the distillation token and the registers."""
        return int(self.has_cls) + int(self.distillation_token) + self.registers

    def _encode(self, x: Tensor, *, read: int | None, only: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) -> tokens (B, T, dim) after the final norm, or the first `read` of them."""
        x = self._embed(x)
        if only is not None:
            seen = x[:, self.prefix_tokens :].gather(1, only.unsqueeze(2).expand(-1, -1, self.dim))
            x = torch.cat([x[:, : self.prefix_tokens], seen], dim=1)
        for depth, block in enumerate(self.blocks, start=1):
            wanted = read if depth == self.depth else None
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, read=wanted, use_reentrant=False)
            else:
                x = block(x, read=wanted)
        return self.norm(x)  # type: ignore[no-any-return]

    def _embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> what enters the first block (B, T, dim)."""
        channels, height, width = x.shape[1:]
        side = self.upsample or height
        if channels != self.in_channels or height != width or side % self.patch_size:
            raise ValueError(
                f"The images are {(channels, height, width)} in channels, height and width; this model takes square "
                f"ones of {self.in_channels} channels, whose sides patch_size={self.patch_size} divides."
            )
        x = self.patch_embed(self.enlarged(x))  # (B, N, dim)
        if self.prefix_tokens:
            x = torch.cat([*(token.expand(x.shape[0], -1, -1) for token in self._prefix()), x], dim=1)  # (B, T, dim)
        if self.pos_embed is not None:
            x = x + interpolate_position_embedding(
                self.pos_embed,
                old_grid=self.grid_size,
                new_grid=side // self.patch_size,
                prefix_tokens=self.prefix_tokens,
            )
        return self.pos_drop(x)  # type: ignore[no-any-return]

    def _prefix(self) -> list[Tensor]:
        """The learned tokens before the patches, in their order."""
        return [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]

    @torch.no_grad()
    def _initialise(self, init: Init) -> None:
        self.apply(initialise_layer)
        for token in self._prefix():
            nn.init.trunc_normal_(token, std=0.02)
        if init == "mimetic":
            for module in self.modules():
                if isinstance(module, Attention):
                    initialise_mimetic(module)
        if isinstance(self.pos_embed, nn.Parameter):
            if init == "mimetic":
                start = sincos_position_embedding(grid=self.grid_size, dim=self.dim, prefix_tokens=self.prefix_tokens)
                self.pos_embed.copy_(start)
            else:
                nn.init.trunc_normal_(self.pos_embed, std=0.02)
