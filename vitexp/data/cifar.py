"""CIFAR-10 and CIFAR-100: 32x32 colour images, 50,000 for training and 10,000 for testing.

Krizhevsky, Learning multiple layers of features from tiny images, 2009. torchvision reads the official pickled files,
after checking their md5 sums.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitexp.data.download import fetch, one_at_a_time, unpack
from vitexp.data.source import DataError, Source, Split, SplitName


@dataclass(frozen=True)
class CIFARImages:
    """Reads image i. Pickles as paths, and needs no torch where a worker process reads the files again."""

    paths: tuple[str, ...]

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        """uint8 [32, 32, 3]."""
        return np.ascontiguousarray(_pixels(self.paths)[index].transpose(1, 2, 0), np.uint8)


class _Found(NamedTuple):
    labels: NDArray[np.int64]
    classes: list[str]
    paths: tuple[str, ...]
    fingerprint: str


class CIFAR(Source):
    """CIFAR-10 or CIFAR-100 (with its 100 fine labels).

    root: folder that holds, or shall hold, the archive or cifar-10-batches-py (cifar-100-python).
    download: fetch what is missing. An archive that lies in root is unpacked even without it.
    """

    def __init__(self, *, root: str, download: bool = False, kind: Literal["cifar10", "cifar100"]) -> None:
        self.root = Path(root).expanduser()
        self.download = download
        self.kind = kind
        self._found: dict[SplitName, _Found] = {}

    @property
    def classes(self) -> list[str]:
        return [name.replace("_", " ") for name in self._find("train").classes]

    def split(self, name: SplitName) -> Split:
        found = self._find(name)
        return Split(
            labels=found.labels,
            groups=np.arange(len(found.labels), dtype=np.int64),
            read=CIFARImages(found.paths),
            fingerprint=found.fingerprint,
        )

    def coarse_of_fine(self) -> NDArray[np.int64]:
        """The superclass of every class of CIFAR-100: int64 [100], values in [0, 20). Raises DataError."""
        if self.kind != "cifar100":
            raise DataError("only CIFAR-100 has superclasses.")
        found = self._find("train")
        coarse = np.zeros(len(found.classes), np.int64)
        coarse[found.labels] = _unpickle(found.paths[0])["coarse_labels"]
        return coarse

    def _find(self, name: SplitName) -> _Found:
        """What torchvision finds in the files of a split, whose md5 sums it checks; read once."""
        if name in self._found:
            return self._found[name]
        from torchvision.datasets import CIFAR10, CIFAR100  # imports torch: only when asked for

        dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[self.kind]
        folder, packed = self.root / dataset.base_folder, self.root / dataset.filename
        if not folder.exists():
            self._obtain(dataset.url, packed, dataset.tgz_md5, folder)
        try:
            data = dataset(self.root, train=name == "train")
        except RuntimeError as error:  # torchvision's word for a wrong md5 sum
            raise DataError(
                f"{folder} is incomplete or damaged (md5 sums); delete it, and data.download=true fetches it anew."
            ) from error
        files = data.train_list if name == "train" else data.test_list
        self._found[name] = _Found(
            labels=np.array(data.targets, np.int64),
            classes=data.classes,
            paths=tuple(str(folder / file) for file, _ in files),
            fingerprint=hashlib.sha256(repr((self.kind, files)).encode()).hexdigest(),  # names and verified md5 sums
        )
        return self._found[name]

    def _obtain(self, url: str, packed: Path, md5: str, folder: Path) -> None:
        if not self.download and not packed.exists():
            raise DataError(
                f"{self.kind} is missing: there is no {folder}; data.download=true fetches it, or put {packed.name} "
                f"from {url} into {self.root} by hand."
            )
        with one_at_a_time(self.root):
            if not folder.exists():  # no other process was faster
                fetch(url, packed, md5=md5)
                unpack(packed, folder.name, self.root)


@lru_cache(maxsize=1)  # one split, 150 MB at most
def _pixels(paths: tuple[str, ...]) -> NDArray[np.uint8]:
    """uint8 [N, 3, 32, 32]."""
    return np.concatenate([_unpickle(path)["data"] for path in paths]).reshape(-1, 3, 32, 32)


def _unpickle(path: str) -> dict[str, Any]:
    """One official file. Its md5 sum was checked before its path was handed out, so nothing foreign is executed."""
    with open(path, "rb") as file:
        content: dict[str, Any] = pickle.load(file, encoding="latin1")  # noqa: S301 - see above
    return content
