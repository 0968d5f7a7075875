"""CIFAR-10 and CIFAR-100: 32x32 color images, 50,000 for training and 10,000 for testing.

Krizhevsky, Learning multiple layers of features from tiny images, 2009. The official files are pickles, with names and
md5 checksums as in torchvision. The checksums are verified, and no code in a pickle is executed. Where they are
missing, the same images may be stored as class folders.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vitexp.data.class_folders import subfolders
from vitexp.data.download import fetch, one_at_a_time, unpack
from vitexp.data.folder import Folder
from vitexp.data.listing import image_names
from vitexp.data.source import DataError, Source, Split, SplitName, file_errors
from vitexp.options import Doc
from vitexp.options import Path as PathOption
from vitexp.text import shortened

Files: TypeAlias = tuple[tuple[str, str], ...]  # paths and md5 sums


@dataclass(frozen=True)
class CIFARImages:
    """A function that reads image i. Pickled as paths; a worker process reads the files again, without torch."""

    files: Files

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        """Return image `index`: uint8 [32, 32, 3]."""
        return np.ascontiguousarray(_pixels(self.files)[index].transpose(1, 2, 0), np.uint8)


class _Found(NamedTuple):
    labels: NDArray[np.int64]
    classes: list[str]
    files: Files
    fingerprint: str


class CIFAR(Source):
    """CIFAR-10 or CIFAR-100 (with its 100 fine labels)."""

    reads_files: ClassVar[bool] = False
    identity: ClassVar[tuple[str, ...]] = ("kind",)
    split_by: ClassVar[tuple[str, ...] | None] = ()

    def __init__(
        self,
        *,
        root: Annotated[
            PathOption,
            Doc("contains the archive, cifar-10-batches-py (cifar-100-python), or train/<class>/* and test/<class>/*"),
        ],
        download: Annotated[bool, Doc("download what is missing; an archive in root is unpacked in any case")] = False,
        kind: Annotated[Literal["cifar10", "cifar100"], Doc("which data set")],
    ) -> None:
        self.root = Path(root).expanduser()
        self.download = download
        self.kind = kind
        self._found: dict[SplitName, _Found] = {}

    @property
    def classes(self) -> list[str]:
        names = self._folder.classes if self._folder else self._find("train").classes
        return [name.replace("_", " ") for name in names]

    def split(self, name: SplitName) -> Split:
        if self._folder:
            return self._folder.split(name)
        found = self._find(name)
        return Split(
            labels=found.labels,
            groups=np.arange(len(found.labels), dtype=np.int64),
            read=CIFARImages(found.files),
            fingerprint=found.fingerprint,
        )

    @cached_property
    def _folder(self) -> Folder | None:
        """The images as class folders; None if there are none, or official files beside them.

        Raises DataError if these are not all images of all classes.
        """
        official = any((self.root / name).exists() for name in _NAMES[self.kind])
        if official or not all((self.root / part).is_dir() for part in _IMAGES):
            return None
        for part, images in _IMAGES.items():
            folder = self.root / part
            names = subfolders(folder)
            count = sum(len(image_names(folder / name)) for name in names)
            if (len(names), count) != (_CLASSES[self.kind], images):
                raise DataError(
                    f"{folder} contains {count:,} images of {len(names)} classes, but {self.kind} has {images:,} of "
                    f"{_CLASSES[self.kind]} there; use data=folder for other images."
                )
        return Folder(root=str(self.root))

    def refuse_unusable(self, *, for_training: bool = True) -> None:
        if self._folder:
            self._folder.refuse_unusable(for_training=for_training)
            return
        self._refuse_missing()
        folder = self.root / _NAMES[self.kind][0]
        with file_errors():
            if folder.exists():
                faults = {name: _obvious_fault(folder / name, images) for name, images in _FILES[self.kind].items()}
                if found := [f"{name}: {fault}" for name, fault in faults.items() if fault]:
                    raise _damaged(folder, shortened(found))

    def _refuse_missing(self) -> None:
        folder, archive = (self.root / name for name in _NAMES[self.kind])
        with file_errors():
            if not (self.download or folder.exists() or archive.exists()):
                raise DataError(
                    f"{self.kind} is missing: {folder} does not exist; set data.download=true, or put {archive.name} "
                    f"from https://www.cs.toronto.edu/~kriz/{archive.name} into {self.root}, or its images as "
                    f"train/<class>/* and test/<class>/*."
                )

    def _find(self, name: SplitName) -> _Found:
        """Return what the files of a split contain besides pixels; they are read once."""
        if name in self._found:
            return self._found[name]
        from torchvision.datasets import CIFAR10, CIFAR100  # imports torch, so only when needed

        dataset: Any = {"cifar10": CIFAR10, "cifar100": CIFAR100}[self.kind]
        folder, packed = self.root / dataset.base_folder, self.root / dataset.filename
        self._refuse_missing()
        if not folder.exists():
            self._obtain(dataset.url, packed, dataset.tgz_md5, folder)
        listed = dataset.train_list if name == "train" else dataset.test_list
        files = tuple((str(folder / file), md5) for file, md5 in listed)
        parts = [_unpickle(*file) for file in files]
        classes = _unpickle(str(folder / dataset.meta["filename"]), dataset.meta["md5"])[dataset.meta["key"]]
        self._found[name] = _Found(
            labels=np.array([label for part in parts for label in part[_LABELS[self.kind]]], np.int64),
            classes=classes,
            files=files,
            fingerprint=hashlib.sha256(repr((self.kind, listed)).encode()).hexdigest(),  # names and verified md5 sums
        )
        return self._found[name]

    def _obtain(self, url: str, packed: Path, md5: str, folder: Path) -> None:
        with one_at_a_time(self.root):
            if not folder.exists():  # otherwise another process downloaded it first
                fetch(url, packed, md5=md5)
                unpack(packed, folder.name, self.root)


@lru_cache(maxsize=1)  # one split, 150 MB at most
def _pixels(files: Files) -> NDArray[np.uint8]:
    """Return all images of a split: uint8 [N, 3, 32, 32]."""
    return np.concatenate([_unpickle(*file)["data"] for file in files]).reshape(-1, 3, 32, 32)


def _unpickle(path: str, md5: str) -> dict[str, Any]:
    """Load one official file. Raises DataError for any other."""
    folder, name = Path(path).parent, Path(path).name
    try:
        with file_errors():
            if not Path(path).exists():
                raise pickle.UnpicklingError("missing")
            content = Path(path).read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise pickle.UnpicklingError(f"its md5 checksum is not {md5}")
        found: dict[str, Any] = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise _damaged(folder, f"{name}: {error}") from error
    return found


def _damaged(folder: Path, faults: str) -> DataError:
    return DataError(f"{folder} is incomplete or damaged ({faults}); delete it and set data.download=true.")


def _obvious_fault(file: Path, images: int) -> str:
    """Return whether a file of a number of images is missing or truncated, without reading it; "" if it is not."""
    if not file.exists():
        return "missing"
    return "" if file.stat().st_size > 3 * 32 * 32 * images else "truncated"


class _Unpickler(pickle.Unpickler):
    """An unpickler that creates arrays only: by default, a pickle can call any function of any module."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it uses {module}.{name}, unlike the official files")
        return _ARRAYS[module, name]


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # NumPy 2 moved it; the official files use the old module
_ARRAYS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}
# The folder and the archive, as in torchvision, which takes seconds to import.
_NAMES = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
}
_FILES = {  # and their numbers of images
    "cifar10": {**{f"data_batch_{n}": 10_000 for n in range(1, 6)}, "test_batch": 10_000, "batches.meta": 0},
    "cifar100": {"train": 50_000, "test": 10_000, "meta": 0},
}
_IMAGES = {"train": 50_000, "test": 10_000}
_CLASSES = {"cifar10": 10, "cifar100": 100}
_LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}
