"""The interface of data sources: the images of a split, read lazily, with labels and groups."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vitexp.errors import UserError
from vitexp.text import plural

SplitName = Literal["train", "test"]
_NAMED = 3  # images in a message


class DataError(UserError):
    """Data that cannot be used."""


CANNOT_DECODE = "cannot decode the image "


class BrokenImage(DataError):
    """A file that cannot be decoded; the message names it."""


class BrokenImages(BrokenImage):
    """The files of a data set that cannot be decoded; the message says how many, and names the first ones.

    errors: one for each file. total: number of images that were read.
    """

    def __init__(self, errors: Sequence[BrokenImage], *, total: int) -> None:
        self.errors, self.total = tuple(errors), total
        named = [str(error).removeprefix(CANNOT_DECODE).rstrip(".") for error in self.errors[:_NAMED]]
        names, _, reasons = zip(*(each.partition(": ") for each in named), strict=True)
        if len(set(reasons)) == 1 and reasons[0]:
            named = [f"{', '.join(names)}: {reasons[0]}"]
        more = f"; and {len(errors) - _NAMED:,} more" if len(errors) > _NAMED else ""
        super().__init__(
            f"{len(errors):,} of {plural(total, 'image')} cannot be decoded; fix or remove them, or set "
            f"data.on_broken=skip: {'; '.join(named)}{more}."
        )


@contextmanager
def file_errors() -> Iterator[None]:
    """Turn an OSError raised inside into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {printable(error.filename or 'the data')}: {error.strerror or error}.") from error


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path that fits on one line of a message: line breaks and undecodable bytes are escaped."""
    name = os.fspath(path)
    return name if name.isprintable() else ascii(name)


def refuse(faults: Iterable[str]) -> None:
    """Raise DataError if there are faults, phrases without a full stop, of which any may be empty."""
    if found := [fault for fault in faults if fault]:
        raise DataError(f"{'; also, '.join(found)}.")


class ReadImage(Protocol):
    """A function that reads one image by its index. Picklable, so that several processes can read."""

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        """Return RGB image `index`: uint8 [H, W, 3], any H and W. Raises BrokenImage."""
        ...


@dataclass(frozen=True, kw_only=True)
class Split:
    """The images of one split, not yet read.

    labels: int64 [N], values in [0, classes).
    groups: int64 [N]; images of a group are never split between training and validation.
    read: reads image i.
    fingerprint: changes whenever the images may have changed; part of the cache key.
    """

    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    read: ReadImage
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class TestPart:
    """The images that a network trained on other data is tested on.

    classes: their names in the order of the labels. numbered: whether this order is official, so that label i means
    class number i. about: which images these are, and which files beside them are not read.
    """

    __test__ = False  # pytest would collect it as a test

    classes: list[str]
    split: Split
    numbered: bool = True
    about: str = ""


class Source(ABC):
    """A data set on disk, on the network or in code. Constructing it reads nothing; `split` does.

    Facts for configuration checks: `reads_files`, whether image files are decoded; `identity`, the options that
    distinguish data sets of this class; `split_by`, the options that decide which images are in train (None: all
    other options); `location`, the options that say where the images are stored or downloaded from, which does not
    change them.
    """

    reads_files: ClassVar[bool] = True
    identity: ClassVar[tuple[str, ...]] = ("root",)
    split_by: ClassVar[tuple[str, ...] | None] = None
    location: ClassVar[tuple[str, ...]] = ("root", "download", "base_url")

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Class names in the order of the labels. Raises DataError if the data is missing."""

    @abstractmethod
    def split(self, name: SplitName) -> Split:
        """Return the official train or test split. Raises DataError."""

    def validation(self) -> Split | None:
        """Return the official validation split; None: it is split from train. Raises DataError."""
        return None

    def refuse_unusable(self, *, for_training: bool = True) -> None:  # noqa: B027 - optional
        """Raise DataError if it is obvious that the data is missing or cannot be used; one error names all faults.

        Called before torch is imported. Quick: reads no images and downloads nothing.

        for_training: otherwise only test images are needed, for a network that is already trained.
        """

    def test_part(self) -> TestPart:
        """Return the images to test a network on that was trained on other data. Raises DataError."""
        return TestPart(classes=self.classes, split=self.split("test"), about="the test split")

    def describe(self) -> str:
        """Return a phrase about the data found, for the first lines of a run; may be empty."""
        return ""

    def unread(self) -> str:
        """Return a sentence about unread files for the opening lines; "" if there are none."""
        return ""
