"""Image files on disk: find them, tell whether they changed, decode one to RGB."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vitexp.data.source import BrokenImage, DataError, Split

ENDINGS = (".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "WEBP")
_MAX_PIXELS = 89_478_485  # 256 MiB as RGB: Pillow's own bound, above which it only warns


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
    """Decode a PNG, JPEG, PPM, BMP or WebP file to RGB: uint8 [H, W, 3].

    The orientation in the EXIF data is applied, transparent pixels show white, 16-bit grey is scaled to 8 bits.
    Pillow, not OpenCV: OpenCV is twice as fast but fills a truncated JPEG with grey and goes on.
    Raises BrokenImage for what is no whole image or has more than 89 million pixels; a DataError that is no
    BrokenImage where the file system fails, so that skipping broken images does not hide a failing disk.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata, and sizes that are judged below
            return _decode(path)
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error
        raise BrokenImage(_broken(path, error)) from error
    except Exception as error:  # Pillow's decoders let SyntaxError, struct.error, EOFError and others through
        raise BrokenImage(_broken(path, error)) from error


def _broken(path: str | os.PathLike[str], error: Exception) -> str:
    reason = "not a PNG, JPEG, PPM, BMP or WebP image" if isinstance(error, UnidentifiedImageError) else error
    return f"cannot decode the image {path}: {reason}."


def _decode(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    with Image.open(path, formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip to white
        grey = (np.clip(np.array(image, np.int64), 0, 65535) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def list_images(root: Path, folder: str, endings: tuple[str, ...] = ENDINGS) -> list[ImageFile]:
    """The images directly in root/folder ("" is root), by name; endings in any letter case, hidden files left out.

    Raises DataError where the folder, or an image that it names, cannot be read.
    """
    found = []
    prefix = f"{folder}/" if folder else ""
    try:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith(endings):
                    continue
                info = entry.stat()  # follows links; a dangling one raises instead of making the set smaller
                if stat.S_ISREG(info.st_mode):
                    found.append(ImageFile(prefix + entry.name, info.st_size, info.st_mtime_ns))
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}.") from error
    return sorted(found)


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
