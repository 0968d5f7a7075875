"""The images of a folder without labels. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from vitexp.data.imagefile import ENDINGS
from vitexp.data.listing import visible_files
from vitexp.data.source import printable
from vitexp.errors import UserError
from vitexp.text import shortened


def images_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files below a folder and the other files, both sorted and without hidden ones.

    folder: or a single image file. Raises UserError if there are no images.
    """
    if folder.is_file() and folder.suffix.lower() in ENDINGS:
        return [folder], []
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder or an image file ({', '.join(ENDINGS)}).")
    files = visible_files(folder)
    is_image = {path: path.suffix.lower() in ENDINGS and not path.is_dir() for path in files}
    images, others = ([path for path in files if is_image[path] == wanted] for wanted in (True, False))
    if not images:
        beside = f", only {shortened([printable(path.relative_to(folder)) for path in others])}" if others else ""
        raise UserError(f"{folder} contains no images ({', '.join(ENDINGS)}){beside}.")
    return images, others
