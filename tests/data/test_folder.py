from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp.data.folder import Folder
from vitexp.data.source import BrokenImage, DataError


def make(root: Path, counts: dict[str, int], ending: str = "png") -> Path:
    """Write `counts` images into each folder; red is the number of the image."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (3, 2), (i, 0, 0)).save(root / folder / f"{i}.{ending}")
    return root


def test_train_and_test_folders(tmp_path: Path) -> None:
    make(tmp_path, {"train/class 10": 3, "train/class 2": 4, "train/Class 1": 2, "test/class 2": 2, "test/class 10": 1})
    source = Folder(root=str(tmp_path))
    assert source.classes == ["Class 1", "class 2", "class 10"]
    train, test = source.split("train"), source.split("test")
    assert train.labels.tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert test.labels.tolist() == [1, 1, 2]
    assert [int(train.read(i)[0, 0, 0]) for i in range(9)] == [0, 1, 0, 1, 2, 3, 0, 1, 2]
    assert len(set(train.groups)) == 9
    assert source.describe() == "3 classes, 9 training and 3 test images"
    assert train.fingerprint != test.fingerprint


def test_file_endings_in_any_case_and_ignored_files(tmp_path: Path) -> None:
    for ending in ("png", "jpg", "JPEG", "PpM", "bmp", "WEBP"):
        make(tmp_path, {"train/a": 1, "train/b": 1, "test/a": 1}, ending)
    (tmp_path / "train/a/.hidden.png").write_bytes(b"")
    (tmp_path / "train/a/notes.txt").write_bytes(b"")
    (tmp_path / "train/.cache").mkdir()
    split = Folder(root=str(tmp_path)).split("train")
    assert len(split) == 12
    assert all(split.read(i).shape == (2, 3, 3) for i in range(12))


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_splits_off_a_test_set(tmp_path: Path, prefix: str) -> None:
    make(tmp_path, {f"{prefix}a": 20, f"{prefix}b": 10, f"{prefix}c": 2, f"{prefix}d": 1})
    source = Folder(root=str(tmp_path), test_fraction=0.3)
    train, test = source.split("train"), source.split("test")
    assert np.bincount(train.labels).tolist() == [14, 7, 1, 1]
    assert np.bincount(test.labels, minlength=4).tolist() == [6, 3, 1, 0]
    seen = [*train.read.paths, *test.read.paths]  # type: ignore[attr-defined]
    assert len(set(seen)) == len(seen) == 33
    assert "30% of every class are test images (split_seed=0)" in source.describe()


def test_the_split_depends_only_on_its_seed(tmp_path: Path) -> None:
    make(tmp_path, {"a": 30, "b": 30})

    def tested(seed: int) -> set[str]:
        return set(Folder(root=str(tmp_path), split_seed=seed).split("test").read.paths)  # type: ignore[attr-defined]

    first = tested(0)
    assert first == tested(0) != tested(1)
    make(tmp_path, {"c": 30})
    assert first < tested(0)
    make(tmp_path, {"a": 32})
    assert len(first - tested(0)) <= 2
    prints = [Folder(root=str(tmp_path), split_seed=seed).split("train").fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make(tmp_path, {"train": 5, "test": 5, "bus": 5})
    assert Folder(root=str(tmp_path)).classes == ["bus", "test", "train"]


def test_the_description_says_that_val_is_ignored(tmp_path: Path) -> None:
    make(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2})
    source = Folder(root=str(tmp_path))
    assert source.describe().endswith("; folder val is ignored")
    assert len(source.split("train")) + len(source.split("test")) == 10


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({}, "contains no class folder; at least two"),
        ({"only": 3}, "contains a single class folder, only; at least two"),
        ({"a": 3, "b": 0}, "class folder .*b contains no png"),
        ({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 0}, "class folder .*test/b contains no png"),
        ({"train/a": 3, "train/b": 3, "test/a": 1, "test/c": 1}, "test/c is a class that is missing from .*train"),
        ({"train/a": 3, "train/b": 3, "test": 2}, "test contains no class folder"),
    ],
)
def test_every_mistake_gives_a_one_line_error(tmp_path: Path, counts: dict[str, int], sentence: str) -> None:
    make(tmp_path, counts)
    with pytest.raises(DataError, match=sentence) as caught:
        Folder(root=str(tmp_path)).split("test")
    assert "\n" not in str(caught.value)


def test_a_class_folder_that_is_a_dangling_link_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "c").symlink_to("gone")
    with pytest.raises(DataError, match=r"/c is a dangling link; fix or remove it"):
        _ = Folder(root=str(tmp_path)).classes


@pytest.mark.parametrize("name", ["two\nlines", "no UTF-8 \udce9"])
def test_a_class_name_that_is_not_printable(tmp_path: Path, name: str) -> None:
    make(tmp_path, {"a": 3, name: 3})
    with pytest.raises(DataError, match=r"the name of the class folder '.*' is not printable UTF-8") as caught:
        _ = Folder(root=str(tmp_path)).classes
    assert str(caught.value).isprintable()


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder .*nowhere does not exist; set data\.root"):
        _ = Folder(root=str(tmp_path / "nowhere")).classes


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 20])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(DataError, match=r"data\.test_fraction=.* must be between 0 and 1"):
        Folder(root=".", test_fraction=fraction)


def test_a_broken_file_is_detected_on_reading(tmp_path: Path) -> None:
    make(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1})
    (tmp_path / "train/b/0.png").write_bytes(b"")
    split = pickle.loads(pickle.dumps(Folder(root=str(tmp_path)).split("train")))
    assert split.read(1).shape == (2, 3, 3)
    with pytest.raises(BrokenImage, match=r"train/b/0\.png"):
        split.read(2)


def test_the_fingerprint_differs_between_copies(tmp_path: Path) -> None:
    for root in (tmp_path / "one", tmp_path / "two"):
        make(root, {"train/a": 2, "train/b": 2, "test/a": 1})
        for file in root.rglob("*.png"):
            os.utime(file, ns=(0, 0))
    one, two = (Folder(root=str(tmp_path / name)).split("train").fingerprint for name in ("one", "two"))
    assert one != two
    os.utime(tmp_path / "one/train/a/0.png", ns=(1, 1))
    assert Folder(root=str(tmp_path / "one")).split("train").fingerprint != one
