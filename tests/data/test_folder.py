from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp.data import folder
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.folder import Folder
from vitexp.data.imagefile import list_images
from vitexp.data.source import BrokenImage, DataError


def make(root: Path, counts: dict[str, int], ending: str = "png") -> Path:
    """Write `counts` images into each folder; red is the number of the image."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (3, 2), (i, 0, 0)).save(root / name / f"{i}.{ending}")
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
    assert source.describe() == "test has no images of Class 1"
    assert source.validation() is None and source.unread() == ""
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


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "validation", "TEST"), ("TRAIN", "Valid", "testing")]
)
def test_parts_in_any_spelling(tmp_path: Path, names: tuple[str, str, str]) -> None:
    train, val, test = names
    make(tmp_path, {f"{train}/a": 5, f"{train}/b": 5, f"{val}/a": 2, f"{val}/b": 1, f"{test}/a": 1, f"{test}/b": 3})
    source = Folder(root=str(tmp_path))
    validation = source.validation()
    assert validation is not None and validation.read.paths[0] == f"{val}/a/0.png"  # type: ignore[attr-defined]
    assert [len(each) for each in (source.split("train"), validation, source.split("test"))] == [10, 3, 4]
    assert source.describe() == ""
    assert source.test_part().split.read.paths[0] == f"{test}/a/0.png"  # type: ignore[attr-defined]


def test_val_without_a_test_folder_is_the_test_set(tmp_path: Path) -> None:
    make(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2})
    source = Folder(root=str(tmp_path))
    assert source.validation() is None
    assert [file.split("/")[0] for file in source.split("test").read.paths] == ["val"] * 4  # type: ignore[attr-defined]
    assert source.describe() == (
        "val is the test set because there is no test part, and validation images are taken from the training part"
    )


def test_the_validation_folder_chooses_and_nothing_is_split_from_train(tmp_path: Path) -> None:
    make(tmp_path, {f"{part}/{label}": 4 for part in ("train", "val", "test") for label in "ab"})
    data = ImageDataModule(source=Folder(root=str(tmp_path)), image_size=4, batch_size=4, cache_dir=tmp_path / "cache")
    data.setup()
    assert [{each.split("/")[0] for each in np.array(part.paths)} for part in (data.train, data.val, data.test)] == [
        {"train"},
        {"val"},
        {"test"},
    ]
    assert len(data.train) == len(data.val) == 8
    before = data.fingerprint
    make(tmp_path, {"val/a": 5})  # resuming would choose with other images
    data = ImageDataModule(source=Folder(root=str(tmp_path)), image_size=4, batch_size=4, cache_dir=tmp_path / "cache")
    data.setup()
    assert data.fingerprint != before


def test_what_is_not_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "ENDINGS", (".png", ".jpg"))
    monkeypatch.setattr(list_images, "__defaults__", ((".png", ".jpg"),))
    monkeypatch.setattr(folder, "HAS_HEIC", False)
    make(
        tmp_path,
        {"train/a": 4, "train/b": 4, "test/a": 1, "test/b": 1, "more": 3, "train/b/scans/1": 2, "__MACOSX/train": 1},
    )
    elsewhere = make(tmp_path.parent / f"{tmp_path.name}-elsewhere", {"c": 2, "c/scans": 1}) / "c"
    (tmp_path / "train" / "c").symlink_to(elsewhere)
    (tmp_path / "train" / "a" / "link").symlink_to(elsewhere)
    names = ("train/a/1.HEIC", "train/b/2.heic", "test/a/3.svg", "train/4.png", "README")
    ignored = (".DS_Store", "train/a/._1.png", "train/Thumbs.db", "train/b/desktop.ini", "train/a/.hidden/1.png")
    for name in (*names, *ignored):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = Folder(root=str(tmp_path))
    assert len(source.split("train")) == 10
    assert source.unread() == (
        "12 files were not read (.heic 2, .svg 1, without an ending 1, images in subfolders of classes 3, images "
        "outside class folders 4, links to folders 1); pip install pillow-heif makes .heic readable"
    )


def test_the_macos_folder_of_a_zip_archive_is_not_a_class(tmp_path: Path) -> None:
    make(tmp_path, {"a": 3, "b": 3, "__MACOSX/a": 0})
    (tmp_path / "__MACOSX" / "a" / "._0.png").touch()
    source = Folder(root=str(tmp_path))
    assert source.classes == ["a", "b"] and source.unread() == ""


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({}, "contains no class folder; at least two"),
        ({"": 4}, "contains 4 images and no class folder; at least two"),
        ({"only": 3}, "contains a single class folder, only; at least two"),
        ({"a": 3, "b": 0}, "class folder .*b contains no image that can be read"),
        ({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 0}, "class folder .*test/b contains no image"),
        ({"train/a": 3, "train/b": 3, "test/a": 1, "test/c": 1}, "test/c is a class that is missing from .*train"),
        (
            {"Train/Stop": 3, "Train/b": 3, "Val/stop": 1, "Val/c": 1},
            "Val/c and .*Val/stop are classes that are missing from .*Train, which has b and Stop; give the same class",
        ),
        ({"train/a": 3, "train/b": 3, "test/a": 1, "val/c": 1}, "val/c is a class that is missing from .*train"),
        ({"train/a": 3, "train/b": 3, "test": 2}, "test contains no class folder; put the images of each class"),
        ({"train/a": 3, "train/b": 3, "Valid": 2}, "Valid contains no class folder; put the images of each class"),
        (
            {"test/a": 3, "test/b": 3},
            "contains test but no images to train on; add train/<class>/.*data.root=.*/test to",
        ),
        ({"test/a": 3, "test/b": 3, "val/a": 3}, "contains test and val but no images to train on"),
        (
            {"train/a": 3, "train/b": 3, "test/a": 1, "Test/a": 1},
            "contains both .*est and .*est; merge them, or rename",
        ),
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
