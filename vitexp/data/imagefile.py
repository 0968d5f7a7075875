"""Decode an image file to RGB."""

from __future__ import annotations

import errno
import os
import re
import stat
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from vitexp.data.source import CANNOT_DECODE, BrokenImage, DataError, printable

HEIC_ENDINGS = (".heic", ".heif")
HAS_HEIC = find_spec("pillow_heif") is not None
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".ppm", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".avif"),
    *(HEIC_ENDINGS if HAS_HEIC else ()),
)
INSTALL_HEIC = "pip install pillow-heif"
_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "WEBP", "GIF", "TIFF", "AVIF")
_NAMES = f"PNG, JPEG, PPM, BMP, WebP, GIF, TIFF{', AVIF or HEIC' if HAS_HEIC else ' or AVIF'}"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12
# Limits, so that a small file cannot take gigabytes or minutes to decode.
_MAX_PIXELS = 1 << 26  # 192 MiB as RGB, and decoding makes copies; Pillow's own limit only warns
_MAX_SIDE = 65_535  # as in JPEG; a run-length encoded BMP can skip 255 rows at a time, of any length
_MAX_BYTES = 1 << 29  # of the file: enough for 16 bits per channel; parts of it are read at once
_MAX_SCANS = 100  # of a JPEG: 14 bytes of file cost a pass over all pixels; encoders write about 10

NOWHERE = (errno.ENOENT, errno.ELOOP)  # what a dangling link raises
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)  # a segment with a length, or the end
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"
_ORIENTATION = 0x0112  # EXIF 2.32, table 4: how to turn the pixels upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GRAY_16_TIFF = {258: (16,), 262: 1, 339: (1,)}  # TIFF 6.0: bits per sample, black is zero, unsigned
_TO_8_BITS = [(value + 128) // 257 for value in range(1 << 16)]


@dataclass(frozen=True)
class ImageFiles:
    """A function that reads image i of a list of files. Pickled as strings, so passing it to processes is cheap."""

    root: str
    paths: tuple[str, ...]

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        """Return image `index`: uint8 [H, W, 3]. Raises BrokenImage."""
        return read_image(os.path.join(self.root, self.paths[index]))


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode an image file to RGB: uint8 [H, W, 3]; the first frame of an animation, the first page of a TIFF.

    Reads PNG, JPEG, PPM, BMP, WebP, GIF, TIFF and AVIF, and HEIC if pillow-heif is installed, whatever the file is
    called. The EXIF orientation is applied, transparent pixels become white, 16-bit gray is scaled to 8 bits. Uses
    Pillow, because OpenCV, though twice as fast, silently fills the rest of a truncated JPEG with gray.

    Raises BrokenImage for a damaged image or one beyond the limits (67 million pixels, 65,535 per side, 512 MiB of
    file, 100 scans of a JPEG), and another DataError if the file system fails or memory runs out, so that skipping
    broken images does not hide a failing disk.
    """
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for a writer
            raise BrokenImage(_broken(path, "not a regular file but a folder, pipe or device"))
        with open(path, "rb") as file:
            return decode_image(file, name=path, size=info.st_size)
    except OSError as error:
        if _is_dangling(path):
            raise BrokenImage(_broken(path, "dangling link")) from error
        raise DataError(f"cannot read {printable(path)}: {error.strerror}.") from error


def decode_image(file: BinaryIO, *, name: str | os.PathLike[str], size: int) -> NDArray[np.uint8]:
    """Decode the content of an image file of `size` bytes as `read_image` does. name: for messages.

    Raises BrokenImage, DataError if memory runs out, and OSError if the file system fails.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual metadata, and sizes that are checked below
            return _decode(file, size)
    except MemoryError as error:
        raise DataError(f"not enough memory to decode the image {printable(name)}.") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise BrokenImage(_broken(name, str(error))) from error
    except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, EOFError and others
        raise BrokenImage(_broken(name, str(error) or type(error).__name__)) from error


def _is_dangling(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a link to nothing, or to itself."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno in NOWHERE and os.path.islink(path)
    return False


def _broken(name: str | os.PathLike[str], reason: str) -> str:
    return f"{CANNOT_DECODE}{printable(name)}: {' '.join(reason.split()).rstrip('.')}."


def _decode(file: BinaryIO, size: int) -> NDArray[np.uint8]:
    if not 0 < size <= _MAX_BYTES:
        raise ValueError(f"{size:,} bytes are too many" if size else "the file is empty")
    start = file.read(25)
    is_heic = start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS
    if start.startswith(b"\xff\xd8"):
        _refuse_many_scans(start + file.read())
    formats: tuple[str, ...] = _FORMATS
    if is_heic and HAS_HEIC:
        register_heic()
        formats = (*_FORMATS, "HEIF")
    try:
        if start.startswith(b"\x89PNG"):  # decoding stops before the last checksum
            Image.open(file, formats=("PNG",)).verify()
        opened = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        if is_heic and not HAS_HEIC:
            raise ValueError(f"HEIC images need one more package: {INSTALL_HEIC}") from error
        raise ValueError(f"not a {_NAMES} image, or its header is damaged") from error
    with opened as image:
        if image.width * image.height > _MAX_PIXELS or max(image.size) > _MAX_SIDE:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        return as_rgb(image, depth=start[24] if image.format == "PNG" else 8)


@cache
def register_heic() -> None:
    """Make Pillow read HEIC. Imports pillow_heif, so only when needed."""
    import pillow_heif

    pillow_heif.register_heif_opener()


def as_rgb(image: Image.Image, *, depth: int = 8) -> NDArray[np.uint8]:
    """Convert an image of Pillow as `read_image` does: uint8 [H, W, 3], turned upright, on white.

    depth: bits per channel in a PNG. Raises ValueError for an image without a known range, and what decoding raises.
    """
    if isinstance(image, TiffImageFile):
        image.filename = ""  # otherwise Pillow maps the file into memory, and confuses width and height of a turned one
    image.load()  # first, because some metadata follows the pixels
    turn = _TURNS.get(_orientation(image))
    rgb = _to_rgb(image, depth)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _refuse_many_scans(jpeg: bytes) -> None:
    """Count the scans of a JPEG by its segments, ITU-T T.81 annex B. Raises ValueError."""
    scans, position = 0, 2
    while (marker := _MARKER.search(jpeg, position)) and marker[1] != _JPEG_END:
        length = int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
        position = marker.end() + max(length, 2)
        scans += marker[1] == _JPEG_SCAN
        if scans > _MAX_SCANS:
            raise ValueError(f"it has more than {_MAX_SCANS} scans")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; upright if the EXIF data is damaged, because the pixels are not."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # SyntaxError, struct.error, ValueError and others
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_rgb(image: Image.Image, depth: int) -> Image.Image:
    """Convert to RGB on a white background. depth: bits per channel in a PNG."""
    if image.mode == "F":
        raise ValueError("it contains floating-point numbers of unknown range")
    color = image.info.get("transparency")  # for a PNG, in the bit depth of the file
    if image.mode == "L" and depth < 8 and isinstance(color, int):
        image.info["transparency"] = color * 255 // ((1 << depth) - 1)
    if image.mode == "RGB" and depth > 8 and color is not None:
        raise ValueError("a transparent 16-bit color is not supported")
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow's own conversion would clip to white
        deep = image.convert("I")
        low, high = cast(tuple[int, int], deep.getextrema())
        tags = getattr(image, "tag_v2", {})
        if low < 0 or high >= 1 << 16 or any(tags.get(tag, value) != value for tag, value in _GRAY_16_TIFF.items()):
            raise ValueError("its gray values are not from 0 (black) to 65,535 (white)")
        image = deep.point(_TO_8_BITS, "L")
        if isinstance(color, int):
            image.putalpha(deep.point([255 * (gray != color) for gray in range(1 << 16)], "L"))
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(image, mask=image.getchannel("A"))
    return paper
