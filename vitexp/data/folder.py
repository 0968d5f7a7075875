"""Your own images: one folder per class."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated

from vitexp.data.imagefile import ENDINGS, ImageFile, list_images, split_of_files, visible_files
from vitexp.data.source import DataError, Source, Split, SplitName, TestPart, file_errors, printable
from vitexp.options import Doc, Field, Fraction
from vitexp.options import Path as PathOption
from vitexp.text import shortened


class Folder(Source):
    """Images in class folders: root/train/<class>/* and root/test/<class>/*.

    Without a test folder (or with root/<class>/* only), the fraction `test_fraction` of every class becomes the test
    set. The choice depends on `split_seed` and the file names only, so adding images moves few of the others. Other
    folders, such as val, are not read if there is a train folder: validation is split from train.

    A network that was trained on other data is tested on all images: of root/test, or of root/<class>/* without it.
    """

    def __init__(
        self,
        *,
        root: Annotated[PathOption, Doc("folder of the images")],
        test_fraction: Annotated[
            Fraction, Doc("fraction of every class that becomes the test set if there is no test folder")
        ] = 0.2,
        split_seed: Annotated[
            int, Field(ge=0, le=2**32 - 1), Doc("seed that selects the test images, independent of the seed of the run")
        ] = 0,
    ) -> None:
        if not 0 < test_fraction < 1:
            raise DataError(f"data.test_fraction={test_fraction} must be between 0 and 1, both excluded.")
        self.root = Path(root).expanduser()
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @property
    def classes(self) -> list[str]:
        return list(self._train_tree)

    def split(self, name: SplitName) -> Split:
        images = self._parts[name]
        classes = self.classes
        files = [file for label in classes for file in images.get(label, [])]
        labels = [number for number, label in enumerate(classes) for _ in images.get(label, [])]
        return split_of_files(self.root, files, labels)

    def refuse_missing(self) -> None:
        self._refuse_missing_root()
        _refuse_few(self.root, _subfolders(self.root / ("train" if _is_tree(self.root / "train") else "")))

    def test_part(self) -> TestPart:
        """Return all images of root/test/<class>/*, root/train/<class>/* or root/<class>/*, the first that exists.

        Raises DataError if that is not clear, or if a class has no images.
        """
        self._refuse_missing_root()
        folders = [name for name in ("test", "val", "train") if _is_tree(self.root / name)]
        if "test" not in folders and len(folders) > 1:
            raise DataError(
                f"{self.root} contains train and val but no test; set data.root to the folder to evaluate, such as "
                f"{self.root / 'val'}."
            )
        tree = _read_tree(self.root, f"{folders[0]}/" if folders else "")
        if not tree:
            raise DataError(
                f"{self.root} contains no class folder; put the images of each class into one, as <class>/*."
            )
        files = [file for images in tree.values() for file in images]
        labels = [label for label, images in enumerate(tree.values()) for _ in images]
        return TestPart(
            classes=list(tree),
            split=split_of_files(self.root, files, labels),
            numbered=False,  # the order is alphabetical
            about=self._about(folders[0] if folders else "", files),
        )

    def _about(self, part: str, files: list[ImageFile]) -> str:
        """Return which images are evaluated, and which files and folders are not."""
        about = f"all of {printable(self.root / part)}"
        if part and (others := [name for name in _subfolders(self.root) if name != part]):
            about += f"; not evaluated: {shortened([printable(name) for name in others])}"
        folder, read = self.root / part, {self.root / file.path for file in files}
        with file_errors():
            beside = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        below = [path for label in _subfolders(folder) for path in visible_files(folder / label)]
        if ignored := [path for path in (*beside, *below) if path not in read]:
            about += f"; not read: {shortened([printable(path.relative_to(self.root)) for path in ignored])}"
        return about

    def describe(self) -> str:
        counts = {part: sum(map(len, tree.values())) for part, tree in self._parts.items()}
        found = f"{len(self.classes)} classes, {counts['train']:,} training and {counts['test']:,} test images"
        if not self._has_test:
            found += f"; {self.test_fraction:.0%} of every class are test images (split_seed={self.split_seed})"
        if _is_tree(self.root / "train") and (self.root / "val").is_dir():
            found += "; folder val is ignored"
        return found

    @property
    def _has_test(self) -> bool:
        return _is_tree(self.root / "train") and (self.root / "test").is_dir()

    def _refuse_missing_root(self) -> None:
        with file_errors():
            if not self.root.is_dir():
                raise DataError(f"folder {self.root} does not exist; set data.root to the folder of the images.")

    @cached_property
    def _train_tree(self) -> dict[str, list[ImageFile]]:
        self._refuse_missing_root()
        tree = _read_tree(self.root, "train/" if _is_tree(self.root / "train") else "")
        _refuse_few(self.root, list(tree))
        return tree

    @cached_property
    def _parts(self) -> dict[SplitName, dict[str, list[ImageFile]]]:
        tree = self._train_tree
        if not self._has_test:
            halves = {label: self._divide(files) for label, files in tree.items()}
            return {
                "train": {label: train for label, (train, _) in halves.items()},
                "test": {label: test for label, (_, test) in halves.items()},
            }
        test = _read_tree(self.root, "test/")
        if unknown := [label for label in test if label not in tree]:
            raise DataError(f"{self.root / 'test' / unknown[0]} is a class that is missing from {self.root / 'train'}.")
        if not test:
            raise DataError(f"{self.root / 'test'} contains no class folder.")
        return {"train": tree, "test": test}

    def _divide(self, files: list[ImageFile]) -> tuple[list[ImageFile], list[ImageFile]]:
        """Return training and test images of one class, at least one for training; a single image is for training."""
        count = min(max(round(len(files) * self.test_fraction), 1), len(files) - 1)
        shuffled = sorted(files, key=lambda file: _rank(self.split_seed, file))
        return sorted(shuffled[count:]), sorted(shuffled[:count])


def _rank(seed: int, file: ImageFile) -> bytes:
    return hashlib.sha256(f"{seed} {file.path}".encode(errors="surrogateescape")).digest()


def _refuse_few(root: Path, classes: list[str]) -> None:
    if len(classes) < 2:
        found = f"a single class folder, {classes[0]}" if classes else "no class folder"
        raise DataError(f"{root} contains {found}; at least two are needed, as <class>/* or train/<class>/*.")


def _is_tree(folder: Path) -> bool:
    """Return whether a folder contains class folders; a class of railway pictures may itself be called train."""
    with file_errors():
        return folder.is_dir() and bool(_subfolders(folder))


def _subfolders(folder: Path) -> list[str]:
    """Return the subfolders in natural order. Raises DataError for a dangling link, which could hide a class."""
    with file_errors():
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
        names = [path.name for path in visible if path.is_dir()]
        folders = [path for path in visible if not path.name.lower().endswith(ENDINGS)]
        if lost := [path for path in folders if path.is_symlink() and not path.exists()]:
            raise DataError(f"{printable(lost[0])} is a dangling link; fix or remove it.")
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts class2 before class10."""
    pieces = re.split(r"(\d+)", name.casefold())  # text and digits alternate
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], name


def _read_tree(root: Path, prefix: str) -> dict[str, list[ImageFile]]:
    """Return the images of each class folder in root/prefix, classes in natural order."""
    tree = {}
    for label in _subfolders(root / prefix):
        if not label.isprintable():  # it appears in tables, figures and JSON files
            raise DataError(
                f"the name of the class folder {printable(root / prefix / label)} is not printable UTF-8; rename it."
            )
        tree[label] = list_images(root, prefix + label)
        if not tree[label]:
            folder = root / prefix / label
            below = "; set data.root to it if its folders are the classes" if _is_tree(folder) else ""
            raise DataError(f"the class folder {folder} contains no png, jpg, ppm, bmp or webp image{below}.")
    return tree
