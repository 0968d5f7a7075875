"""Weights under the names that timm gives them, and back: the same as ours but for two kinds of networks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vitexp.models.timm_model import TimmModel
from vitexp.models.vit import ViT


def weights_for_timm(net: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a network that timm has, on the CPU, under timm's names."""
    inner = net.net if isinstance(net, TimmModel) else net
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in inner.state_dict().items()}
    if isinstance(net, ViT) and net.pos_embed is not None:  # a fixed one is a parameter there, and not a weight here
        weights.setdefault("pos_embed", net.pos_embed.detach().cpu().contiguous())
    return weights


def weights_from_timm(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `weights_for_timm` made of a network like `net` under the names of `net`."""
    if isinstance(net, TimmModel):
        return {f"net.{name}": tensor for name, tensor in weights.items()}
    is_fixed = isinstance(net, ViT) and "pos_embed" not in net.state_dict()
    return {name: tensor for name, tensor in weights.items() if not (is_fixed and name == "pos_embed")}
