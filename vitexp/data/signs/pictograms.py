"""The black pictograms of the warning triangles, with proportions measured on photographs of real signs."""

from __future__ import annotations

import numpy as np

from vitexp.data.signs.canvas import Canvas, Point, arc, moved
from vitexp.data.signs.shapes import BLACK, GREEN, RED, YELLOW


def priority_ahead(canvas: Canvas) -> None:
    shaft = [(0.155, -0.03), (0.155, 0.56), (0, 0.5), (-0.155, 0.56), (-0.155, -0.03)]
    canvas.polygon([(0, -0.26), (0.22, -0.03), *shaft, (-0.22, -0.03)], BLACK)
    canvas.stroke([(-0.37, 0.2), (0.37, 0.2)], 0.11, BLACK)


def caution(canvas: Canvas) -> None:
    canvas.polygon([(-0.075, -0.24), (0.075, -0.24), (0.035, 0.36), (-0.035, 0.36)], BLACK)
    canvas.disc((0, -0.24), (0.075, 0.05), BLACK)
    canvas.disc((0, 0.52), 0.085, BLACK)


def curve_left(canvas: Canvas) -> None:
    bend = arc((0.05, 0.36), (0.22, 0.2), 0, -90)
    canvas.stroke([(0.27, 0.6), (0.27, 0.36), *bend, (-0.2, 0.15)], (0.22, 0.15), BLACK)
    canvas.polygon([(-0.17, 0.05), (-0.3, 0.14), (-0.17, 0.26)], BLACK)


def double_curve(canvas: Canvas) -> None:
    canvas.stroke([(0.2, 0.63), (0.2, 0.26), (-0.15, 0.4), (-0.15, 0.0)], (0.17, 0.14), BLACK)
    canvas.polygon([(-0.23, 0.01), (-0.15, -0.12), (-0.07, 0.01)], BLACK)


def bumpy_road(canvas: Canvas) -> None:
    hump = arc((0, 0), (0.19, 0.2), -180, 0)
    for x in (-0.19, 0.19):
        canvas.polygon(moved(hump, (x, 0.52)), BLACK)
    canvas.stroke([(-0.47, 0.54), (0.47, 0.54)], 0.09, BLACK)


def slippery_road(canvas: Canvas) -> None:
    middle, turn = (0.04, 0.17), 13.0
    body = [(-0.33, -0.04), (-0.29, -0.1), (0.29, -0.1), (0.33, -0.04), (0.33, 0.12), (-0.33, 0.12)]
    canvas.polygon(moved(body, middle, turn=turn), BLACK)
    for x in (-0.24, 0.24):
        canvas.stroke(moved([(x, 0.08), (x, 0.2)], middle, turn=turn), 0.11, BLACK)
    roof = [(-0.28, -0.06), (-0.22, -0.26), (0.22, -0.26), (0.28, -0.06)]
    canvas.stroke(moved(roof, middle, turn=turn), 0.05, BLACK)
    t = np.linspace(0, 1, 16)
    for start, sway in (((-0.16, 0.4), -0.16), ((0.22, 0.46), -0.13)):
        xs = start[0] + sway * np.sin(t * 2 * np.pi) + 0.08 * t
        canvas.stroke(np.column_stack([xs, start[1] + (0.66 - start[1]) * t]), 0.06, BLACK)


def road_narrows_right(canvas: Canvas) -> None:
    canvas.stroke([(-0.13, -0.04), (-0.13, 0.62)], 0.11, BLACK)
    canvas.stroke([(0.07, -0.04), (0.07, 0.16), (0.23, 0.34), (0.23, 0.62)], 0.11, BLACK)


def road_work(canvas: Canvas) -> None:
    canvas.disc((0.08, -0.07), 0.075, BLACK)
    canvas.polygon([(0.0, 0.02), (-0.14, 0.0), (-0.24, 0.1), (-0.29, 0.34), (-0.1, 0.36), (-0.03, 0.2)], BLACK)
    canvas.stroke([(-0.03, 0.06), (0.02, 0.22), (-0.02, 0.34)], 0.075, BLACK)  # near arm
    canvas.stroke([(-0.18, 0.24), (0.14, 0.56)], 0.04, BLACK)  # shovel
    canvas.stroke([(-0.22, 0.32), (-0.29, 0.46), (-0.39, 0.64)], 0.11, BLACK)
    canvas.stroke([(-0.16, 0.32), (-0.09, 0.46), (-0.09, 0.64)], 0.11, BLACK)
    canvas.polygon([(0.03, 0.64), (0.24, 0.37), (0.33, 0.37), (0.56, 0.64)], BLACK)


def traffic_signals(canvas: Canvas) -> None:
    for y, color in ((-0.19, RED), (0.14, YELLOW), (0.47, GREEN)):
        canvas.disc((0, y), 0.148, color)


def pedestrians(canvas: Canvas) -> None:
    canvas.disc((-0.07, -0.2), 0.08, BLACK)
    canvas.polygon([(-0.17, -0.08), (0.06, -0.08), (0.1, 0.1), (0.09, 0.34), (-0.1, 0.34), (-0.1, 0.1)], BLACK)
    canvas.stroke([(-0.14, -0.03), (-0.19, 0.12), (-0.26, 0.26)], 0.075, BLACK)
    canvas.stroke([(0.05, -0.03), (0.16, 0.14), (0.13, 0.28)], 0.075, BLACK)
    canvas.stroke([(-0.04, 0.3), (-0.12, 0.46), (-0.22, 0.65)], 0.11, BLACK)
    canvas.stroke([(0.03, 0.3), (0.13, 0.46), (0.22, 0.63)], 0.11, BLACK)


def children(canvas: Canvas) -> None:
    canvas.disc((0.12, -0.04), 0.075, BLACK)
    canvas.polygon([(0.03, 0.06), (0.2, 0.06), (0.23, 0.38), (0.08, 0.38)], BLACK)
    canvas.stroke([(0.06, 0.1), (-0.02, 0.24), (-0.12, 0.28)], 0.065, BLACK)
    canvas.stroke([(0.18, 0.1), (0.29, 0.22), (0.36, 0.2)], 0.065, BLACK)
    canvas.stroke([(0.12, 0.34), (0.09, 0.5), (0.07, 0.66)], 0.085, BLACK)
    canvas.stroke([(0.18, 0.34), (0.3, 0.47), (0.46, 0.5)], 0.085, BLACK)
    canvas.disc((-0.27, 0.2), 0.062, BLACK)
    canvas.polygon([(-0.32, 0.27), (-0.22, 0.27), (-0.15, 0.5), (-0.38, 0.5)], BLACK)
    canvas.stroke([(-0.3, 0.3), (-0.38, 0.38), (-0.44, 0.36)], 0.055, BLACK)
    canvas.stroke([(-0.23, 0.3), (-0.14, 0.33), (-0.08, 0.27)], 0.055, BLACK)
    canvas.stroke([(-0.3, 0.47), (-0.32, 0.58), (-0.3, 0.66)], 0.065, BLACK)
    canvas.stroke([(-0.22, 0.47), (-0.12, 0.57), (-0.04, 0.56)], 0.065, BLACK)


def bicycles(canvas: Canvas) -> None:
    front, back, crank, saddle, head = (-0.33, 0.46), (0.33, 0.46), (0.0, 0.46), (0.11, 0.16), (-0.2, 0.16)
    for hub in (front, back):
        canvas.stroke(arc(hub, 0.195, 0, 366), 0.05, BLACK)
    tubes: list[list[Point]] = [
        [front, head, (-0.17, 0.06)], [(-0.27, 0.05), (-0.1, 0.05)], [head, crank, saddle, head],
        [crank, back, saddle], [saddle, (0.13, 0.08)], [(0.04, 0.07), (0.22, 0.07)],
    ]  # fmt: skip
    for tube in tubes:
        canvas.stroke(tube, 0.05, BLACK)


def ice_or_snow(canvas: Canvas) -> None:
    center = (0.0, 0.27)
    for turn in range(0, 360, 60):
        canvas.stroke(moved([(0, 0), (0, -0.37)], center, turn=turn), 0.065, BLACK)
        canvas.stroke(moved([(-0.12, -0.31), (0, -0.2), (0.12, -0.31)], center, turn=turn), 0.06, BLACK)


def wild_animals(canvas: Canvas) -> None:
    back = [(-0.13, -0.07), (-0.05, -0.05), (-0.01, 0.08), (0.06, 0.19), (0.26, 0.25), (0.37, 0.33), (0.44, 0.47)]
    belly = [(0.34, 0.5), (0.14, 0.42), (-0.04, 0.37), (-0.11, 0.26), (-0.12, 0.08), (-0.24, 0.03)]
    canvas.polygon([*back, *belly], BLACK)
    canvas.stroke([(-0.1, -0.03), (-0.1, -0.16), (-0.02, -0.22)], 0.045, BLACK)  # antlers
    canvas.stroke([(-0.06, -0.03), (0.02, -0.11), (0.06, -0.19)], 0.045, BLACK)
    canvas.stroke([(-0.05, 0.3), (-0.19, 0.36), (-0.14, 0.47)], (0.09, 0.05), BLACK)
    canvas.stroke([(0.0, 0.34), (-0.1, 0.44), (-0.03, 0.52)], (0.09, 0.05), BLACK)
    canvas.stroke([(0.36, 0.42), (0.44, 0.54), (0.57, 0.67)], (0.11, 0.04), BLACK)
    canvas.stroke([(0.28, 0.42), (0.37, 0.58), (0.46, 0.68)], (0.1, 0.04), BLACK)
    canvas.stroke([(0.36, 0.34), (0.44, 0.32)], 0.06, BLACK)  # tail
