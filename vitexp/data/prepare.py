"""Prepare every image of a split once with deterministic transforms, and cache the arrays on disk.

A cache entry is a folder `<name>-<split>-<source key>-<transforms key>/` with

    images.npy     uint8 [N, S, S, 3]
    moments.npy    float64 [N, 2, 3]: mean and mean square of each image's channels, in [0, 1]
    kept.npy       int64 [N]: indices of these images in the split, without skipped ones
    entry.json     checksums of the three (cache.py)

The keys cover the source's fingerprint, the transforms with all arguments, and the versions of the libraries that
compute them.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.progress import Progress

from vitexp.data.cache import ensure
from vitexp.data.source import BrokenImage, BrokenImages, DataError, ReadImage, Split, printable
from vitexp.data.transforms import build_transforms
from vitexp.data.workers import hidden_main, needs_main, start_worker
from vitexp.system.terminal import plain_console
from vitexp.text import plural

log = logging.getLogger(__name__)

FORMAT = 3
FILES = ("images.npy", "moments.npy", "kept.npy")
CHUNK = 256  # images that a worker handles at a time
PARALLEL_FROM = 4 * CHUNK  # starting processes costs seconds; not worth it for fewer images
OnBroken = Literal["refuse", "skip"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """N prepared images: a split or a part of one.

    stored: uint8 [M, S, S, 3], the images of the whole split, memory-mapped.
    rows: int64 [N], their indices in `stored`. labels, groups: int64 [N]. moments: float64 [N, 2, 3].
    paths: object [N], the file of each image relative to the root of the data set; None if they are not files.
    """

    stored: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    moments: NDArray[np.float64]
    paths: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return a copy of the images at `indices` (int64 [n], below N): uint8 [n, S, S, 3]."""
        return self.stored[self.rows[indices]]

    def part(self, indices: NDArray[np.int64]) -> Prepared:
        """Return the part with these `indices`, without copying an image."""
        mine = {key: getattr(self, key)[indices] for key in ("rows", "labels", "groups", "moments")}
        return Prepared(stored=self.stored, **mine, paths=None if self.paths is None else self.paths[indices])

    def fingerprint(self, classes: Sequence[str]) -> str:
        """Return a hash that changes with the images, their order, their labels and the classes, not with the place."""
        digest = hashlib.sha256(self.labels.tobytes() + self.moments.tobytes())
        digest.update("\0".join(classes).encode(errors="surrogateescape"))
        return digest.hexdigest()[:12]


def prepare(
    split: Split,
    transforms: Sequence[Mapping[str, Any]],
    *,
    name: str,
    image_size: int,
    cache_dir: Path,
    num_workers: int,
    on_broken: OnBroken,
) -> Prepared:
    """Return the prepared arrays of `split`, from the cache if possible.

    transforms: configs of Albumentations transforms (transforms.py) that end in images of `image_size` pixels per side.
    name: for the folder name of the entry and for messages.

    Raises ValueError for a wrong transform, DataError if the transforms do not fit the images, BrokenImages for
    unreadable files (unless `on_broken` is "skip").
    """
    entry = cache_dir / f"{name}-{_source_key(split, image_size, on_broken)}-{_transforms_key(transforms)}"
    fill = partial(_fill, split, transforms, name, image_size, num_workers, on_broken)
    is_cached = os.path.exists(entry)  # false, not an error, in a folder that may not be read
    ensure(entry, fill, files=FILES, what=name)
    kept = np.load(entry / "kept.npy")
    paths = getattr(split.read, "paths", None)
    if is_cached:  # otherwise they were reported while they were read
        for index in np.setdiff1d(np.arange(len(split)), kept):
            root = getattr(split.read, "root", "")
            image = index if paths is None else printable(os.path.join(root, paths[index]))
            log.warning("Skipped: cannot decode the image %s.", image)
    if skipped := len(split) - len(kept):
        log.warning("%s of %s skipped", f"{skipped:,}", plural(len(split), "image"))
    # Memory-mapped, so that a data set may be larger than memory. Mode "c" is private to this process; torch warns of
    # read-only arrays.
    stored = np.load(entry / "images.npy", mmap_mode="c")
    return Prepared(
        stored=stored,
        rows=np.arange(len(kept)),
        labels=split.labels[kept],
        groups=split.groups[kept],
        moments=np.load(entry / "moments.npy"),
        paths=None if paths is None else np.array(paths, dtype=object)[kept],
    )


def ever_prepared(transforms: Sequence[Mapping[str, Any]], *, cache_dir: Path) -> bool:
    """Return whether the cache has an entry of these transforms for any source, so that they are known to work."""
    return any(cache_dir.glob(f"*-{_transforms_key(transforms)}"))


def _source_key(split: Split, image_size: int, on_broken: str) -> str:
    labels = hashlib.sha256(split.labels.tobytes() + split.groups.tobytes()).hexdigest()
    return _hash([FORMAT, split.fingerprint, labels, image_size, on_broken])


def _transforms_key(transforms: Sequence[Mapping[str, Any]]) -> str:
    libraries = {library: version(library) for library in ("albumentations", "opencv-python-headless", "numpy")}
    return _hash([list(transforms), libraries])


def _hash(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _fill(
    split: Split,
    transforms: Sequence[Mapping[str, Any]],
    name: str,
    image_size: int,
    num_workers: int,
    on_broken: OnBroken,
    folder: Path,
) -> None:
    moments = np.empty((len(split), 2, 3))
    kept: list[int] = []
    work = partial(_prepare_chunk, split.read, build_transforms(transforms), image_size)
    chunks = [range(start, min(start + CHUNK, len(split))) for start in range(0, len(split), CHUNK)]
    # Written, not memory-mapped: a full disk raises an error instead of killing the process.
    refused: list[BrokenImage] = []
    with (
        open(folder / "images.npy", "wb") as images,
        Progress(transient=True, disable=not plain_console().is_terminal) as progress,
    ):
        images.write(_header(len(split), image_size))
        task = progress.add_task(escape(f"preparing {name}"), total=len(split))
        for chunk, (done, broken) in zip(chunks, _map(work, chunks, num_workers), strict=True):
            if on_broken == "refuse":
                refused += broken.values()
                for error in broken.values():
                    log.debug("%s", error)
            else:
                for error in broken.values():
                    log.warning("Skipped: %s", error)
            for index in chunk:
                if index not in broken and not refused:
                    image = done[index - chunk.start]
                    images.write(image.tobytes())
                    unit = image.reshape(-1, 3) / 255.0
                    moments[len(kept)] = unit.mean(axis=0), (unit * unit).mean(axis=0)
                    kept.append(index)
            progress.advance(task, len(chunk))
        if refused:
            raise BrokenImages(refused, total=len(split))
        images.seek(0)
        images.write(_header(len(kept), image_size))  # fewer if files were skipped
    np.save(folder / "moments.npy", moments[: len(kept)])
    np.save(folder / "kept.npy", np.array(kept, np.int64))


def _header(rows: int, image_size: int) -> bytes:
    """Return the header of an .npy file of uint8 [rows, S, S, 3]; its length does not depend on the number of rows."""
    header = io.BytesIO()
    shape = (rows, image_size, image_size, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


Chunk = tuple[NDArray[np.uint8], dict[int, BrokenImage]]


def _prepare_chunk(read: ReadImage, transforms: list[Any], image_size: int, indices: Sequence[int]) -> Chunk:
    """Return the prepared images at `indices`, uint8 [n, S, S, 3], and the errors of unreadable ones by index."""
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
                f"but they end in {image.dtype} of {'x'.join(map(str, image.shape))}."
            )
        done[row] = image
    return done, broken


def _map(work: Callable[[Sequence[int]], Chunk], chunks: list[range], num_workers: int) -> Iterator[Chunk]:
    """Yield `work` of each chunk in order, computed by worker processes where that pays off."""
    num_workers = min(num_workers, len(chunks))
    if num_workers < 2 or sum(map(len, chunks)) < PARALLEL_FROM or needs_main(work):
        yield from map(work, chunks)
        return
    # "spawn", because a forked child of a process with threads (torch, OpenCV) may hang.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=start_worker) as pool:
        try:
            with hidden_main():
                done = pool.map(work, chunks)  # starts all processes
            yield from done
        except BrokenProcessPool as error:
            raise DataError(
                "a process that prepares images was killed, perhaps because memory ran out; try data.num_workers="
                f"{num_workers // 2}."
            ) from error
