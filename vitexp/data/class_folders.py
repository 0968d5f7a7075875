"""List class folders, and say what is wrong with them and which files are not read."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence, Set
from pathlib import Path

from vitexp.data.imagefile import ENDINGS, HAS_HEIC, HEIC_ENDINGS, INSTALL_HEIC
from vitexp.data.listing import is_folder, is_visible, walk_visible
from vitexp.data.parts import natural
from vitexp.data.source import DataError, file_errors, printable
from vitexp.text import plural, shortened

_MOST = 5  # endings that the sentence about unread files lists


def inside(folder: str, name: str) -> str:
    """Return the path of `name` in a folder that is relative to root; "" is root."""
    return f"{folder}/{name}" if folder else name


def subfolders(folder: Path) -> list[str]:
    """Return the subfolders in natural order. Raises DataError for a dangling link, which could hide a class."""
    names, lost = [], []
    with file_errors(), os.scandir(folder) as entries:
        for entry in entries:
            if not is_visible(entry.name):
                continue
            if is_folder(entry):
                names.append(entry.name)
            elif entry.is_symlink() and not entry.name.lower().endswith(ENDINGS) and not os.path.exists(entry):
                lost.append(printable(folder / entry.name))
    if lost:
        fault = "is a dangling link; fix or remove it" if len(lost) == 1 else "are dangling links; fix or remove them"
        raise DataError(f"{shortened(sorted(lost))} {fault}.")
    return sorted(names, key=natural)


def is_tree(folder: Path) -> bool:
    """Return whether a folder contains folders. Raises DataError as `subfolders` does."""
    return bool(subfolders(folder))


def unprintable(root: Path, folders: Sequence[str]) -> str:
    """Return a phrase about class folders whose names are not printable; "" if there are none."""
    wrong = [printable(root / folder) for folder in folders if not folder.isprintable()]
    if len(wrong) < 2:
        return f"the name of the class folder {wrong[0]} is not printable UTF-8; rename it" if wrong else ""
    return f"the names of {len(wrong):,} class folders are not printable UTF-8; rename {shortened(wrong)}"


def empty_classes(root: Path, folders: Sequence[str]) -> str:
    """Return a phrase about class folders without an image; "" if there are none. folders: relative to root."""
    if not folders:
        return ""
    contents = [_contents(root / folder) for folder in folders]
    found = [f"only {shortened(sorted(kinds), most=3)}" if kinds else "empty" for kinds in contents]
    is_one, are_nested = len(folders) == 1, all(kinds == {"folders"} for kinds in contents)
    if is_one:
        which = f"the class folder {printable(root / folders[0])} contains no image that can be read ({found[0]})"
        advice = "set data.root to it if its folders are the classes" if are_nested else "add images or remove it"
    else:
        named = shortened([f"{printable(folder)} ({what})" for folder, what in zip(folders, found, strict=True)])
        which = f"{len(folders):,} class folders in {root} contain no image that can be read, {named}"
        advice = "move the images out of their subfolders" if are_nested else "add images or remove these folders"
    if not HAS_HEIC and (heic := [not kinds.isdisjoint(HEIC_ENDINGS) for kinds in contents]) and any(heic):
        advice = f"{'' if all(heic) else f'{advice}; '}{INSTALL_HEIC} makes .heic readable"
    return f"{which}; {advice}"


def _contents(folder: Path) -> set[str]:
    """Return what a folder contains: endings of files, and "folders"."""
    with file_errors(), os.scandir(folder) as entries:
        return {"folders" if is_folder(entry) else _ending(entry.name) for entry in entries if is_visible(entry.name)}


def _ending(name: str) -> str:
    """Return the ending of a file name or path, such as ".txt", as it is printed."""
    ending = os.path.splitext(name)[1].lower()
    return printable(ending) if ending else "without an ending"


def unread_files(root: Path, *, parts: Collection[str], classes: Set[str], read: Set[str], train: str) -> str:
    """Return a sentence about how many files below root are not read, and why; "" if there are none.

    parts: the folders that contain class folders. classes: the class folders. read: the files that are read. train: the
    folder of the training part. All are relative to root, where "" is root itself; parts and classes may be links.
    """
    links = [folder for folder in (*parts, *classes) if (root / folder).is_symlink()]
    start = len(os.path.join(root, ""))
    files = {path[start:] for folder in ("", *links) for path in walk_visible(root / folder)}
    endings, places = Counter[str](), defaultdict[tuple[str, str], Counter[str]](Counter)
    for file in sorted(files - read - classes - set(parts)):
        ending, folder = os.path.splitext(file)[1].lower(), os.path.dirname(file)
        top = folder.partition("/")[0]
        if os.path.isdir(root / file):
            places["link", "to a folder"][file] += 1
        elif ending not in ENDINGS:
            endings[_ending(file)] += 1
        elif not classes.isdisjoint((folder, *map(str, Path(folder).parents))):
            places["image", "in subfolders of classes"][folder] += 1
        elif train and top and top not in parts:
            places["image", f"in folders that are ignored because there is a folder {train}"][top] += 1
        else:
            places["image", "outside class folders"][folder or str(root)] += 1
    if not (count := endings.total() + sum(each.total() for each in places.values())):
        return ""
    ranked = sorted(endings.items(), key=lambda each: (-each[1], each[0]))
    reasons = [f"{ending} {number:,}" for ending, number in ranked[:_MOST]]
    if others := sum(number for _, number in ranked[_MOST:]):
        reasons.append(f"others {others:,}")
    for (noun, place), folders in sorted(places.items()):
        reasons.append(f"{plural(folders.total(), noun)} {place} ({shortened(list(map(printable, folders)), most=3)})")
    advice = f"; {INSTALL_HEIC} makes .heic readable" if not HAS_HEIC and any(map(endings.get, HEIC_ENDINGS)) else ""
    return f"{plural(count, 'file')} {'was' if count == 1 else 'were'} not read: {', '.join(reasons)}{advice}"
