"""Image files on disk: find them, tell whether they changed, decode one to RGB."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vitexp.data.source import BrokenImage, DataError, Split, file_errors, printable

ENDINGS = (".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "WEBP")
# What a file may ask for, so that a small one cannot claim gigabytes or minutes.
_MAX_PIXELS = 1 << 26  # 192 MiB as RGB, of which decoding makes some copies; Pillow's own bound only warns
_MAX_SIDE = 65_535  # as in JPEG; a run-length coded BMP may skip 255 rows at a time, whatever their length
_MAX_BYTES = 1 << 29  # of the file: the pixels at 16 bits a channel would fit; parts of it are read whole
_MAX_SCANS = 100  # of a JPEG: each costs a pass over all pixels, for 14 bytes of file; encoders write about 10

_NOWHERE = (errno.ENOENT, errno.ELOOP)
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)  # of a segment with a length, or the end
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"
_ORIENTATION = 0x0112  # EXIF 2.32, table 4; how to turn the stored pixels to see them upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TO_8_BITS = [(value + 128) // 257 for value in range(1 << 16)]


class ImageFile(NamedTuple):
    """A file as a scan of its folder found it; path is relative to the root of the data set."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class ImageFiles:
    """Reads image i of a list of files. Pickles as strings, so it is cheap to hand to worker processes."""

    root: str
    paths: tuple[str, ...]

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        """uint8 [H, W, 3]. Raises BrokenImage."""
        return read_image(os.path.join(self.root, self.paths[index]))


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode a PNG, JPEG, PPM, BMP or WebP file to RGB: uint8 [H, W, 3]; of an animation, the first picture.

    The orientation in the EXIF data is applied, transparent pixels show white, 16-bit grey is scaled to 8 bits.
    Pillow, not OpenCV: OpenCV is twice as fast but fills a truncated JPEG with grey and goes on.
    Raises BrokenImage for what is no whole image or asks for too much (67 million pixels, 65,535 a side, 512 MiB of
    file, 100 scans of a JPEG); a DataError that is no BrokenImage where the file system or the memory fails, so that
    skipping broken images does not hide a failing disk.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata, and sizes that are judged below
            return _decode(path)
    except MemoryError as error:
        raise DataError(f"there is not enough memory to decode the image {printable(path)}.") from error
    except OSError as error:
        if error.errno is not None and not _leads_nowhere(path):
            raise DataError(f"cannot read {printable(path)}: {error.strerror}.") from error
        raise BrokenImage(_broken(path, error)) from error
    except Exception as error:  # Pillow's decoders let SyntaxError, struct.error, EOFError and others through
        raise BrokenImage(_broken(path, error)) from error


def _leads_nowhere(path: str | os.PathLike[str]) -> bool:
    """Whether it is a link to nothing, or to itself."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno in _NOWHERE and os.path.islink(path)
    return False


def _broken(path: str | os.PathLike[str], error: Exception) -> str:
    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "not a PNG, JPEG, PPM, BMP or WebP image, or damaged in its header"
    elif isinstance(error, OSError) and error.errno is not None:
        reason = "a link that leads nowhere"
    return f"cannot decode the image {printable(path)}: {' '.join(reason.split()).rstrip('.')}."


def _decode(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for somebody to write
        raise ValueError("not a file but a folder, pipe or device")
    if not 0 < info.st_size <= _MAX_BYTES:
        raise ValueError(f"{info.st_size:,} bytes are too many" if info.st_size else "the file is empty")
    with open(path, "rb") as file:
        start = file.read(25)
        if start.startswith(b"\xff\xd8"):
            _refuse_many_scans(start + file.read())
        elif start.startswith(b"\x89PNG"):  # decoding stops at the last pixel, before the last checksum
            Image.open(file, formats=("PNG",)).verify()
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS or max(image.size) > _MAX_SIDE:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image.load()  # first, because some metadata come after the pixels
            turn = _TURNS.get(_orientation(image))
            depth = start[24] if image.format == "PNG" else 8
            rgb = _to_rgb(image, depth)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _refuse_many_scans(jpeg: bytes) -> None:
    """Walks the segments of a JPEG up to its end, ITU-T T.81 annex B. Raises ValueError."""
    scans, position = 0, 2
    while (marker := _MARKER.search(jpeg, position)) and marker[1] != _JPEG_END:
        length = int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
        position = marker.end() + max(length, 2)
        scans += marker[1] == _JPEG_SCAN
        if scans > _MAX_SCANS:
            raise ValueError(f"it has more than {_MAX_SCANS} scans")


def _orientation(image: Image.Image) -> int:
    """From the EXIF data; upright where these are damaged, as the pixels are not."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # SyntaxError, struct.error, ValueError and others
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_rgb(image: Image.Image, depth: int) -> Image.Image:
    """`image` as people see it on white paper; `depth` is the number of bits a channel has in a PNG."""
    if image.mode == "F":
        raise ValueError("it holds floating-point numbers, whose range is unknown")
    colour = image.info.get("transparency")  # that of a PNG is told in the depth of the file
    if image.mode == "L" and depth < 8 and isinstance(colour, int):
        image.info["transparency"] = colour * 255 // ((1 << depth) - 1)
    if image.mode == "RGB" and depth > 8 and colour is not None:
        raise ValueError("16-bit colours of which one is transparent are not supported")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip to white
        deep = image.convert("I")
        image = deep.point(_TO_8_BITS, "L")
        if isinstance(colour, int):
            image.putalpha(deep.point([255 * (grey != colour) for grey in range(1 << 16)], "L"))
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(image, mask=image.getchannel("A"))
    return paper


def list_images(root: Path, folder: str, endings: tuple[str, ...] = ENDINGS) -> list[ImageFile]:
    """The images directly in root/folder ("" is root), by name; endings in any letter case, hidden files left out.

    What has such a name and cannot be an image, such as a link to nothing, is listed too: the set must not become
    smaller in silence. Reading it then raises BrokenImage. Raises DataError where the folder cannot be read.
    """
    found = []
    prefix = f"{folder}/" if folder else ""
    with file_errors(), os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.lower().endswith(endings):
                continue
            info = _stat(entry)
            if not stat.S_ISDIR(info.st_mode):
                found.append(ImageFile(prefix + entry.name, info.st_size, info.st_mtime_ns))
    return sorted(found)


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    """Of what a link leads to, or of the link where it leads nowhere."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return entry.stat(follow_symlinks=False)


def split_of_files(
    root: Path, files: Sequence[ImageFile], labels: Iterable[int], groups: Iterable[int] | None = None
) -> Split:
    """A Split of image files under root; without `groups` every image is one of its own."""
    label_array = np.fromiter(labels, np.int64, len(files))
    group_array = np.arange(len(files)) if groups is None else np.fromiter(groups, np.int64, len(files))
    # With the root, because copies with all times set to zero are told apart by nothing else.
    lines = sorted(f"{file.path}\0{file.size}\0{file.mtime_ns}\n" for file in files)
    digest = hashlib.sha256("".join([f"{root.resolve()}\n", *lines]).encode(errors="surrogateescape"))
    digest.update(label_array.tobytes())
    return Split(
        labels=label_array,
        groups=group_array.astype(np.int64),
        read=ImageFiles(str(root), tuple(file.path for file in files)),
        fingerprint=digest.hexdigest(),
    )
