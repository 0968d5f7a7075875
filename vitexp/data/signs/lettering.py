"""The digits and letters on German signs, similar to DIN 1451: lines and arcs of one width."""

from __future__ import annotations

from vitexp.data.signs.canvas import Canvas, Color, Point, arc, moved

Glyph = list[list[Point]]


def _glyph(character: str, width: float, pen: float) -> Glyph:
    """Return the center lines of a character of height 1, `width` wide, drawn with stroke width `pen`."""
    left, right, top, bottom = pen / 2, width - pen / 2, pen / 2, 1 - pen / 2
    mid = width / 2
    rx = (width - pen) / 2
    waist = 0.48
    match character:
        case "0" | "O":
            ry = min(1.15 * rx, 0.5 - pen / 2)
            oval = arc((mid, top + ry), (rx, ry), 180, 360) + arc((mid, bottom - ry), (rx, ry), 0, 180)
            return [[*oval, oval[0], oval[1]]]
        case "1":
            return [[(right, 0), (right, 1)], [(right - 0.02, pen * 0.45), (right - 1.7 * pen, 0.27)]]
        case "2":
            bowl = arc((mid, top + rx), rx, 195, 385)
            return [[*bowl, (left + pen * 0.35, bottom)], [(0, bottom), (width, bottom)]]
        case "3":
            upper = arc((mid, top + (waist - top) / 2), (rx * 0.94, (waist - top) / 2), 205, 450)
            lower = arc((mid, (waist + bottom) / 2), (rx, (bottom - waist) / 2), -90, 160)
            return [upper, [(mid * 0.7, waist), (mid, waist)], lower]
        case "5":
            center = (mid, bottom - rx * 1.2)
            bowl = arc(center, (rx, rx * 1.2), -125, 155)
            return [[(left + pen / 2, top), (width * 0.95, top)], [(left, 0), (left, 0.54)], [(left, 0.5), *bowl]]
        case "6":
            ry = rx * 1.16
            bowl = arc((mid, bottom - ry), (rx, ry), 0, 366)
            return [bowl, [*arc((mid, bottom - ry), (rx, ry), 180, 215), (mid + pen * 0.5, 0)]]
        case "7":
            return [[(0, top), (width, top)], [(right, top), (width * 0.33, 1)]]
        case "8":
            upper = arc((mid, (top + waist) / 2), (rx * 0.92, (waist - top) / 2), 0, 366)
            lower = arc((mid, (waist + bottom) / 2), (rx, (bottom - waist) / 2), 0, 366)
            return [upper, lower]
        case "S":
            upper = arc((mid, (top + 0.5) / 2), (rx, (0.5 - top) / 2), 335, 110)
            lower = arc((mid, (bottom + 0.5) / 2), (rx, (bottom - 0.5) / 2), 290, 515)
            return [[*upper, *lower]]
        case "T":
            return [[(0, top), (width, top)], [(mid, 0), (mid, 1)]]
        case "P":
            bowl = arc((right - 0.27, top + 0.24), (0.27, 0.24), -90, 90)
            return [[(left, 0), (left, 1)], [(left, top), *bowl, (left, top + 0.48)]]
    raise ValueError(f"there is no glyph for {character!r}")


def write(canvas: Canvas, text: str, color: Color, *, height: float, width: float, pen: float, gap: float) -> None:
    """Write centered text; height, glyph width, stroke and gap between glyphs in units of the canvas."""
    widths = [width * (0.62 if character == "1" else 1.0) for character in text]
    x = -(sum(widths) + gap * (len(text) - 1)) / 2
    for character, advance in zip(text, widths, strict=True):
        for line in _glyph(character, advance / height, pen / height):
            canvas.stroke(moved(line, (x, -height / 2), height), pen, color)
        x += advance + gap
