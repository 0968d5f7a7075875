"""Prepared arrays: every image of a split through the deterministic transforms, once, and cached on disk.

A cache entry is a folder `<name>-<split>-<source key>-<transforms key>/` with

    images.npy     uint8 [N, S, S, 3]
    moments.npy    float64 [N, 2, 3]: mean and mean square of each image's channels, in [0, 1]
    entry.json     indices of the images kept, SHA-256 of the two arrays

where the keys cover the source's fingerprint, the transforms with all arguments, and the versions of the libraries that
compute them. It is filled under a temporary name and renamed, so an entry is whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from vitexp.data.source import BrokenImage, DataError, ReadImage, Split
from vitexp.data.transforms import build_transforms

log = logging.getLogger(__name__)

FORMAT = 2
CHUNK = 256  # images a worker handles at a time
PARALLEL_FROM = 4 * CHUNK  # starting processes costs seconds: not worth it below


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """N images, which are a split or a part of one.

    stored: uint8 [M, S, S, 3], the images of the whole split, mapped from their file into memory.
    rows: int64 [N], which of them these are. labels, groups: int64 [N]; moments: float64 [N, 2, 3].
    """

    stored: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    moments: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of the images at `indices` (int64 [n], below N): uint8 [n, S, S, 3]."""
        return self.stored[self.rows[indices]]

    def part(self, indices: NDArray[np.int64]) -> Prepared:
        """Those at `indices` alone; no image is copied."""
        mine = {key: getattr(self, key)[indices] for key in ("rows", "labels", "groups", "moments")}
        return Prepared(stored=self.stored, **mine)


def prepare(
    split: Split,
    transforms: Sequence[Mapping[str, Any]],
    *,
    name: str,
    image_size: int,
    cache_dir: Path,
    num_workers: int,
    on_broken: Literal["refuse", "skip"],
) -> Prepared:
    """The prepared arrays of `split`, from the cache or made now.

    transforms: configs of Albumentations transforms (transforms.py) that end in images of `image_size` pixels a side.
    `name` is for people: it stands in the entry's folder name and in messages. Raises ValueError for a wrong transform,
    DataError where they do not fit, BrokenImage for a file that cannot be read (unless `on_broken` is "skip").
    """
    entry = cache_dir / f"{name}-{_source_key(split, image_size, on_broken)}-{_transforms_key(transforms)}"
    found = _load(entry)
    if found is None:
        _build(entry, partial(_fill, split, transforms, name, image_size, num_workers, on_broken))
        found = _load(entry)
        if found is None:
            raise DataError(f"the cache entry {entry} cannot be read back right after it was written; check the disk.")
    kept, stored, moments = found
    rows = np.arange(len(kept))
    return Prepared(stored=stored, rows=rows, labels=split.labels[kept], groups=split.groups[kept], moments=moments)


def ever_prepared(transforms: Sequence[Mapping[str, Any]], *, cache_dir: Path) -> bool:
    """Whether these very transforms have made an entry of any source: they are then known to be right."""
    return any(cache_dir.glob(f"*-{_transforms_key(transforms)}"))


def _source_key(split: Split, image_size: int, on_broken: str) -> str:
    labels = hashlib.sha256(split.labels.tobytes() + split.groups.tobytes()).hexdigest()
    return _hash([FORMAT, split.fingerprint, labels, image_size, on_broken])


def _transforms_key(transforms: Sequence[Mapping[str, Any]]) -> str:
    libraries = {library: version(library) for library in ("albumentations", "opencv-python-headless", "numpy")}
    return _hash([list(transforms), libraries])


def _hash(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _load(entry: Path) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.float64]] | None:
    """Indices kept, images and moments of an entry; None without one. A damaged one is removed, with a warning.

    The images are a memory map, so that a set may be larger than the memory.
    """
    if not entry.exists():
        return None
    try:
        told = json.loads((entry / "entry.json").read_text())
        for file in ("images.npy", "moments.npy"):
            if _checksum(entry / file) != told[file]:
                raise ValueError(f"the checksum of {file} differs")
        kept = np.array(told["kept"], dtype=np.int64)
        # "c", private to this process: torch warns of arrays that it may not write to
        return kept, np.load(entry / "images.npy", mmap_mode="c"), np.load(entry / "moments.npy")
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("The prepared images in %s are damaged (%s); they are made anew.", entry, error)
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _checksum(path: Path) -> str:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return checksum.hexdigest()


def _build(entry: Path, fill: Callable[[Path], None]) -> None:
    """Have a folder filled and rename it to `entry`: the entry is whole, or not there."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{entry.name}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=entry.parent, ignore_cleanup_errors=True) as building:
            fill(Path(building))
            os.chmod(building, 0o755)  # noqa: S103 - others may share the cache
            try:
                os.rename(building, entry)
            except OSError:
                if not entry.exists():  # else another process was faster, with the same content
                    raise
    except OSError as error:
        raise DataError(
            f"cannot write the prepared images to {entry.parent}: {error.strerror or error}; "
            "make room, or set data.cache_dir to another folder."
        ) from error


def _fill(
    split: Split,
    transforms: Sequence[Mapping[str, Any]],
    name: str,
    image_size: int,
    num_workers: int,
    on_broken: Literal["refuse", "skip"],
    folder: Path,
) -> None:
    shape = (len(split), image_size, image_size, 3)
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    moments = np.empty((len(split), 2, 3))
    kept: list[int] = []
    work = partial(_prepare_chunk, split.read, build_transforms(transforms), image_size)
    chunks = [range(start, min(start + CHUNK, len(split))) for start in range(0, len(split), CHUNK)]
    with Progress(transient=True) as progress:
        task = progress.add_task(f"preparing {name}", total=len(split))
        for chunk, (done, broken) in zip(chunks, _map(work, chunks, num_workers), strict=True):
            if broken and on_broken == "refuse":
                raise next(iter(broken.values()))
            for error in broken.values():
                log.warning("Skipped: %s", error)
            for index in chunk:
                if index not in broken:
                    image = done[index - chunk.start]
                    images[len(kept)] = image
                    unit = image.reshape(-1, 3) / 255.0
                    moments[len(kept)] = unit.mean(axis=0), (unit * unit).mean(axis=0)
                    kept.append(index)
            progress.advance(task, len(chunk))
    images.flush()
    if len(kept) < len(split):  # a few files were skipped
        np.save(folder / "images.npy", images[: len(kept)].copy())
    np.save(folder / "moments.npy", moments[: len(kept)])
    told: dict[str, Any] = {file: _checksum(folder / file) for file in ("images.npy", "moments.npy")}
    (folder / "entry.json").write_text(json.dumps({**told, "kept": kept}))


Chunk = tuple[NDArray[np.uint8], dict[int, BrokenImage]]


def _prepare_chunk(read: ReadImage, transforms: list[Any], image_size: int, indices: Sequence[int]) -> Chunk:
    """Prepared images of `indices`, uint8 [n, S, S, 3], and the errors of those that could not be read."""
    done = np.zeros((len(indices), image_size, image_size, 3), dtype=np.uint8)
    broken: dict[int, BrokenImage] = {}
    for row, index in enumerate(indices):
        try:
            image = read(index)
        except BrokenImage as error:
            broken[index] = error
            continue
        for transform in transforms:
            image = transform(image=image)["image"]
        if image.shape != done.shape[1:] or image.dtype != np.uint8:
            raise DataError(
                f"data.prepare must end in uint8 images of {image_size}x{image_size}x3 (data.image_size={image_size}), "
                f"but made {image.dtype} of {'x'.join(map(str, image.shape))}."
            )
        done[row] = image
    return done, broken


def _map(work: Callable[[Sequence[int]], Chunk], chunks: list[range], num_workers: int) -> Iterator[Chunk]:
    """`work` over `chunks` in order, in processes of their own where that pays."""
    num_workers = min(num_workers, len(chunks))
    if num_workers < 2 or sum(map(len, chunks)) < PARALLEL_FROM:
        yield from map(work, chunks)
        return
    # "spawn": a forked child of a process with threads (torch, OpenCV) may hang
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        yield from pool.map(work, chunks)


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
