"""Read-only data, and data that cannot be read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data import test_cifar, test_folder, test_gtsrb
from tests.data.noise import resize
from tests.data.test_cifar import Kind, official
from tests.data.users import without_privileges
from vitexp.data.cifar import CIFAR
from vitexp.data.folder import Folder
from vitexp.data.gtsrb import GTSRB
from vitexp.data.prepare import prepare
from vitexp.data.source import DataError, Source

__all__ = ["official"]  # a fixture


@pytest.fixture(params=["folder", "gtsrb", "cifar10"])
def data(request: pytest.FixtureRequest, public: Path, official: dict[Kind, dict[str, bytes]]) -> tuple[Source, Path]:
    """Return a source and one of its files."""
    root = public / "data"
    if request.param == "folder":
        test_folder.make(root, {"train/a": 3, "train/b": 3, "test/a": 1})
        return Folder(root=str(root)), root / "train" / "b" / "1.png"
    if request.param == "gtsrb":
        files = {**test_gtsrb.FULL, **test_gtsrb.TEST, "GT-final_test.csv": test_gtsrb.table()}
        test_gtsrb.write(root, files)
        return GTSRB(root=str(root)), root / "GTSRB/Final_Training/Images/00007/00001_00000.ppm"
    test_cifar.write(root, official["cifar10"])
    return CIFAR(root=str(root), kind="cifar10"), root / "cifar-10-batches-py" / "data_batch_3"


def _prepared(source: Source, cache: Path, **changes: Any) -> str:
    how = {"name": "x", "image_size": 8, "num_workers": 0, "on_broken": "skip", **changes}
    try:
        made = [prepare(source.split(part), resize(), cache_dir=cache, **how) for part in ("train", "test")]  # type: ignore[arg-type]
    except DataError as error:
        return str(error)
    return " ".join(str(part.stored.sum(dtype=np.int64)) for part in made)


def test_read_only_data(data: tuple[Source, Path], public: Path, tmp_path: Path) -> None:
    source, _ = data
    right = _prepared(source, tmp_path / "mine")
    assert re.fullmatch(r"\d+ \d+", right)
    (public / "cache").mkdir()
    (public / "cache").chmod(0o777)
    for path in (public, *(public / "data").rglob("*"), public / "data"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert without_privileges(lambda: _prepared(source, public / "cache")) == right


@pytest.mark.parametrize("what", ["root", "folder", "file"])
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_unreadable_data(data: tuple[Source, Path], public: Path, what: str, mode: int) -> None:
    source, file = data
    _prepared(source, public / "first")  # import now, because another user may not be able to read the modules
    path: Path = {"root": public / "data", "folder": file.parent, "file": file}[what]
    if what == "file":
        mode = 0o000
    (public / "cache").mkdir()
    (public / "cache").chmod(0o777)
    path.chmod(mode)
    sentence = without_privileges(lambda: _prepared(source, public / "cache"))
    path.chmod(0o755)
    assert re.fullmatch(rf"cannot read {public}/[^\n]*: Permission denied\.", sentence)
