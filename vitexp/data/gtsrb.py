"""GTSRB: photographs of German traffic signs, 43 classes.

Stallkamp et al., Man vs. computer: benchmarking machine learning algorithms for traffic sign recognition, 2012.
The full training set has 39,209 images of 1,307 tracks, nearly all of 30 frames; the test set has 12,630 images. The
smaller training set of the online competition, 26,640 images, is the one that torchvision downloads.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from vitexp.data.download import fetch, one_at_a_time, unpack
from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.data.listing import ImageFile, image_names, list_images, split_of_files
from vitexp.data.source import DataError, Source, Split, SplitName, file_errors, refuse
from vitexp.options import Doc, Words
from vitexp.options import Path as PathOption
from vitexp.text import shortened

BASE_URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"


@dataclass(frozen=True)
class Archive:
    """A published archive: which member is unpacked, and its possible places in a GTSRB folder."""

    file: str
    md5: str
    holds: str
    member: str
    places: tuple[str, ...]


_LABELS = "GT-final_test.csv"
# md5 checksums as in torchvision; that of the full training images as in several independent projects.
ARCHIVES = {
    "full": Archive(
        file="GTSRB_Final_Training_Images.zip",
        md5="f33fd80ac59bff73c82d25ab499e03a3",
        holds="training images (full set)",
        member="GTSRB/Final_Training",
        places=("Final_Training/Images",),
    ),
    "online": Archive(
        file="GTSRB-Training_fixed.zip",
        md5="513f3c79a4c5141765e10e952eaa2478",
        holds="training images (online competition)",
        member="GTSRB/Training",
        places=("Training",),
    ),
    "test": Archive(
        file="GTSRB_Final_Test_Images.zip",
        md5="c7e4e6327067d32654124b0fe9e82185",
        holds="test images",
        member="GTSRB/Final_Test",
        places=("Final_Test/Images",),
    ),
    "labels": Archive(
        file="GTSRB_Final_Test_GT.zip",
        md5="fe31e9c9270bbcd7b84b7f21a9d9d9e5",
        holds="labels of the test images",
        member=_LABELS,
        places=(_LABELS, f"../{_LABELS}", f"Final_Test/{_LABELS}", f"Final_Test/Images/{_LABELS}"),
    ),
}
_ENDING = (".ppm",)
_CLASSES = tuple(f"{label:05d}" for label in range(len(GTSRB_CLASSES)))  # folders of the training images
_LEVELS = (".", "GTSRB", "gtsrb/GTSRB", "GTSRB/GTSRB")  # possible places of the GTSRB folder in root
_SIZES = {"full": 39_209, "online": 26_640}
_SETS = {"full": "full training set", "online": "online training set"}


class GTSRB(Source):
    """GTSRB from its official archives, unpacked by you, by torchvision, or by this class."""

    identity: ClassVar[tuple[str, ...]] = ()
    split_by: ClassVar[tuple[str, ...] | None] = ("train_set",)

    def __init__(
        self,
        *,
        root: Annotated[PathOption, Doc("folder with the archives or a folder GTSRB")],
        download: Annotated[bool, Doc("download what is missing; an archive in root is unpacked in any case")] = False,
        train_set: Annotated[
            Literal["auto", "full", "online"],
            Doc("full: 39,209 images; online: 26,640, torchvision's; auto: full, unless only online is present"),
        ] = "auto",
        base_url: Annotated[PathOption, Words("a URL"), Doc("address of the archives")] = BASE_URL,
    ) -> None:
        if train_set not in ("auto", "full", "online"):
            raise DataError(f"data.train_set must be auto, full or online, not {train_set!r}.")
        self.root = Path(root).expanduser()
        self.download = download
        self.train_set = train_set
        self.base_url = base_url.rstrip("/")

    @property
    def classes(self) -> list[str]:
        return list(GTSRB_CLASSES)

    def split(self, name: SplitName) -> Split:
        return self._train[1] if name == "train" else self._test()

    def describe(self) -> str:
        """Return which training set was found, and its number of images. Raises DataError if there is none."""
        which, split = self._train
        expected = _SIZES[which]
        count = f"{len(split):,} images" + ("" if len(split) == expected else f" instead of {expected:,}")
        return f"{_SETS[which]}, {count}"

    def refuse_unusable(self, *, for_training: bool = True) -> None:
        needed = (self._which, "test", "labels") if for_training else ("test", "labels")
        found = {part: self._find(ARCHIVES[part]) for part in needed}
        self._refuse_missing([ARCHIVES[part] for part, place in found.items() if place is None])
        faults = []
        if for_training and (folder := found[self._which]):
            with file_errors():
                images = {name: image_names(folder / name, _ENDING) for name in _CLASSES if (folder / name).is_dir()}
            faults.append(_missing_classes(folder, images))
        if (folder := found["test"]) and (labels := found["labels"]):
            faults.append(_unequal(folder, image_names(folder, _ENDING), _read_labels(labels)))
        refuse(faults)

    @property
    def _which(self) -> str:
        """The training set to use: "full" or "online"."""
        if self.train_set != "auto":
            return self.train_set
        return "online" if not self._find(ARCHIVES["full"]) and self._find(ARCHIVES["online"]) else "full"

    @cached_property
    def _train(self) -> tuple[str, Split]:
        which = self._which
        folder = self._obtain(ARCHIVES[which])
        with file_errors():
            images = {name: list_images(folder, name, _ENDING) for name in _CLASSES if (folder / name).is_dir()}
        refuse([_missing_classes(folder, images)])
        files = [file for name in _CLASSES for file in images[name]]
        labels = [label for label, name in enumerate(_CLASSES) for _ in images[name]]
        return which, split_of_files(folder, files, labels, _tracks(folder, files))

    def _test(self) -> Split:
        folder = self._obtain(ARCHIVES["test"])
        labels = _read_labels(self._obtain(ARCHIVES["labels"]))
        files = list_images(folder, "", _ENDING)
        refuse([_unequal(folder, [file.path for file in files], labels)])
        return split_of_files(folder, files, [labels[file.path] for file in files])

    def _find(self, archive: Archive) -> Path | None:
        places = (self.root / level / place for level in _LEVELS for place in archive.places)
        with file_errors():
            return next((place for place in places if place.exists()), None)

    def _refuse_missing(self, archives: Sequence[Archive]) -> None:
        """Raise DataError unless archives may be downloaded, or wait to be unpacked."""
        missing = [] if self.download else [each for each in archives if not (self.root / each.file).exists()]
        if missing:
            holds, places, files = zip(*((each.holds, each.places[0], each.file) for each in missing), strict=True)
            raise DataError(
                f"the GTSRB {shortened(holds)} are missing: neither {self.root} nor a folder GTSRB in it contains "
                f"{shortened(places)}; set data.download=true, or put {shortened(files)} from {self.base_url} "
                f"into {self.root}."
            )

    def _obtain(self, archive: Archive) -> Path:
        """Return the folder of the content of an archive, after downloading and unpacking it if necessary."""
        if found := self._find(archive):
            return found
        self._refuse_missing([archive])
        packed = self.root / archive.file
        with one_at_a_time(self.root):
            if found := self._find(archive):  # another process unpacked it first
                return found
            fetch(f"{self.base_url}/{archive.file}", packed, md5=archive.md5)
            unpack(packed, archive.member, self.root)
        if found := self._find(archive):
            return found
        raise DataError(f"{packed} does not contain {archive.places[0]}.")


def _missing_classes(folder: Path, images: Mapping[str, Sequence[object]]) -> str:
    """Return a phrase about classes without training images; "" if there are none. images: by class folder."""
    if not (missing := [name for name in _CLASSES if not images.get(name)]):
        return ""
    verbs = "is missing or has" if len(missing) == 1 else "are missing or have"
    return f"the GTSRB training set is incomplete: in {folder}, {shortened(missing)} {verbs} no images"


def _unequal(folder: Path, images: Collection[str], labels: Mapping[str, int]) -> str:
    """Return a phrase about test images without a label, and labels without an image; "" if there are none."""
    unequal = {"image": sorted(labels.keys() - set(images)), "label": sorted(set(images) - labels.keys())}
    without = [f"no {what} for {shortened(names, most=2)}" for what, names in unequal.items() if names]
    found = f"{len(images):,} images in {folder} and {len(labels):,} labels"
    return f"the GTSRB test set is incomplete: {found}, and {' and '.join(without)}" if without else ""


def _tracks(folder: Path, files: list[ImageFile]) -> list[int]:
    """Return one integer per physical sign, from <class>/<track>_<frame>.ppm; track numbers repeat across classes."""
    numbers: dict[str, int] = {}
    tracks = []
    for file in files:
        match = re.fullmatch(r"(\d+/\d+)_\d+\.ppm", file.path)
        if match is None:
            raise DataError(f"{folder / file.path} is not named <track>_<frame>.ppm, so its physical sign is unknown.")
        tracks.append(numbers.setdefault(match[1], len(numbers)))
    return tracks


def _read_labels(path: Path) -> dict[str, int]:
    """Return the class of each file name, from the table of the test images. Raises DataError."""
    try:
        with file_errors(), open(path, newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines, delimiter=";"))
        labels = {row["Filename"]: int(row["ClassId"]) for row in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path} is not the table of test labels from {ARCHIVES['labels'].file}, with the columns Filename and "
            "ClassId separated by semicolons."
        ) from error
    if wrong := [name for name, label in labels.items() if not 0 <= label < len(GTSRB_CLASSES)]:
        raise DataError(f"{path} has class {labels[wrong[0]]} for {wrong[0]}; classes are 0 to 42.")
    return labels
