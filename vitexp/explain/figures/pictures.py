"""One image, one map, or a map laid over an image, in axes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vitexp.explain.figures.style import DPI, SMALL_SIZE

_COLOURS: Final = "magma"
_OPAQUE: Final = 0.55  # a map over an image
# Larger images are photographs, whose PNG grows with every dot.
_SMALL_IMAGE: Final = 64


def show_image(axes: Axes, image: NDArray[Any]) -> None:
    """[H, W, 3], uint8 or in [0, 1]."""
    axes.imshow(image, interpolation=_interpolation(image))


def show_map(axes: Axes, values: NDArray[np.floating], *, size: tuple[int, int]) -> None:
    """A map [h, w] cell by cell, from its own lowest to its own highest value, as large as an image of `size`."""
    axes.imshow(values, cmap=_COLOURS, extent=(0, size[1], size[0], 0), interpolation="nearest")
    _say_if_flat(axes, values)


def show_overlay(axes: Axes, values: NDArray[np.floating], image: NDArray[np.uint8]) -> None:
    """A map [h, w], smoothed, over the image."""
    extent = (0, image.shape[1], image.shape[0], 0)
    # Grey below, so that all colour is the map; stretched, because many street photographs are nearly black.
    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    axes.imshow(grey, cmap="gray", extent=extent, interpolation=_interpolation(image))
    axes.imshow(values, cmap=_COLOURS, extent=extent, interpolation="bicubic", alpha=_OPAQUE)
    _say_if_flat(axes, values)


def show_scale(axes: Axes, *, overlay: bool) -> None:
    """The colours of maps from the lowest value, left, to the highest; as they look over a grey image, or bare."""
    if overlay:
        axes.imshow([[0.5]], cmap="gray", vmin=0, vmax=1, extent=(0, 1, 0, 1), aspect="auto")
    shades = np.linspace(0, 1, 256)[None]
    axes.imshow(shades, cmap=_COLOURS, extent=(0, 1, 0, 1), aspect="auto", alpha=_OPAQUE if overlay else 1.0)


def _say_if_flat(axes: Axes, values: NDArray[np.floating]) -> None:
    """A map without a highest value looks like one of low values."""
    if np.ptp(values) == 0:
        within = axes.transAxes
        axes.text(0.5, 0.05, "flat", transform=within, ha="center", va="bottom", fontsize=SMALL_SIZE, color="white")


def dpi_for(images: NDArray[Any]) -> int:
    """Dots an inch for a figure of images [N, H, W, 3]."""
    return DPI if images.shape[1] <= _SMALL_IMAGE else 115


def _interpolation(image: NDArray[Any]) -> str:
    """Small images keep their pixels; large ones are scaled down without aliasing."""
    return "nearest" if image.shape[0] <= _SMALL_IMAGE else "auto"
