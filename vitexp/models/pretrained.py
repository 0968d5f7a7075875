"""Load pretrained weights into a network: what fits, what is interpolated, and what stays new."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitexp.models.architecture import Shapes, architecture, difference, other_family
from vitexp.models.layouts import Tensors
from vitexp.models.position import interpolate_position_embedding, resize_relative_positions
from vitexp.models.vit import ViT

# Parts that may differ from the pretrained model: how the tokens are read out, and the classes.
_READ_OUT = ("cls_token", "dist_token", "seq_pool", "head", "head_dist")
_HEADS = ("head", "head_dist")
_COMPUTED = ("relative_position_index", "attn_mask")  # buffers in files of older versions of timm


class Misfit(ValueError):
    """The weights belong to a different model. The message continues the sentence "model.weights=... does not fit:"."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A summary of what was loaded: `taken` of the model's `of` tensors.

    new: parts of the model that were not changed; unused: parts of the weights that were not used.
    grids: patches per side of their position embedding and of the model's, if it was interpolated.
    """

    taken: int
    of: int
    new: list[str]
    unused: list[str]
    grids: tuple[int, int] | None


def load_pretrained(net: nn.Module, tensors: Tensors, *, keep_head: bool, known: Mapping[str, Any]) -> Loaded:
    """Load `tensors`, named as in `net`, into it, with positions interpolated to its grid or windows.

    net: a network with the fact `family`.

    The head (and that of a distillation token) is loaded if `keep_head` is true and its shape matches. A token that
    the weights lack stays new; one that the net lacks is unused. The last norm is loaded whether it is applied to the
    tokens or to their mean. known: options of the pretrained model, such as num_heads, that the tensors do not show.

    Raises Misfit if anything else differs; the net is then unchanged.
    """
    _refuse_another_architecture(net, tensors, known)
    mine = net.state_dict()
    theirs = _with_the_last_norm_of(mine, tensors)
    if not (keep_head and _shapes(mine, "head") == _shapes(theirs, "head")):
        heads = [name for name in theirs if _part(name) in _HEADS]
        theirs = {name: theirs[name] for name in theirs if name not in heads}
    else:
        heads = []
    lacking = [name for name in mine if name not in theirs and _part(name) not in _READ_OUT]
    ignored = (*_READ_OUT, *_COMPUTED)
    left = [name for name in theirs if name not in mine and not {_part(name), name.rpartition(".")[2]} & {*ignored}]
    if lacking or left:
        raise Misfit(
            f"it lacks {_some(lacking)}" if lacking else f"it has {_some(left)}, which this model does not have"
        )
    taken = {name: theirs[name] for name in mine if name in theirs}
    grids = None
    if "pos_embed" in taken:
        assert isinstance(net, ViT)
        taken["pos_embed"], grids = _positions(net, theirs)
    for name in taken:
        if name.endswith("relative_position_bias_table"):
            taken[name] = resize_relative_positions(taken[name], rows=len(mine[name]))
    for name, tensor in taken.items():
        if tensor.shape != mine[name].shape:
            raise Misfit(f"its {name} is {list(tensor.shape)}, but {list(mine[name].shape)} is needed")
    net.load_state_dict({**mine, **taken})
    return Loaded(
        taken=len(taken),
        of=len(mine),
        new=_parts(name for name in mine if name not in taken),
        unused=_parts([*heads, *(name for name in theirs if name not in taken)]),
        grids=grids,
    )


def _refuse_another_architecture(net: nn.Module, tensors: Tensors, known: Mapping[str, Any]) -> None:
    if wrong := other_family(tensors, getattr(net, "family", "")):
        raise Misfit(wrong)
    theirs = {**architecture(shapes_of(tensors)), **known}
    mine = {**architecture(shapes_of(net.state_dict())), "num_heads": getattr(net, "num_heads", None)}
    if isinstance(net, ViT) and net.pos_embed is not None and not isinstance(net.pos_embed, nn.Parameter):
        mine["position_embedding"] = "sincos"  # which is not among the weights
    if wrong := difference(theirs, mine):
        raise Misfit(wrong)


def shapes_of(tensors: Tensors) -> Shapes:
    """Return the shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _positions(net: ViT, theirs: Tensors) -> tuple[Tensor, tuple[int, int] | None]:
    """Return the weights' position embedding on the net's grid, [1, T, dim], and both grids if they differ."""
    table = theirs["pos_embed"]
    tokens = [name for name in ("cls_token", "dist_token") if name in theirs]
    prefix = len(tokens) + net.registers
    if not _is_square(table.shape[1] - prefix) and _is_square(table.shape[1]):
        # Only patches have positions (timm's no_embed_class).
        table = torch.cat([table.new_zeros(1, prefix, table.shape[2]), table], dim=1)
    if not _is_square(table.shape[1] - prefix):
        raise Misfit(f"its {table.shape[1]} position embeddings do not form a square grid")
    grid = math.isqrt(table.shape[1] - prefix)
    patches = interpolate_position_embedding(table[:, prefix:], old_grid=grid, new_grid=net.grid_size, prefix_tokens=0)
    assert net.pos_embed is not None
    ours = net.pos_embed.detach().cpu()
    mine = [name for name, _ in net.named_parameters() if name in ("cls_token", "dist_token")]  # in this order
    of_tokens = [
        table[:, [tokens.index(name)]] if name in tokens else ours[:, [place]] for place, name in enumerate(mine)
    ]
    made = torch.cat([*of_tokens, table[:, len(tokens) : prefix], patches], dim=1)
    return made, None if grid == net.grid_size else (grid, net.grid_size)


def _with_the_last_norm_of(mine: Tensors, theirs: Tensors) -> dict[str, Tensor]:
    """Rename the last norm as in the net: fc_norm after the mean of the patches, otherwise norm."""
    ours = "fc_norm." if "fc_norm.weight" in mine else "norm."
    return {re.sub(r"^(fc_)?norm\.", ours, name): tensor for name, tensor in theirs.items()}


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def _shapes(tensors: Tensors, part: str) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items() if _part(name) == part}


def _part(name: str) -> str:
    return name.partition(".")[0]


def _parts(names: Any) -> list[str]:
    return list(dict.fromkeys(map(_part, names)))


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
