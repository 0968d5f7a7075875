"""Grad-CAM (Selvaraju et al. 2017) for the maps of convolutional networks and the token grid of a transformer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def grad_cam(activations: Tensor, gradients: Tensor) -> NDArray[np.float32]:
    """Return where a layer supports the class: float32 [B, h, w], 0 or more.

    The sum of the channels, weighted by their mean gradients, without negative values (equations 1 and 2).

    Args:
        activations: output of a layer, [B, channels, h, w].
        gradients: gradient of the class score with respect to it, of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    _refuse_other_shapes(activations, gradients)
    weights = gradients.detach().float().mean(dim=(2, 3), keepdim=True)
    maps = (weights * activations.detach().float()).sum(dim=1).clamp(min=0)
    return np.asarray(maps.cpu().numpy(), dtype=np.float32)


def elementwise_grad_cam(activations: Tensor, gradients: Tensor) -> NDArray[np.float32]:
    """Return where a layer supports the class: float32 [B, h, w], 0 or more.

    The sum of the channels, each multiplied by its gradient at the same position, without negative products. In a
    transformer the mean gradient of a channel says little, because positions do not share filters. This is
    GradCAMElementWise of pytorch-grad-cam (Gildenblat et al. 2021); of the input of a block, it is the positive part of
    Captum's LayerGradientXActivation. Arguments and exceptions as in `grad_cam`.
    """
    _refuse_other_shapes(activations, gradients)
    maps = (activations.detach().float() * gradients.detach().float()).clamp(min=0).sum(dim=1)
    return np.asarray(maps.cpu().numpy(), dtype=np.float32)


def _refuse_other_shapes(activations: Tensor, gradients: Tensor) -> None:
    if activations.ndim != 4 or activations.shape != gradients.shape:
        raise ValueError(
            f"activations {tuple(activations.shape)} and gradients {tuple(gradients.shape)} must both be "
            "[B, channels, h, w]"
        )


def record(
    net: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int] | Tensor, *, of_input: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the output of `layer` for images, and the gradient of each image's class logit with respect to it.

    Args:
        net: images to logits [B, C]; `layer` is one of its modules, called once.
        classes: B classes, one per image.
        of_input: return the input of `layer` and the gradient with respect to that instead.

    Raises:
        IndexError: the class does not exist.
        ValueError: the network does not call `layer`, or the number of classes is not B.
    """
    with torch.enable_grad(), calls_of(layer) as calls:
        # With a gradient for the images, there is one at the layer even if all weights are frozen.
        score = class_scores(net(images.detach().requires_grad_()), classes).sum()
    if not calls:
        raise ValueError("the network does not call this layer")
    found = calls[-1][0 if of_input else 1]
    [gradient] = torch.autograd.grad(score, [found])
    return found.detach(), gradient


def token_grid(tokens: Tensor, *, prefix_tokens: int, grid_size: int) -> Tensor:
    """Arrange patch tokens [B, T, channels] as a map [B, channels, g, g], without the prefix."""
    patches = tokens[:, prefix_tokens:].transpose(1, 2)
    return patches.reshape(*patches.shape[:2], grid_size, grid_size)


def channels_first(output: Tensor, layer: nn.Module) -> Tensor:
    """Return the output of a layer for square images, [B, channels, h, w] or [B, h, w, channels], in the first form.

    The two equal sides are those of the map; if all three are equal, the type of the layer decides.
    """
    first, second, third = output.shape[1:]
    is_last = first == second and (third != first or isinstance(layer, nn.LayerNorm | nn.Linear))
    return output.permute(0, 3, 1, 2) if is_last else output


def last_map_layer(net: nn.Module, images: Tensor, *, side: int = 4) -> nn.Module:
    """Return the module that outputs the last map with a height and width of at least `side`.

    Raises ValueError if there is none.
    """
    found: list[nn.Module] = []

    def note(module: nn.Module, arguments: object, output: object) -> None:
        if module is net or not isinstance(output, Tensor) or output.ndim != 4:
            return
        height, width = channels_first(output, module).shape[2:]
        if height == width >= side:
            found.append(module)

    handles = [module.register_forward_hook(note) for module in net.modules()]
    try:
        with torch.no_grad():
            net(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(f"no layer of the network outputs maps of {side} x {side} or more")
    return found[-1]


def class_scores(logits: Tensor, classes: Sequence[int] | Tensor) -> Tensor:
    """Return the logit of one class per image: [B, C] and B classes to [B].

    Raises IndexError for a class that does not exist, ValueError unless there is one class per image.
    """
    chosen = torch.as_tensor(classes, device=logits.device, dtype=torch.int64)
    if chosen.shape != logits.shape[:1]:
        raise ValueError(f"need one class for each of {len(logits)} images; got {tuple(chosen.shape)}")
    if bool(((chosen < 0) | (chosen >= logits.shape[1])).any()):
        raise IndexError(f"classes range from 0 to {logits.shape[1] - 1}; got {chosen.tolist()}")
    return logits.gather(1, chosen[:, None])[:, 0]


@contextmanager
def calls_of(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Record the input and output of each call of `module` by this thread in the yielded list.

    Other threads may run the same network at the same time, for example in a web app.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    mine = threading.get_ident()

    def note(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        if threading.get_ident() == mine:
            calls.append((given[0], made))

    handle = module.register_forward_hook(note)
    try:
        yield calls
    finally:
        handle.remove()
