"""Image files written byte by byte, which no library would write: odd depths, false sizes, and bombs."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    """Return a chunk of a PNG."""
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of(width: int, height: int, depth: int, colour: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """Return a PNG with any header, followed by `chunks` and IEND."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def png(values: NDArray[Any], depth: int, colour: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """Return the PNG of integers [H, W, C], `depth` bits each, with a standard color type."""
    height, width, channels = values.shape
    assert channels == _CHANNELS[colour]
    passes = [values[y::dy, x::dx] for y, x, dy, dx in _ADAM7] if interlaced else [values]
    raw = b"".join(b"\0" + _bits(row, depth) for part in passes if part.size for row in part)
    return png_of(width, height, depth, colour, *chunks, chunk(b"IDAT", zlib.compress(raw)), interlaced=interlaced)


def _bits(row: NDArray[Any], depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.reshape(-1, 1).astype(np.uint8), axis=1)[:, 8 - depth :]
    return np.packbits(bits).tobytes()


def zeros(count: int) -> bytes:
    """Return this many zero bytes, deflated."""
    pack = zlib.compressobj(9)
    return b"".join(pack.compress(bytes(min(1 << 20, count - at))) for at in range(0, count, 1 << 20)) + pack.flush()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG with scans of 10 bytes, each of which needs a pass over all pixels."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8))
    head = bytearray(encoded(noise, "JPEG").partition(b"\xff\xda")[0])
    frame = head.index(b"\xff\xc0")
    head[frame + 1] = 0xC2  # progressive
    head[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    direct = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"
    return bytes(head) + direct + b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" * scans + b"\xff\xd9"


def webp_of(width: int, height: int) -> bytes:
    """Return an animated WebP with a canvas of any size and one 8 x 8 picture in its corner."""

    def part(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    def three(*numbers: int) -> bytes:
        return b"".join(struct.pack("<I", number)[:3] for number in numbers)

    picture = encoded(Image.new("RGB", (8, 8)), "WEBP", lossless=True)[12:]
    canvas = part(b"VP8X", bytes([2, 0, 0, 0]) + three(width - 1, height - 1)) + part(b"ANIM", bytes(6))
    body = canvas + part(b"ANMF", three(0, 0, 7, 7, 100) + b"\0" + picture)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def bmp_of(
    width: int,
    height: int,
    bits: int,
    content: bytes,
    *,
    compression: int = 0,
    palette: bytes = b"",
    masks: bytes = b"",
) -> bytes:
    """Return a BMP with any header; rows of `content` start at the bottom, or at the top if `height` is negative."""
    start = 14 + 40 + len(masks) + len(palette)
    colours = len(palette) // 4
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(content), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", start + len(content), 0, 0, start) + info + masks + palette + content
