"""Explanations of one trained network, usually that of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import TypeVar

from vitexp.explain.methods.attention import cls_attention, head_attention, relevance, rollout
from vitexp.explain.methods.embedding import embeddings
from vitexp.explain.methods.grad_cam import (
    channels_first,
    elementwise_grad_cam,
    grad_cam,
    last_map_layer,
    record,
    token_grid,
)
from vitexp.explain.methods.heads import attention_entropy, head_distance, mean_attention_distance
from vitexp.explain.methods.occlusion import occlusion
from vitexp.explain.methods.patches import filter_components, shifted_filters
from vitexp.models import PyramidVisionTransformer, SwinTransformer, ViT
from vitexp.models.stems import ShiftedStem
from vitexp.models.trained_net import TrainedNet

Images = NDArray[np.uint8]  # [B, S, S, 3], prepared
Maps = NDArray[np.float32]  # [B, h, w]


class ImageSet(Protocol):
    """Prepared images and their labels, int64 [N]."""

    @property
    def labels(self) -> NDArray[np.int64]: ...

    def __len__(self) -> int: ...

    def images(self, indices: NDArray[np.int64]) -> Images:
        """Return the images with these indices, uint8 [B, S, S, 3]."""
        ...


NAMES = {
    "attention": "attention",
    "rollout": "rollout",
    "relevance": "relevance",
    "grad_cam": "Grad-CAM",
    "occlusion": "occlusion",
}
_BATCH = 32  # images; the attention of all layers is in memory at the same time

Run = TypeVar("Run", bound=TrainedNet, default=TrainedNet, covariant=True)


class Explainer(Generic[Run]):
    """Explanations of the network of `run`: prepared images uint8 [B, S, S, 3] in, arrays out.

    Stores nothing about images, so that several threads can share it.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.net = run.net
        self.vit = run.net if isinstance(run.net, ViT) else None
        self.staged = run.net if isinstance(run.net, SwinTransformer | PyramidVisionTransformer) else None

    @property
    def methods(self) -> list[str]:
        """The applicable keys of NAMES: all for a ViT; otherwise occlusion, and Grad-CAM if a layer outputs maps."""
        others = ("grad_cam", "occlusion") if self.staged or self._last_map_layer else ("occlusion",)
        return [method for method in NAMES if self.vit or method in others]

    @property
    def cells(self) -> int:
        """Cells per side of the grid on which explanations are compared: the patches, or cells of 4 pixels."""
        return self.vit.grid_size if self.vit else min(16, max(4, self.run.image_size // 4))

    @torch.no_grad()
    def probabilities(self, images: Images, *, batch_size: int = 256) -> NDArray[np.float32]:
        """Return the probability of each class: float32 [B, classes]."""
        parts = [
            self.net(self.run.prepared(some)).float().softmax(dim=1).cpu() for some in _batches(images, batch_size)
        ]
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    def maps(self, method: str, images: Images, classes: Sequence[int], *, layer: int = -1) -> Maps:
        """Explain one class per image: float32 [B, h, w]; only occlusion has negative values.

        method: one of `methods`; "attention" and "rollout" do not depend on the class.
        layer: the layer, for "attention" only.

        Raises IndexError for a layer or class that does not exist.
        """
        explain: dict[str, Callable[[Images, Sequence[int]], Maps]] = {
            "attention": lambda some, chosen: cls_attention(self._weights(some), **self._where, layer=layer),
            "rollout": lambda some, chosen: rollout(self._weights(some), **self._where),
            "relevance": self._relevance,
            "grad_cam": self._grad_cam,
            "occlusion": self._occlusion,
        }
        starts = range(0, len(images), _BATCH)
        return np.concatenate([explain[method](images[at : at + _BATCH], classes[at : at + _BATCH]) for at in starts])

    def head_maps(self, images: Images) -> NDArray[np.float32]:
        """Return the attention of each layer and head of a ViT: float32 [B, layers, heads, g, g]."""
        return np.concatenate([head_attention(self._weights(some), **self._where) for some in _batches(images, _BATCH)])

    def received(self, images: Images) -> dict[str, Maps]:
        """Return how much attention each position of a staged network receives, by block: float32 [B, h, w] each.

        The mean of the heads. "block 2.3" is the third block of the second stage. Blocks whose attention has a single
        position to choose from are left out.
        """
        assert self.staged is not None
        parts: dict[str, list[Maps]] = {}
        with torch.no_grad():
            for some in _batches(images, _BATCH):
                for stage, blocks in enumerate(self.staged.received_attention(self.run.prepared(some)), start=1):
                    for block, weights in enumerate(blocks, start=1):
                        if weights.shape[-1] > 1:
                            maps = np.asarray(weights.mean(dim=1).cpu().numpy(), np.float32)
                            parts.setdefault(f"block {stage}.{block}", []).append(maps)
        return {name: np.concatenate(maps) for name, maps in parts.items()}

    def head_diversity(
        self, images: Images
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]:
        """Return mean attention distance and entropy [layers, heads], divergence of heads, and tokens per image."""
        assert self.vit is not None
        weights = self._weights(images)
        distance = mean_attention_distance(weights, **self._grid, patch_size=self.vit.patch_size)
        distance *= self.run.image_size / (self.vit.grid_size * self.vit.patch_size)  # 1 unless images are enlarged
        return distance, attention_entropy(weights), head_distance(weights), weights[0].shape[-1]

    def as_cut(self, images: Images) -> NDArray[np.uint8]:
        """Return images as a ViT cuts them into patches, after any enlargement: uint8 [B, s, s, 3]."""
        assert self.vit is not None
        enlarged = self.vit.enlarged(torch.as_tensor(images).permute(0, 3, 1, 2).float())
        return np.asarray(enlarged.permute(0, 2, 3, 1).clamp(0, 255).round().to(torch.uint8).numpy())

    def embeddings(self, images: Images) -> NDArray[np.float32]:
        """Return the input of the classifier (the last linear layer if the network is not a ViT): float32 [B, D].

        Raises ValueError if there is no linear layer.
        """
        linear = [each for each in self.net.modules() if isinstance(each, nn.Linear)]
        if not linear:
            raise ValueError("the network has no linear layer")
        head = self.vit.head if self.vit else linear[-1]
        parts = [embeddings(self.net, head, self.run.prepared(some)) for some in _batches(images, 256)]
        return np.concatenate(parts)

    def filters(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Return the principal components of the first layer's filters and their shares; None if it has no filters."""
        stem = self.vit.patch_embed if self.vit else None
        if isinstance(stem, ShiftedStem):
            return filter_components(shifted_filters(stem.proj.weight, stem.norm.weight, patch_size=stem.patch_size))
        first = next((module for module in self.net.modules() if isinstance(module, nn.Conv2d)), None)
        if first is None or first.in_channels != 3 or first.kernel_size == (1, 1):
            return None
        return filter_components(first.weight)

    @property
    def _where(self) -> dict[str, Any]:
        assert self.vit is not None
        return {**self._grid, "has_cls": self.vit.has_cls}

    @property
    def _grid(self) -> dict[str, int]:
        assert self.vit is not None
        return {"prefix_tokens": self.vit.prefix_tokens, "grid_size": self.vit.grid_size}

    @torch.no_grad()
    def _weights(self, images: Images) -> list[Tensor]:
        assert self.vit is not None
        return self.vit.forward_with_attention(self.run.prepared(images))[1]

    def _relevance(self, images: Images, classes: Sequence[int]) -> Maps:
        assert self.vit is not None
        with torch.enable_grad():
            logits, weights = self.vit.forward_with_attention(self.run.prepared(images))
            return relevance(logits, weights, classes=classes, **self._where)

    def _grad_cam(self, images: Images, classes: Sequence[int]) -> Maps:
        prepared = self.run.prepared(images)
        if self.vit:
            recorded = record(self.net, self._early(self.vit.blocks), prepared, classes, of_input=True)
            return elementwise_grad_cam(*(token_grid(each, **self._grid) for each in recorded))
        if self.staged:
            stages = self.staged.layers if isinstance(self.staged, SwinTransformer) else self.staged.stages
            recorded = record(self.net, self._early(stages), prepared, classes, of_input=True)
            return elementwise_grad_cam(*(each.permute(0, 3, 1, 2) for each in recorded))
        layer = self._last_map_layer
        assert layer is not None
        return grad_cam(*(channels_first(each, layer) for each in record(self.net, layer, prepared, classes)))

    @staticmethod
    def _early(parts: nn.ModuleList) -> nn.Module:
        """Return the block of a ViT, or the stage of another transformer, whose input Grad-CAM reads.

        After a third of the depth, a patch still holds mostly what is at its place; later, what comes from the whole
        image. Chosen on training images (.readme/explain.md).
        """
        return parts[len(parts) // 3]

    @cached_property
    def _last_map_layer(self) -> nn.Module | None:
        """The last layer that outputs a map, which Grad-CAM reads in a convolutional network; None if there is none."""
        try:
            black = np.zeros((1, self.run.image_size, self.run.image_size, 3), np.uint8)
            return last_map_layer(self.net, self.run.prepared(black))
        except ValueError:
            return None

    def _occlusion(self, images: Images, classes: Sequence[int]) -> Maps:
        stride = max(1, self.run.image_size // self.cells)  # patches of an enlarged image may be smaller than a pixel
        window = max(stride, min(2 * stride, self.run.image_size // 2))  # not the whole image, unless it is one patch
        return occlusion(self.net, self.run.prepared(images), classes=classes, window=window, stride=stride)


def _batches(images: Images, size: int) -> list[Images]:
    return [images[at : at + size] for at in range(0, len(images), size)]
