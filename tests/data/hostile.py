"""The files of a hostile folder, and the expected result of reading each."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.data.encode import bmp_of, chunk, encoded, jpeg_of_scans, png, png_of, webp_of, zeros

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Kind:
    """A file called `name`, written by `make`, and the result of reading it.

    expected: the pixels uint8 [H, W, 3] that a viewer shows, within `tolerance`; or the reason why it is refused, a
    regular expression; or None if it is not a file and is not listed.
    """

    name: str
    make: Callable[[Path], Any]
    expected: Pixels | str | None
    tolerance: int = 0


def _file(name: str, content: bytes, expected: Pixels | str, tolerance: int = 0) -> Kind:
    return Kind(name, lambda path: path.write_bytes(content), expected, tolerance)


_random = np.random.default_rng(0)
RGB = _random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
_16 = np.arange(54).reshape(6, 9, 1) * 1213 % 65536  # 16 bits per value
_DEEP = np.concatenate([_16, 65535 - _16, _16 // 2], axis=2)
_LEVELS = np.arange(54).reshape(6, 9, 1)
# Blocks of a single color survive JPEG compression.
BLOCKS = np.array([[[200, 40, 40], [40, 200, 40], [40, 40, 200]], [[0, 0, 0], [255, 255, 255], [90, 90, 90]]], np.uint8)
LARGE = BLOCKS.repeat(16, 0).repeat(16, 1)


def _grey(values: NDArray[Any]) -> Pixels:
    """Convert values [H, W, 1] in [0, 1] to RGB."""
    return np.round(values * 255).astype(np.uint8).repeat(3, axis=2)


def _on_white(colour: NDArray[Any], alpha: NDArray[Any]) -> Pixels:
    """Blend values with white. Both arguments are in [0, 1]."""
    return np.round((colour * alpha + 1 - alpha) * 255).astype(np.uint8) * np.ones((1, 1, 3), np.uint8)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _turned(upright: Pixels, orientation: int) -> Pixels:
    """Return the pixels that a camera stores with this EXIF orientation."""
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, k=-1),
    }[orientation]
    return np.ascontiguousarray(stored)


def _pngs() -> list[Kind]:
    kinds = []
    for depth in (1, 2, 4, 8, 16):
        top = (1 << depth) - 1
        values = _16 if depth == 16 else _LEVELS % (top + 1)
        hidden = int(values[3, 4, 0])
        key = chunk(b"tRNS", struct.pack(">H", hidden))
        seen = np.where(values == hidden, top, values) / top
        kinds.append(_file(f"grey of {depth} bits.png", png(values, depth, 0), _grey(values / top)))
        kinds.append(_file(f"grey of {depth} bits, one clear.png", png(values, depth, 0, key), _grey(seen)))
    table = _random.integers(0, 256, (16, 3), dtype=np.uint8)
    indices = _LEVELS % 16
    colours, alpha = chunk(b"PLTE", table.tobytes()), np.arange(16)[:, None] * 17
    clear = chunk(b"tRNS", alpha.astype(np.uint8).tobytes())
    seen = _on_white(table[indices[..., 0]] / 255, alpha[indices[..., 0]] / 255)
    rgba, la = np.concatenate([RGB, _LEVELS * 4], axis=2), np.concatenate([_LEVELS * 4, _LEVELS], axis=2)
    key = chunk(b"tRNS", struct.pack(">3H", *RGB[2, 5].tolist()))
    one_clear = RGB.copy()
    one_clear[2, 5] = 255
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB))
    crumbs = b"".join(chunk(b"IDAT", pixels[i : i + 1]) for i in range(len(pixels)))
    whole = png(RGB, 8, 2)
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    lied, bomb = chunk(b"IDAT", pixels, checksum=1), zeros(1 << 26)
    return [
        *kinds,
        _file("palette.png", png(indices, 4, 3, colours), table[indices[..., 0]]),
        _file("palette, partly clear.png", png(indices, 4, 3, colours, clear), seen, 1),
        _file("16 bits of colour.png", png(_DEEP, 16, 2), np.round(_DEEP / 257).astype(np.uint8), 1),
        _file(
            "16 bits of colour and alpha.png",
            png(np.concatenate([_DEEP, _16], axis=2), 16, 6),
            _on_white(_DEEP / 65535, _16 / 65535),
            2,
        ),
        _file("16 bits of grey and alpha.png", png(_DEEP[..., :2], 16, 4), _on_white(_16 / 65535, 1 - _16 / 65535), 2),
        _file("grey and alpha.png", png(la, 8, 4), _on_white(la[..., :1] / 255, la[..., 1:] / 255), 1),
        _file("colour and alpha.png", png(rgba, 8, 6), _on_white(RGB / 255, rgba[..., 3:] / 255), 1),
        _file("colour, one clear.png", png(RGB, 8, 2, key), one_clear),
        _file("16 bits of colour, one clear.png", png(_DEEP, 16, 2, key), "a transparent 16-bit color"),
        _file("interlaced.png", png(RGB, 8, 2, interlaced=True), RGB),
        _file("interlaced, 1 bit.png", png(_LEVELS % 2, 1, 0, interlaced=True), _grey(_LEVELS % 2)),
        _file("in crumbs.png", png_of(9, 6, 8, 2, crumbs), RGB),
        _file("animated.png", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), RGB),
        _file("garbage after it.png", whole + os.urandom(5000), RGB),
        _file("without its end.png", whole[:-12], "truncated"),
        _file("wrong checksum of the pixels.png", png_of(9, 6, 8, 2, lied), "checksum"),
        _file("wrong checksum of the header.png", whole[:29] + b"xxxx" + whole[33:], "header is damaged"),
        _file("wrong pixels.png", png_of(9, 6, 8, 2, chunk(b"IDAT", pixels[:-1] + b"x")), "data stream|truncated"),
        _file("EXIF.png", encoded(Image.fromarray(_turned(RGB, 6)), "PNG", exif=_exif(6)), RGB),
        _file("damaged EXIF.png", png(RGB, 8, 2, chunk(b"eXIf", b"II*\0\xff\xff\xff")), RGB),
        _file("EXIF of no numbers.png", png(RGB, 8, 2, chunk(b"zTXt", _bad_profile())), RGB),
        _file("more pixels than it says.png", png_of(2, 2, 8, 2, chunk(b"IDAT", zeros(50 << 20))), RGB[:2, :2] * 0),
        _file("no pixels.png", png_of(9, 6, 8, 2), "."),
        _file("no palette.png", png(indices, 4, 3), "."),
        _file("no width.png", png_of(0, 6, 8, 2, chunk(b"IDAT", pixels)), "."),
        _file("depth of 3.png", png_of(9, 6, 3, 2, chunk(b"IDAT", pixels)), "."),
        _file("two billion wide.png", png_of(2**31 - 1, 2**31 - 1, 8, 6, chunk(b"IDAT", pixels)), "pixels"),
        _file("many pixels.png", png_of(60_000, 2_000, 1, 0, chunk(b"IDAT", zeros(15_002_000))), "60000 x 2000 pixels"),
        _file("70,000 wide.png", png_of(70_000, 1, 1, 0, chunk(b"IDAT", zeros(8751))), "70000 x 1 pixels"),
        _file("text bomb.png", png(RGB, 8, 2, chunk(b"zTXt", b"a\0\0" + bomb)), "too large"),
        _file("international text bomb.png", png(RGB, 8, 2, chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)), "large"),
        _file("profile bomb.png", png(RGB, 8, 2, chunk(b"iCCP", b"a\0\0" + bomb)), "too large"),
    ]


def _bad_profile() -> bytes:
    return b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  4\nno hexadecimal digits")


def _jpeg(image: Image.Image, **options: Any) -> bytes:
    return encoded(image, "JPEG", quality=95, subsampling=0, **options)


def _jpegs() -> list[Kind]:
    image = Image.fromarray(LARGE)
    plain = _jpeg(image)
    turned = [
        _file(
            f"EXIF {orientation}.jpg",
            _jpeg(Image.fromarray(_turned(LARGE, orientation)), exif=_exif(orientation)),
            LARGE,
            5,
        )
        for orientation in range(1, 9)
    ]
    ink = (255 - LARGE.astype(int)) * 2 // 3
    cmyk = np.concatenate([ink, np.full((*ink.shape[:2], 1), 50)], axis=2).astype(np.uint8)
    inked = _jpeg(Image.fromarray(cmyk, "CMYK"))
    printed = np.round((255 - ink) * (255 - 50) / 255).astype(np.uint8)
    # Adobe inverts: the files hold 255 - ink, and luma and chroma as if the inks were red, green and blue.
    luma = np.asarray(Image.fromarray(ink.astype(np.uint8)).convert("YCbCr"))
    ycck = np.concatenate([255 - luma, cmyk[..., 3:]], axis=2)
    said = bytearray(_jpeg(Image.fromarray(ycck, "CMYK")))
    said[said.index(b"Adobe") + 11] = 2
    progressive = _jpeg(image, progressive=True)
    frame, of_grey = plain.index(b"\xff\xc0"), _jpeg(image.convert("L"))
    return [
        *turned,
        _file("EXIF 9.jpg", _jpeg(image, exif=_exif(9)), LARGE, 5),
        _file("EXIF of text.jpg", _with_exif(plain, b"\x08\0\0\0\1\0\x12\1\2\0\3\0\0\0up\0\0\0\0\0\0"), LARGE, 5),
        _file("damaged EXIF.jpg", _with_exif(plain, b"\xff\xff"), LARGE, 5),
        _file("grey.jpg", of_grey, np.asarray(image.convert("L"))[..., None].repeat(3, 2), 4),
        _file("progressive.jpg", progressive, LARGE, 5),
        _file("CMYK.jpg", inked, printed, 6),
        _file("YCCK.jpg", bytes(said), printed, 6),
        _file("garbage after it.jpg", plain + os.urandom(5000), LARGE, 5),
        _file("two in one.jpg", encoded(image, "MPO", save_all=True, quality=95, subsampling=0), LARGE, 5),
        _file("a JPEG.png", plain, LARGE, 5),
        _file("cut after 2 bytes.jpg", plain[:2], "."),
        _file("cut in the header.jpg", plain[:200], "."),
        _file("cut in half.jpg", plain[: len(plain) // 2], "[Tt]runcated"),
        _file("cut, progressive.jpg", progressive[: len(progressive) // 2], "."),
        _file("12 bits.jpg", plain[: frame + 4] + b"\x0c" + plain[frame + 5 :], "."),
        _file("no height.jpg", plain[: frame + 5] + b"\0\0" + plain[frame + 7 :], "."),
        _file("no tables.jpg", plain[:2] + plain[frame:], "."),
        _file("70,000 scans.jpg", jpeg_of_scans(8000, 70_000), "more than 100 scans"),
    ]


def _with_exif(jpeg: bytes, content: bytes) -> bytes:
    exif = b"Exif\0\0II*\0" + content
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def _others() -> list[Kind]:
    image, other = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    rgba = Image.fromarray(np.concatenate([RGB, _LEVELS.astype(np.uint8) * 4], axis=2))
    seen = _on_white(RGB / 255, _LEVELS * 4 / 255)
    animated = encoded(image, "WEBP", save_all=True, append_images=[other], lossless=True)
    webp, bmp, ppm = (encoded(image, kind, lossless=True) for kind in ("WEBP", "BMP", "PPM"))
    black_white = bytes(4) + b"\xff\xff\xff\0"
    rows = np.packbits(_LEVELS[::-1, :, 0] % 2, axis=1)
    padded = np.pad(RGB[..., ::-1].reshape(6, 27), ((0, 0), (0, 1))).tobytes()
    five = np.array([[0xF800, 0x07E0, 0x001F, 0xFFFF]], "<u2").tobytes()
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    primary = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    runs = b"\x03\x01\x01\x00\x00\x00\x04\x00\x00\x01"  # 3 white, 1 black; next row: 4 black; end
    striped = np.array([[0, 0, 0, 0], [1, 1, 1, 0]])[..., None]
    palette = black_white + bytes(254 * 4)
    text = " ".join(map(str, RGB.ravel().tolist())).encode()
    return [
        _file("lossless.webp", webp, RGB),
        _file("alpha.webp", encoded(rgba, "WEBP", lossless=True, exact=True), seen, 1),
        _file("animated.webp", animated, RGB),
        _file("a WebP.jpg", webp, RGB),
        _file("cut.webp", webp[:-40], "."),
        _file("canvas of 16383 x 16383.webp", webp_of(16383, 16383), "pixels"),
        _file("plain.bmp", bmp, RGB),
        _file("from the top.bmp", bmp_of(9, -6, 24, padded), RGB),
        _file(
            "1 bit.bmp",
            bmp_of(9, 6, 1, np.pad(rows, ((0, 0), (0, 2))).tobytes(), palette=black_white),
            _grey(_LEVELS % 2),
        ),
        _file("5, 6, 5 bits.bmp", bmp_of(4, 1, 16, five, compression=3, masks=masks), primary),
        _file("run-length coded.bmp", bmp_of(4, 2, 8, runs, compression=1, palette=palette), _grey(striped)),
        _file("cut.bmp", bmp[:-100], "."),
        _file("runs cut.bmp", bmp_of(4, 2, 8, runs[:2], compression=1, palette=palette), "."),
        _file(
            "skips 5 billion pixels.bmp",
            bmp_of(20_000_000, 1, 8, b"\0\2\0\xff\0\1", compression=1, palette=palette),
            "pixels",
        ),
        _file("no width.bmp", bmp_of(0, 6, 24, padded), "."),
        _file("ASCII.ppm", b"P3\n# a comment\n9 6\n255\n" + text, RGB),
        _file(
            "16 bits.ppm", b"P6 9 6 65535\n" + _DEEP.astype(">u2").tobytes(), np.round(_DEEP / 257).astype(np.uint8), 1
        ),
        _file("16 bits of grey.ppm", b"P5 9 6 65535\n" + _16.astype(">u2").tobytes(), _grey(_16 / 65535)),
        _file(
            "values to 100.ppm", b"P6 9 6 100\n" + (RGB // 4).tobytes(), np.round(RGB // 4 * 2.55).astype(np.uint8), 1
        ),
        _file("bitmap.ppm", b"P4 9 6\n" + np.packbits(_LEVELS[..., 0] % 2, axis=1).tobytes(), _grey(1 - _LEVELS % 2)),
        _file("cut.ppm", ppm[:-10], "."),
        _file("ASCII, cut.ppm", b"P3 9 6 255\n" + text[:50], "."),
        _file("floating point.ppm", b"Pf 2 1 -1.0\n" + np.array([0.2, 0.7], "<f4").tobytes(), "floating-point"),
        _file("gigapixel.ppm", b"P6 120000 100000 255\n", "pixels"),
        _file("no digits.ppm", b"P6 nine six 255\n", "."),
        _file("a PNG.jpg", encoded(image, "PNG"), RGB),
        _file("1 pixel.png", encoded(image.crop((0, 0, 1, 1)), "PNG"), RGB[:1, :1]),
        _file("1 x 20000.png", png(np.zeros((20000, 1, 1), int), 8, 0), np.zeros((20000, 1, 3), np.uint8)),
        _file("20000 x 1.png", png(np.zeros((1, 20000, 1), int), 8, 0), np.zeros((1, 20000, 3), np.uint8)),
        _file("empty.png", b"", "the file is empty"),
        _file("zeros.png", bytes(4096), "not a PNG, JPEG"),
        _file("noise.jpg", os.urandom(4096).replace(b"\xff\xd8", b"xx"), "not a PNG, JPEG"),
        _file("page.jpg", b"<!doctype html><title>404</title>", "not a PNG, JPEG"),
        _file("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a PNG, JPEG"),
        *(
            _file(f"a {kind}.jpg", encoded(image, kind), "not a PNG, JPEG")
            for kind in ("ICO", "TGA", "JPEG2000", "PCX")
        ),
    ]


def _gifs_and_tiffs() -> list[Kind]:
    image, other = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    few = Image.fromarray(LARGE)  # a GIF has 256 colors
    clear = few.convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(np.arange(48) < 16, 0, 255).astype(np.uint8)[None].repeat(32, 0)))
    on_white = LARGE.copy()
    on_white[:, :16] = 255
    pages = encoded(image, "TIFF", save_all=True, append_images=[other.resize((3, 3))])
    turned = [
        _file(
            f"EXIF {each}, {compression}.tiff",
            encoded(Image.fromarray(_turned(RGB, each)), "TIFF", exif=_exif(each), compression=compression),
            RGB,
        )
        for each in range(1, 9)
        for compression in (None, "tiff_lzw")
    ]
    gray = Image.fromarray(_16[..., 0].astype(np.uint16))
    inks = image.convert("CMYK")
    tiff = encoded(image, "TIFF")
    gif = encoded(few, "GIF", save_all=True, append_images=[Image.fromarray(255 - LARGE)])
    return [
        *turned,
        _file("animated.gif", gif, LARGE),
        _file("clear.gif", encoded(clear, "GIF"), on_white),
        _file("a GIF.jpg", gif, LARGE),
        _file("canvas of 65535 x 65535.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], "pixels"),
        _file("cut.gif", gif[: len(gif) // 4], "."),
        _file("pages.TIF", pages, RGB),
        _file("a TIFF.png", tiff, RGB),
        _file("alpha.tiff", encoded(clear, "TIFF"), on_white),
        _file("16 bits of gray.tiff", encoded(gray, "TIFF"), _grey(_16 / 65535)),
        _file("16 bits of gray, deflated.tiff", encoded(gray, "TIFF", compression="tiff_deflate"), _grey(_16 / 65535)),
        _file("white is zero.tiff", encoded(gray, "TIFF", tiffinfo={262: 0}), "its gray values"),
        _file(
            "32 bits of gray.tiff", encoded(Image.fromarray(_16[..., 0].astype(np.int32)), "TIFF"), "its gray values"
        ),
        _file(
            "floating point.tiff", encoded(Image.fromarray(_16[..., 0].astype(np.float32)), "TIFF"), "floating-point"
        ),
        _file("CMYK.tiff", encoded(inks, "TIFF"), np.asarray(inks.convert("RGB"))),
        _file(
            "fax.tiff",
            encoded(image.convert("1"), "TIFF", compression="group4"),
            np.asarray(image.convert("1").convert("RGB")),
        ),
        _file("cut.tiff", tiff[:100], "."),
        _file("AVIF.avif", encoded(few, "AVIF", quality=100, subsampling="4:4:4"), LARGE, 4),
        _file(
            "EXIF.avif",
            encoded(Image.fromarray(_turned(LARGE, 6)), "AVIF", quality=100, subsampling="4:4:4", exif=_exif(6)),
            LARGE,
            4,
        ),
        _file("cut.avif", encoded(few, "AVIF")[:-60], "."),
    ]


def _special() -> list[Kind]:
    content = encoded(Image.fromarray(RGB), "PNG")
    readable = ["two\nlines.png", "no UTF-8 \udce9.png", "x" * 251 + ".png", "[bold]Größe 🙂.png", "-rf.png", " .png"]
    return [
        *(_file(name, content, RGB) for name in readable),
        *(_file(f"broken {name}", b"no image", "not a PNG") for name in readable[:2]),
        Kind("pipe.png", os.mkfifo, "not a regular file but"),
        Kind("device.png", lambda path: path.symlink_to("/dev/zero"), "not a regular file but"),
        Kind("link to nothing.png", lambda path: path.symlink_to("nowhere"), "dangling link"),
        Kind("link to itself.png", lambda path: path.symlink_to(path), "dangling link"),
        Kind("link.png", lambda path: path.symlink_to(_written(path.with_name(".hidden"), content)), RGB),
        Kind("folder.png", Path.mkdir, None),
        Kind("link to a folder.png", lambda path: path.symlink_to("."), None),
        Kind(
            "600 MB.webp", lambda path: (path.write_bytes(content), os.truncate(path, 600 << 20)), "bytes are too many"
        ),
    ]


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


KINDS = [*_pngs(), *_jpegs(), *_others(), *_gifs_and_tiffs(), *_special()]
