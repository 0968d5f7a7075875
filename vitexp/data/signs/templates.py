"""The 43 signs, clean and seen from straight ahead; each is drawn once and cached."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vitexp.data.signs import discs, pictograms
from vitexp.data.signs.canvas import Canvas, Path
from vitexp.data.signs.lettering import write
from vitexp.data.signs.shapes import (
    BLACK,
    DISC,
    GRAY,
    OCTAGON,
    RED,
    WHITE,
    YELLOW,
    diamond,
    end_of_limit,
    mandatory,
    prohibition,
    triangle,
    warning,
)

_LIMITS = {0: "20", 1: "30", 2: "50", 3: "60", 4: "70", 5: "80", 7: "100", 8: "120"}
_WARNINGS: dict[int, Callable[[Canvas], None]] = {
    11: pictograms.priority_ahead,
    18: pictograms.caution,
    19: pictograms.curve_left,
    21: pictograms.double_curve,
    22: pictograms.bumpy_road,
    23: pictograms.slippery_road,
    24: pictograms.road_narrows_right,
    25: pictograms.road_work,
    26: pictograms.traffic_signals,
    27: pictograms.pedestrians,
    28: pictograms.children,
    29: pictograms.bicycles,
    30: pictograms.ice_or_snow,
    31: pictograms.wild_animals,
}
_ARROWS: dict[int, Callable[..., None]] = {
    33: discs.turn_right,
    35: discs.ahead_only,
    36: discs.straight_or_right,
    38: discs.keep_right,
    40: discs.roundabout,
}
_MIRRORED = {20: 19, 34: 33, 37: 36, 39: 38}


@cache
def template(label: int, *, older: bool, side: int) -> NDArray[np.uint8]:
    """Return the sign of class `label`, transparent outside: RGBA uint8 [side, side, 4], premultiplied by alpha.

    older: use the earlier design, if there is one: filled arrow heads and gray end bars.
    """
    if label in _MIRRORED:
        return np.ascontiguousarray(template(_MIRRORED[label], older=older, side=side)[:, ::-1])
    canvas = Canvas(side=side)
    return canvas.cut(_paint(canvas, label, older=older))


def _paint(canvas: Canvas, label: int, *, older: bool) -> Path:
    """Paint the sign and return the outline of its board."""
    if label in _WARNINGS:
        outline = warning(canvas)
        _WARNINGS[label](canvas)
        return outline
    if label in _ARROWS:
        outline = mandatory(canvas)
        _ARROWS[label](canvas, solid=older)
        return outline
    if label in (6, 32, 41, 42):
        outline = end_of_limit(canvas)
        if older:
            discs.end_band(canvas)
        if label == 6:
            write(canvas, "80", GRAY, height=0.95, width=0.6, pen=0.16, gap=0.1)
        elif label == 41:
            discs.no_passing(canvas, GRAY, GRAY, 1.12)
        elif label == 42:
            discs.no_passing_for_trucks(canvas, GRAY, GRAY)
        if not older:
            discs.end_lines(canvas)
        return outline
    if label == 12:
        return _priority_road(canvas)
    if label == 13:
        return _yield(canvas)
    if label == 14:
        return _stop(canvas)
    if label == 17:
        return _no_entry(canvas)
    outline = prohibition(canvas)
    if label in _LIMITS:
        narrow = len(_LIMITS[label]) == 3
        width, pen, gap = (0.34, 0.125, 0.08) if narrow else (0.51, 0.14, 0.09)
        write(canvas, _LIMITS[label], BLACK, height=0.86, width=width, pen=pen, gap=gap)
    elif label == 9:
        discs.no_passing(canvas, RED, BLACK)
    elif label == 10:
        discs.no_passing_for_trucks(canvas, RED, BLACK)
    elif label == 16:
        discs.no_trucks(canvas)
    return outline


def _priority_road(canvas: Canvas) -> Path:
    canvas.polygon(diamond(1.0), WHITE)
    canvas.polygon(diamond(0.97), BLACK)
    canvas.polygon(diamond(0.93), WHITE)
    canvas.polygon(diamond(0.58), BLACK)
    canvas.polygon(diamond(0.55), YELLOW)
    return diamond(1.0)


def _yield(canvas: Canvas) -> Path:
    canvas.polygon(triangle(upright=False), WHITE)
    canvas.polygon(triangle(0.025, 0.055, upright=False), RED)
    canvas.polygon(triangle(0.2, 0.02, upright=False), WHITE)
    return triangle(upright=False)


def _stop(canvas: Canvas) -> Path:
    canvas.polygon(OCTAGON, WHITE)
    canvas.polygon([(0.93 * x, 0.93 * y) for x, y in OCTAGON], RED)
    write(canvas, "STOP", WHITE, height=0.6, width=0.33, pen=0.11, gap=0.08)
    return OCTAGON


def _no_entry(canvas: Canvas) -> Path:
    canvas.polygon(DISC, WHITE)
    canvas.disc((0, 0), 0.96, RED)
    canvas.stroke([(-0.83, 0), (0.83, 0)], 0.33, WHITE)
    return DISC
