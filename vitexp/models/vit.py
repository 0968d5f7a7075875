"""The Vision Transformer (Dosovitskiy et al. 2021) for images of any size, with options for small data sets.

With the plain options (stem "patch", pool "cls" or "gap", learned positions, linear head, no lsa) the names in the
state dict and the computed function are those of timm's VisionTransformer ("gap": global_pool="avg" without a class
token), and with `distillation_token` those of its VisionTransformerDistilled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitexp.errors import indivisible
from vitexp.models.attention import NORM_EPS, Attention
from vitexp.models.block import Block, LayerScale, drop_path_rates
from vitexp.models.initialization import initialize_layer, initialize_mimetic
from vitexp.models.pooling import Head, SequencePool, classifier
from vitexp.models.position import interpolate_position_embedding, sincos_position_embedding
from vitexp.models.stems import ConvStem, PatchStem, ShiftedStem
from vitexp.options import Checkpointing, Doc, DropPathRate, Field, Pixels, Rate

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
    """A Vision Transformer: float images (B, in_channels, image_size, image_size) -> logits (B, num_classes).

    Square images of other sizes divisible by `patch_size` also work: the position embedding is interpolated.

    Raises ValueError for values that do not fit together.
    """

    has_blocks: ClassVar[bool] = True
    has_attention: ClassVar[bool] = True
    has_patches: ClassVar[bool] = True
    has_batch_norm: ClassVar[bool] = False
    accepts_weights: ClassVar[bool] = True
    family: ClassVar[str] = "ViT"
    any_image_size: ClassVar[bool] = True

    pos_embed: Tensor | None

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        in_channels: int = 3,
        patch_size: Annotated[Pixels, Doc("pixels per side; must divide data.image_size, or upsample")] = 4,
        dim: Annotated[int, Field(ge=1, le=65_536), Doc("channels of a token; num_heads must divide it")] = 192,
        depth: Annotated[int, Field(ge=1, le=1000), Doc("blocks")] = 6,
        num_heads: Annotated[int, Field(ge=1, le=65_536), Doc("attention heads")] = 3,
        mlp_ratio: Annotated[float, Field(gt=0, le=1000), Doc("hidden channels of the MLP, in multiples of dim")] = 4.0,
        dropout: Annotated[
            Rate, Doc("after the position embedding and every linear layer but qkv (Dosovitskiy et al. 2021, B.1)")
        ] = 0.0,
        attention_dropout: Annotated[Rate, Doc("dropout of the attention weights")] = 0.0,
        drop_path: DropPathRate = 0.0,
        stem: Annotated[Stem, Doc("patch | conv (CCT; patch_size a power of two) | shifted (SPT)")] = "patch",
        pool: Annotated[
            Pool, Doc("cls (class token) | gap (mean of the patches) | seqpool (learned weighted mean, CCT)")
        ] = "cls",
        position_embedding: Annotated[PositionEmbedding, Doc("learned | sincos (fixed) | none")] = "learned",
        registers: Annotated[
            int, Field(ge=0, le=4096), Doc("learned tokens before the patches, not read out (Darcet et al. 2024)")
        ] = 0,
        qk_norm: Annotated[bool, Doc("LayerNorm on queries and keys (Dehghani et al. 2023)")] = False,
        layer_scale: Annotated[
            Annotated[float, Field(ge=-1000, le=1000)] | None,
            Doc("initial value of a learned factor on each residual branch, such as 1e-4; null for none"),
        ] = None,
        lsa: Annotated[
            bool, Doc("locality self-attention: learned temperature, no token attends to itself (Lee et al. 2021)")
        ] = False,
        mlp_conv: Annotated[bool, Doc("3x3 depthwise convolution over the patches in each MLP (LocalViT)")] = False,
        head: Annotated[Head, Doc("linear | mlp (one hidden layer, tanh)")] = "linear",
        init: Annotated[
            Init, Doc("mimetic (Trockman & Kolter 2023; learns faster on small sets) | default (normal, 0.02)")
        ] = "default",
        gradient_checkpointing: Checkpointing = False,
        upsample: Annotated[
            Pixels | None, Doc("pixels per side to which the net enlarges its input (bicubic); null for none")
        ] = None,
        distillation_token: Annotated[
            bool, Doc("for pool=cls: a second token and head that learn from training.teacher (DeiT)")
        ] = False,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("stem", stem, Stem),
            ("pool", pool, Pool),
            ("position_embedding", position_embedding, PositionEmbedding),
            ("head", head, Head),
            ("init", init, Init),
        ):
            if value not in get_args(choices):
                raise ValueError(f"{name}={value!r} is unknown; use {', '.join(get_args(choices))}.")
        if depth < 1 or num_classes < 1:
            raise ValueError(f"depth={depth} and num_classes={num_classes} must be at least 1.")
        if distillation_token and pool != "cls":
            raise ValueError(f"distillation_token needs a class token, which pool={pool!r} does not have; use 'cls'.")
        if upsample is not None and upsample < image_size:
            raise ValueError(f"upsample={upsample} is smaller than image_size={image_size}; use a larger one or None.")
        if misfit := indivisible(
            "patch_size", patch_size, "image_size" if upsample is None else "upsample", upsample or image_size
        ):
            raise ValueError(misfit)

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
                # Where only the class token is read out, nothing sees what the last MLP does to the patches.
                conv_prefix=self.prefix_tokens if mlp_conv and not (pool == "cls" and block == depth) else None,
            )
            for block, rate in enumerate(drop_path_rates(maximum=drop_path, depth=depth), start=1)
        )
        # As in timm: with "gap" the norm follows the pooling, otherwise it precedes it.
        self.norm = nn.Identity() if pool == "gap" else nn.LayerNorm(dim, eps=NORM_EPS)
        self.fc_norm = nn.LayerNorm(dim, eps=NORM_EPS) if pool == "gap" else nn.Identity()
        if pool == "seqpool":
            self.seq_pool = SequencePool(dim=dim)
        self.head = classifier(head, dim=dim, num_classes=num_classes)
        self.head_dist = classifier(head, dim=dim, num_classes=num_classes) if distillation_token else None
        self._initialize(init)

    def forward(self, x: Tensor, *, separate: bool = False) -> Tensor:
        """Return the logits (B, num_classes) of images (B, C, H, W).

        separate: return the logits of the class and the distillation token separately, (2, B, num_classes);
        otherwise their mean (Touvron et al. 2021, DeiT, section 4).
        """
        # Only these tokens of the last block are read, so only they need a query and the MLP there.
        read = 1 + int(self.distillation_token) if self.pool == "cls" else None
        return self.forward_head(self._encode(x, read=read), separate=separate)

    def forward_features(self, x: Tensor, *, only: Tensor | None = None) -> Tensor:
        """Return the tokens (B, T, dim) of images (B, C, H, W) after the final norm: class token first, patches last.

        With pool "gap" the norm follows the mean, and the tokens are the output of the last block.
        only: indices of the patches that the blocks process, (B, V) int64; None: all.
        """
        return self._encode(x, read=None, only=only)

    def forward_head(self, tokens: Tensor, *, separate: bool = False) -> Tensor:
        """Return logits (B, num_classes), or (2, B, num_classes), for the tokens of `forward_features` (B, T, dim)."""
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
        """Return logits (B, num_classes) and each block's attention weights (B, num_heads, T, T).

        The weights are taken after the softmax and before dropout; row i, which sums to 1, is where token i attends.
        The logits depend on them in the autograd graph, so that `torch.autograd.grad(logit, weights)` works.
        """
        x = self._embed(x)
        attention = []
        for block in self.blocks:
            x, weights = block.forward_with_weights(x)  # type: ignore[operator]
            attention.append(weights)
        return self.forward_head(self.norm(x)), attention

    def timm_config(self) -> dict[str, Any]:
        """Return what config.json tells timm about the network. Raises ValueError if timm does not have it."""
        first = self.blocks[0]
        if not isinstance(first, Block):
            raise ValueError(f"timm's ViT has no blocks like {type(first).__name__}.")
        same = {
            "stem=patch": isinstance(self.patch_embed, PatchStem),
            "pool=cls or pool=gap": self.pool in ("cls", "gap"),
            "lsa=false": not first.attn.lsa,
            "head=linear": isinstance(self.head, nn.Linear),
            "upsample=null": self.upsample is None,
            "mlp_conv=false": isinstance(first.mlp.conv, nn.Identity),
            "distillation_token=false": not self.distillation_token,
        }
        if other := [option for option, is_so in same.items() if not is_so]:
            raise ValueError(f"timm's ViT is the same only with {', '.join(other)}.")
        global_pool = "avg" if self.pool == "gap" else "token"
        return {
            "architecture": "vit_tiny_patch16_224",  # model_args sets every argument that depends on this name
            "num_features": self.dim,
            "global_pool": global_pool,
            "model_args": {
                "img_size": self.image_size,
                "patch_size": self.patch_size,
                "embed_dim": self.dim,
                "depth": self.depth,
                "num_heads": self.num_heads,
                "mlp_ratio": first.mlp.fc1.out_features / self.dim,
                "global_pool": global_pool,
                "class_token": self.has_cls,
                "reg_tokens": self.registers,
                "qk_norm": isinstance(first.attn.q_norm, nn.LayerNorm),
                "init_values": 1.0 if isinstance(first.ls1, LayerScale) else None,  # any; the learned ones are loaded
                "pos_embed": "none" if self.pos_embed is None else "learn",
            },
            "pretrained_cfg": {"fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": "head"},
        }

    def load_resized(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the weights of the same model trained at another image size, interpolating its position embedding.

        Raises RuntimeError, as `load_state_dict` does, if anything else differs.
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
        """Enlarge float images (B, C, image_size, image_size) to `upsample` pixels per side, before they are cut."""
        if self.upsample in (None, x.shape[-1]):
            return x
        return F.interpolate(x, size=(self.upsample, self.upsample), mode="bicubic", align_corners=False)

    @property
    def grid_size(self) -> int:
        """Patches per side."""
        return (self.upsample or self.image_size) // self.patch_size

    @property
    def has_cls(self) -> bool:
        """Whether the first token is a class token."""
        return self.cls_token is not None

    @property
    def prefix_tokens(self) -> int:
        """The number of tokens before the patches: class token, distillation token and registers."""
        return int(self.has_cls) + int(self.distillation_token) + self.registers

    def _encode(self, x: Tensor, *, read: int | None, only: Tensor | None = None) -> Tensor:
        """Return the tokens (B, T, dim) of images (B, C, H, W) after the final norm, or the first `read` of them."""
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
        """Return the input of the first block, (B, T, dim), for images (B, C, H, W)."""
        channels, height, width = x.shape[1:]
        side = self.upsample or height
        if channels != self.in_channels or height != width or side % self.patch_size:
            raise ValueError(
                f"The images have {channels} channels and {height}x{width} pixels; this model takes square images with "
                f"{self.in_channels} channels and a side divisible by patch_size={self.patch_size}."
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
        x = self.pos_drop(x)
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # Norms and sums of branches in this type, too, make a training step faster (vitexp/bench/NOTES.md).
            x = x.to(torch.get_autocast_dtype("cpu"))
        return x

    def _prefix(self) -> list[Tensor]:
        """Return the learned tokens before the patches, in order."""
        return [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]

    @torch.no_grad()
    def _initialize(self, init: Init) -> None:
        self.apply(initialize_layer)
        for token in self._prefix():
            nn.init.trunc_normal_(token, std=0.02)
        if init == "mimetic":
            for module in self.modules():
                if isinstance(module, Attention):
                    initialize_mimetic(module)
        if isinstance(self.pos_embed, nn.Parameter):
            if init == "mimetic":
                start = sincos_position_embedding(grid=self.grid_size, dim=self.dim, prefix_tokens=self.prefix_tokens)
                self.pos_embed.copy_(start)
            else:
                nn.init.trunc_normal_(self.pos_embed, std=0.02)
