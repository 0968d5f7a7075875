"""Your own images: one folder per class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated

from vitexp.data.class_folders import empty_classes, inside, is_tree, subfolders, unprintable, unread_files
from vitexp.data.listing import ImageFile, image_names, is_visible, list_images, split_of_files, visible_files
from vitexp.data.parts import (
    Part,
    about_roles,
    alike,
    named_parts,
    part_of,
    rank,
    roles,
    test_count,
    too_few_images,
    unknown_classes,
)
from vitexp.data.source import DataError, Source, Split, SplitName, TestPart, file_errors, printable, refuse
from vitexp.options import Doc, Field, Fraction
from vitexp.options import Path as PathOption
from vitexp.text import plural, shortened

_Tree = dict[str, list[ImageFile]]  # the images of each class


class Folder(Source):
    """Images in class folders: root/train/<class>/*, root/val/<class>/* and root/test/<class>/*.

    The parts may also be called training, valid, validation and testing, in any letter case. Without train, the other
    folders in root are the classes to train on. With train and test, validation is val, or split from train without it.
    With train and val only, val is the test set, and validation is split from train, because the test set may not
    choose anything.

    With train only, the fraction `test_fraction` of every class becomes the test set. The choice depends on
    `split_seed` and the file names only, so adding images moves few of the others.

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
        return list(self._parts["train"])

    def split(self, name: SplitName) -> Split:
        return self._split(self._parts[name])

    def validation(self) -> Split | None:
        return self._split(self._parts["val"]) if "val" in self._parts else None

    def _split(self, tree: _Tree) -> Split:
        classes = self.classes
        files = [file for label in classes for file in tree.get(label, [])]
        labels = [number for number, label in enumerate(classes) for _ in tree.get(label, [])]
        return split_of_files(self.root, files, labels)

    def refuse_unusable(self, *, for_training: bool = True) -> None:
        folders: dict[Part, str] = self._roles if for_training else {"test": self._tested}
        counts = {
            part: {label: len(image_names(self.root / folder / label)) for label in self._labels(folder)}
            for part, folder in folders.items()
        }
        more = []
        if for_training:
            train = printable(self.root / folders["train"])
            more = [alike(counts["train"], where=train), self._too_few(counts)]
        refuse([*self._faults(folders, counts), *more])

    def test_part(self) -> TestPart:
        """Return all images of root/test/<class>/*, root/val/<class>/*, root/train/<class>/* or root/<class>/*.

        The first of these that exists. Raises DataError if there is none, or if a class has no images.
        """
        tree = self._read({"test": self._tested})["test"]
        files = [file for images in tree.values() for file in images]
        labels = [label for label, images in enumerate(tree.values()) for _ in images]
        return TestPart(
            classes=list(tree),
            split=split_of_files(self.root, files, labels),
            numbered=False,  # the order is alphabetical
            about=self._about(self._tested, files),
        )

    def _about(self, part: str, files: list[ImageFile]) -> str:
        """Return which images are evaluated, and which files and folders are not."""
        about = f"all of {printable(self.root / part)}"
        if part and (others := [name for name in subfolders(self.root) if name != part]):
            about += f"; not evaluated: {shortened([printable(name) for name in others])}"
        folder, read = self.root / part, {self.root / file.path for file in files}
        with file_errors():
            beside = sorted(path for path in folder.iterdir() if path.is_file() and is_visible(path.name))
        below = [path for label in subfolders(folder) for path in visible_files(folder / label)]
        if ignored := [path for path in (*beside, *below) if path not in read]:
            about += f"; not read: {shortened([printable(path.relative_to(self.root)) for path in ignored])}"
        return about

    def describe(self) -> str:
        """Return how parts are split off if that is not clear, and which classes a part lacks."""
        about = [about_roles(self._folders, test_fraction=self.test_fraction, split_seed=self.split_seed)]
        for part, folder in self._roles.items():
            if lacking := [printable(label) for label in self.classes if label not in self._parts[part]]:
                about.append(f"{printable(folder)} has no images of {shortened(lacking)}")
        return "; ".join(filter(None, about))

    def unread(self) -> str:
        folders = self._folders.values()
        return unread_files(
            self.root,
            parts=folders,
            classes={inside(folder, label) for folder in folders for label in self._labels(folder)},
            read={file.path for tree in self._parts.values() for images in tree.values() for file in images},
            train=self._folders["train"],
        )

    @cached_property
    def _folders(self) -> dict[Part, str]:
        """The folders of the parts, relative to root; "" if the class folders to train on lie in root itself.

        A class of railway pictures may be called train: a part contains folders.
        """
        with file_errors():
            if self.root.is_file():
                raise DataError(f"data.root={self.root} is a file; unpack it, or set data.root to a folder.")
            if not self.root.is_dir():
                raise DataError(f"folder {self.root} does not exist; set data.root to the folder of the images.")
        names = subfolders(self.root)
        parts = named_parts(
            (name for name in names if part_of(name) and is_tree(self.root / name)), within=f"{self.root}"
        )
        if "train" in parts or (parts and all(map(part_of, names))):
            return parts
        # Beside classes, a part contains nothing but folders: one with images may be a class, too.
        return {"train": "", **{part: name for part, name in parts.items() if not image_names(self.root / name)}}

    @property
    def _tested(self) -> str:
        """The folder of the images that a network trained on other data is tested on, relative to root."""
        return next(self._folders[part] for part in ("test", "val", "train") if part in self._folders)

    @cached_property
    def _roles(self) -> dict[Part, str]:
        """The folder of each part that a run trains, validates or tests on; a missing part is split off train."""
        folders = self._folders
        if "train" not in folders:
            part = next(iter(folders.values()))
            raise DataError(
                f"{self.root} contains {' and '.join(folders.values())} but no images to train on; add "
                f"train/<class>/*, or set data.root={self.root / part} to split its images into training and test."
            )
        self._refuse_single_class(folders["train"])
        val, test = roles(folders)
        found: dict[Part, Part | None] = {"train": "train", "val": val, "test": test}
        return {role: folders[part] for role, part in found.items() if part is not None}

    def _refuse_single_class(self, train: str) -> None:
        folder, classes = self.root / train, self._labels(train)
        if len(classes) > 1:
            return
        found, needed = "no class folder", "at least two are needed, as <class>/* or train/<class>/*"
        if classes:
            found = f"a single class folder, {printable(classes[0])}"
            if is_tree(folder / classes[0]):
                needed += f"; set data.root={folder / classes[0]} if its folders are the classes"
        if loose := len(image_names(folder)):
            found = f"{plural(loose, 'image')} and {found}"
        raise DataError(f"{folder} contains {found}; {needed}.")

    def _labels(self, folder: str) -> list[str]:
        """Return the names of the class folders in a folder."""
        return [name for name in subfolders(self.root / folder) if folder or name not in self._folders.values()]

    def _read(self, folders: Mapping[Part, str]) -> dict[Part, _Tree]:
        """Return the images in the folder of each part. Raises DataError for a fault."""
        trees = {
            part: {label: list_images(self.root, inside(folder, label)) for label in self._labels(folder)}
            for part, folder in folders.items()
        }
        counts = {part: {label: len(files) for label, files in tree.items()} for part, tree in trees.items()}
        refuse(self._faults(folders, counts))
        return trees

    def _faults(self, folders: Mapping[Part, str], counts: Mapping[Part, Mapping[str, int]]) -> Iterator[str]:
        """Yield what is wrong with the folders of the parts. counts: their images by class."""
        images = {inside(folders[part], label): count for part in counts for label, count in counts[part].items()}
        yield unprintable(self.root, list(images))
        yield empty_classes(self.root, [folder for folder, count in images.items() if not count])
        if "train" in folders:
            yield self._loose_parts()
            others = [
                self.root / folders[part] / label
                for part in counts
                for label in counts[part]
                if label not in counts["train"]
            ]
            yield unknown_classes(others, list(counts["train"]), train=self.root / folders["train"])
        elif not images:
            yield f"{self.root} contains no class folder; put the images of each class into one, as <class>/*"

    def _loose_parts(self) -> str:
        """Return a phrase about parts without class folders, whose images would silently be left out."""
        if not self._folders["train"]:
            return ""
        named = named_parts(subfolders(self.root), within=f"{self.root}")
        loose = [str(self.root / folder) for part, folder in named.items() if part not in self._folders]
        if not loose:
            return ""
        contain, it = ("contains", "it") if len(loose) == 1 else ("contain", "them")
        return (
            f"{shortened(loose)} {contain} no class folder; put the images of each class into one, or move {it} out of "
            "data.root"
        )

    def _too_few(self, counts: Mapping[Part, Mapping[str, int]]) -> str:
        """Return a phrase about classes with too few images to be split. counts: images by part and class."""
        names: dict[Part, str] = {"val": "validation", "test": "test"}
        return too_few_images(
            {label: count for label, count in counts["train"].items() if count},  # others are reported otherwise
            where=printable(self.root / self._roles["train"]),
            split_off=[name for part, name in names.items() if part not in counts],
        )

    @cached_property
    def _parts(self) -> dict[Part, _Tree]:
        trees = self._read(self._roles)
        if "test" in trees:
            return trees
        halves = {label: self._divide(files) for label, files in trees["train"].items()}
        return {
            "train": {label: train for label, (train, _) in halves.items()},
            "test": {label: test for label, (_, test) in halves.items()},
        }

    def _divide(self, files: list[ImageFile]) -> tuple[list[ImageFile], list[ImageFile]]:
        """Return training and test images of one class, at least one for training; a single image is for training."""
        count = test_count(len(files), self.test_fraction)
        shuffled = sorted(files, key=lambda file: rank(self.split_seed, file.path))
        return sorted(shuffled[count:]), sorted(shuffled[:count])
