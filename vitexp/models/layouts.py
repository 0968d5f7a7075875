"""Convert published weights of ViTs to the names and layouts of ViT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vitexp.models.checkpoint_names import Publisher, renamed

Tensors = Mapping[str, Tensor]


def in_our_names(tensors: Tensors, publisher: Publisher) -> dict[str, Tensor]:
    """Return the tensors with the names and layouts of ViT; unknown names are kept."""
    made = renamed(tensors, publisher)
    return dict(_as_torch_lays_out(made)) if publisher == "google" else made


def heads_of(tensors: Tensors) -> int | None:
    """Return the number of attention heads if the shapes show it, as in Google's arrays."""
    query = tensors.get("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel")
    return None if query is None else query.shape[1]


def _as_torch_lays_out(tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    """Convert Flax layouts, (height, width, in, out) or (in, out), perhaps with heads, to torch's (out, in, ...)."""
    for name, tensor in tensors.items():
        if ".attn.query." in name:  # (in, heads, head_dim); the bias has no `in`
            parts = [tensors[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            joined = torch.cat([part.flatten(-2) for part in parts], dim=-1)
            yield name.replace(".query.", ".qkv."), joined.T if joined.ndim == 2 else joined
        elif ".attn.key." in name or ".attn.value." in name:
            continue  # joined with the query
        elif name.endswith(".attn.proj.weight"):  # (heads, head_dim, out)
            yield name, tensor.flatten(0, 1).T
        elif name.endswith(".weight") and tensor.ndim == 4:
            yield name, tensor.permute(3, 2, 0, 1)
        else:
            yield name, tensor.T if name.endswith(".weight") and tensor.ndim == 2 else tensor
