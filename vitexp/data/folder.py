"""Your own images: one folder per class."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated

from vitexp.data.imagefile import (
    ENDINGS,
    HAS_HEIC,
    HEIC_ENDINGS,
    INSTALL_HEIC,
    ImageFile,
    is_visible,
    list_images,
    split_of_files,
    visible_files,
)
from vitexp.data.parts import (
    Part,
    about_roles,
    named_parts,
    natural,
    part_of,
    rank,
    refuse_unknown_classes,
    roles,
    test_count,
)
from vitexp.data.source import DataError, Source, Split, SplitName, TestPart, file_errors, printable
from vitexp.options import Doc, Field, Fraction
from vitexp.options import Path as PathOption
from vitexp.text import plural, shortened

_Tree = dict[str, list[ImageFile]]  # the images of each class
_MOST = 5  # endings that the sentence about unread files lists


class Folder(Source):
    """Images in class folders: root/train/<class>/*, root/val/<class>/* and root/test/<class>/*.

    The parts may also be called training, valid, validation and testing, in any letter case. With train and test,
    validation is val, or split from train without it. With train and val only, val is the test set, and validation is
    split from train, because the test set may not choose anything.

    With train only (or with root/<class>/* only), the fraction `test_fraction` of every class becomes the test set. The
    choice depends on `split_seed` and the file names only, so adding images moves few of the others.

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
        return self._split(self._parts[name])

    def validation(self) -> Split | None:
        return self._split(self._parts["val"]) if "val" in self._parts else None

    def _split(self, tree: _Tree) -> Split:
        classes = self.classes
        files = [file for label in classes for file in tree.get(label, [])]
        labels = [number for number, label in enumerate(classes) for _ in tree.get(label, [])]
        return split_of_files(self.root, files, labels)

    def refuse_missing(self) -> None:
        self._refuse_few(_subfolders(self.root / self._train_folder))

    def test_part(self) -> TestPart:
        """Return all images of root/test/<class>/*, root/val/<class>/*, root/train/<class>/* or root/<class>/*.

        The first of these that exists. Raises DataError if there is none, or if a class has no images.
        """
        folders = [self._folders[part] for part in ("test", "val", "train") if part in self._folders]
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
            beside = sorted(path for path in folder.iterdir() if path.is_file() and is_visible(path.name))
        below = [path for label in _subfolders(folder) for path in visible_files(folder / label)]
        if ignored := [path for path in (*beside, *below) if path not in read]:
            about += f"; not read: {shortened([printable(path.relative_to(self.root)) for path in ignored])}"
        return about

    def describe(self) -> str:
        """Return how test images are chosen if that is not clear, and which classes a part does not have."""
        folders = self._folders if self._is_parted else {}
        about = [about_roles(folders, test_fraction=self.test_fraction, split_seed=self.split_seed)]
        val, test = roles(folders)
        for part, tree in ((val, self._parts.get("val", {})), (test, self._parts["test"])):
            if part and (lacking := [printable(label) for label in self.classes if label not in tree]):
                about.append(f"{printable(folders[part])} has no images of {shortened(lacking)}")
        return "; ".join(filter(None, about))

    def unread(self) -> str:
        read = {self.root / file.path for tree in self._parts.values() for images in tree.values() for file in images}
        parts = [self.root / name for name in self._folders.values()] if self._is_parted else [self.root]
        return _unread_sentence(
            {self.root, *parts}, {part / label for part in parts for label in _subfolders(part)}, read
        )

    def _refuse_missing_root(self) -> None:
        with file_errors():
            if self.root.is_file():
                raise DataError(f"data.root={self.root} is a file; unpack it, or set data.root to a folder.")
            if not self.root.is_dir():
                raise DataError(f"folder {self.root} does not exist; set data.root to the folder of the images.")

    @cached_property
    def _folders(self) -> dict[Part, str]:
        """The folders of the parts; a class of railway pictures may itself be called train."""
        self._refuse_missing_root()
        return named_parts(
            (name for name in _subfolders(self.root) if _is_tree(self.root / name)), within=f"{self.root}"
        )

    @property
    def _is_parted(self) -> bool:
        return "train" in self._folders

    @property
    def _train_folder(self) -> str:
        """The folder that contains the class folders to train on, relative to root: "train/", for example, or ""."""
        train = self._folders.get("train")
        if train is None and self._folders and all(map(part_of, _subfolders(self.root))):
            part = next(iter(self._folders.values()))
            raise DataError(
                f"{self.root} contains {' and '.join(self._folders.values())} but no images to train on; add "
                f"train/<class>/*, or set data.root={self.root / part} to split its images into training and test."
            )
        return f"{train}/" if train else ""

    @cached_property
    def _train_tree(self) -> _Tree:
        tree = _read_tree(self.root, self._train_folder)
        self._refuse_few(list(tree))
        return tree

    def _refuse_few(self, classes: list[str]) -> None:
        if len(classes) < 2:
            found = f"a single class folder, {classes[0]}" if classes else "no class folder"
            if loose := len(list_images(self.root, "")):
                found = f"{plural(loose, 'image')} and {found}"
            raise DataError(f"{self.root} contains {found}; at least two are needed, as <class>/* or train/<class>/*.")

    @cached_property
    def _parts(self) -> dict[Part, _Tree]:
        tree = self._train_tree
        if not self._is_parted:
            return self._divided(tree)
        # A part without class folders is refused: its images would silently be left out.
        visible = named_parts(_subfolders(self.root), within=f"{self.root}")
        for folder in visible.values():
            if not _is_tree(self.root / folder):
                raise DataError(
                    f"{self.root / folder} contains no class folder; put the images of each class into one, or move it "
                    "out of data.root."
                )
        val, test = roles(self._folders)
        if test is None:
            return self._divided(tree)
        parts: dict[Part, _Tree] = {"train": tree}
        assigned: dict[Part, Part | None] = {"val": val, "test": test}
        for role, part in assigned.items():
            if part is not None:
                name, train = self._folders[part], self._folders["train"]
                parts[role] = _read_tree(self.root, f"{name}/")
                refuse_unknown_classes(parts[role], tree, part=self.root / name, train=self.root / train)
        return parts

    def _divided(self, tree: _Tree) -> dict[Part, _Tree]:
        halves = {label: self._divide(files) for label, files in tree.items()}
        return {
            "train": {label: train for label, (train, _) in halves.items()},
            "test": {label: test for label, (_, test) in halves.items()},
        }

    def _divide(self, files: list[ImageFile]) -> tuple[list[ImageFile], list[ImageFile]]:
        """Return training and test images of one class, at least one for training; a single image is for training."""
        count = test_count(len(files), self.test_fraction)
        shuffled = sorted(files, key=lambda file: rank(self.split_seed, file.path))
        return sorted(shuffled[count:]), sorted(shuffled[:count])


def _unread_sentence(parts: set[Path], classes: set[Path], read: set[Path]) -> str:
    """Return how many files are not read, and why; "" if there are none.

    parts, classes: the folders that contain class folders, and these; each may be a link. read: the files that are.
    """
    endings, places = Counter[str](), Counter[str]()
    files = {path for folder in (*parts, *classes) for path in visible_files(folder)}
    for path in files - read - parts - classes:
        ending = path.suffix.lower()
        if path.is_dir():
            places["links to folders"] += 1
        elif ending not in ENDINGS:
            endings[printable(ending) if ending else "without an ending"] += 1
        else:
            is_inside = not classes.isdisjoint(path.parents)
            places["images in subfolders of classes" if is_inside else "images outside class folders"] += 1
    if not (count := sum(endings.values()) + sum(places.values())):
        return ""
    ranked = sorted(endings.items(), key=lambda each: (-each[1], each[0]))
    reasons = [f"{ending} {number:,}" for ending, number in ranked[:_MOST]]
    if others := sum(number for _, number in ranked[_MOST:]):
        reasons.append(f"others {others:,}")
    reasons += [f"{place} {number:,}" for place, number in sorted(places.items())]
    advice = f"; {INSTALL_HEIC} makes .heic readable" if not HAS_HEIC and any(map(endings.get, HEIC_ENDINGS)) else ""
    return f"{plural(count, 'file')} {'was' if count == 1 else 'were'} not read ({', '.join(reasons)}){advice}"


def _is_tree(folder: Path) -> bool:
    """Return whether a folder contains folders."""
    with file_errors():
        return folder.is_dir() and bool(_subfolders(folder))


def _subfolders(folder: Path) -> list[str]:
    """Return the subfolders in natural order. Raises DataError for a dangling link, which could hide a class."""
    with file_errors():
        visible = [path for path in folder.iterdir() if is_visible(path.name)]
        names = [path.name for path in visible if path.is_dir()]
        folders = [path for path in visible if not path.name.lower().endswith(ENDINGS)]
        if lost := [path for path in folders if path.is_symlink() and not path.exists()]:
            raise DataError(f"{printable(lost[0])} is a dangling link; fix or remove it.")
    return sorted(names, key=natural)


def _read_tree(root: Path, prefix: str) -> _Tree:
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
            advice = "; set data.root to it if its folders are the classes" if _is_tree(folder) else ""
            if not HAS_HEIC and list_images(root, prefix + label, HEIC_ENDINGS):
                advice = f"; its HEIC images need one more package: {INSTALL_HEIC}"
            raise DataError(f"the class folder {folder} contains no image that can be read{advice}.")
    return tree
