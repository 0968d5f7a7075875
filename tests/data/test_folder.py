from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp.data import class_folders, listing
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.folder import Folder
from vitexp.data.listing import image_names, list_images
from vitexp.data.source import BrokenImage, DataError


def make(root: Path, counts: dict[str, int], ending: str = "png") -> Path:
    """Write `counts` images into each folder; red is the number of the image."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (3, 2), (i, 0, 0)).save(root / name / f"{i}.{ending}")
    return root


def without_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitate a machine without pillow-heif."""
    monkeypatch.setattr(class_folders, "ENDINGS", (".png", ".jpg"))
    monkeypatch.setattr(class_folders, "HAS_HEIC", False)
    for function in (list_images, image_names):
        monkeypatch.setattr(function, "__defaults__", ((".png", ".jpg"),))


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
    without_heic(monkeypatch)
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
        "12 files were not read: .heic 2, .svg 1, without an ending 1, 3 images in folders that are ignored because "
        "there is a folder train (more), 3 images in subfolders of classes (train/b/scans/1 and train/c/scans), 1 "
        "image outside class folders (train), 1 link to a folder (train/a/link); pip install pillow-heif makes .heic "
        "readable"
    )


def test_files_in_root_are_counted(tmp_path: Path) -> None:
    make(tmp_path, {"": 2, "cats": 3, "dogs": 3, "cats/indoor": 2})
    assert Folder(root=str(tmp_path)).unread() == (
        f"4 files were not read: 2 images in subfolders of classes (cats/indoor), 2 images outside class folders "
        f"({tmp_path})"
    )


def test_classes_beside_other_parts_are_trained_on(tmp_path: Path) -> None:
    make(tmp_path, {"a": 3, "b": 4, "test/a": 2, "test/b": 1})
    source = Folder(root=str(tmp_path))
    source.refuse_unusable()
    assert source.describe() == "" and source.unread() == ""
    assert source.split("train").read.paths[0] == "a/0.png"  # type: ignore[attr-defined]
    assert source.test_part().split.read.paths[0] == "test/a/0.png"  # type: ignore[attr-defined]
    make(tmp_path, {"Val/b": 1, "a/more": 2})
    source = Folder(root=str(tmp_path))
    assert source.describe() == "Val has no images of a"
    assert source.unread() == "2 files were not read: 2 images in subfolders of classes (a/more)"


def test_a_class_called_test_with_subfolders(tmp_path: Path) -> None:
    make(tmp_path, {"a": 3, "b": 3, "test": 3, "test/a": 1})  # it has images of its own
    source = Folder(root=str(tmp_path))
    assert source.classes == ["a", "b", "test"]
    assert source.unread() == "1 file was not read: 1 image in subfolders of classes (test/a)"


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
        ({"only": 3}, r"contains a single class folder, only; at least two are needed, as <class>/\* or train/.*\*\.$"),
        ({"one/a": 3, "one/b": 3}, "a single class folder, one; at least two .*; set data.root=.*/one if its folders"),
        ({"train/one": 3}, "/train contains a single class folder, one; at least two"),
        ({"a": 3, "b": 0}, r"class folder .*/b contains no image that can be read \(empty\); add images or remove it"),
        ({"a": 3, "b/c": 3}, r"folder .*/b contains .* \(only folders\); set data.root to it if its folders are the"),
        ({"a/x": 3, "b/y": 3}, r"2 class .* a \(only folders\) and b \(only folders\); move the images out of their"),
        ({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 0}, "class folder .*test/b contains no image"),
        ({"train/a": 3, "train/b": 3, "test/a": 1, "test/c": 1}, "test/c is a class that is missing from .*train"),
        (
            {"Train/Stop": 3, "Train/b": 3, "Val/stop": 1, "Val/c": 1},
            "Val/c and .*Val/stop are classes that are missing from .*Train, which has b and Stop; give the same class",
        ),
        ({"train/a": 3, "train/b": 3, "test/a": 1, "val/c": 1}, "val/c is a class that is missing from .*train"),
        ({"a": 3, "b": 3, "test/a": 1, "test/c": 1}, "test/c is a class that is missing from .*, which has a and b;"),
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
    with pytest.raises(DataError) as early:
        Folder(root=str(tmp_path)).refuse_unusable()
    assert str(early.value) == str(caught.value)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("Cat", "cat", "dog"), "Cat / cat"),
        (("a cat", "A  Cat", "dog", "DOG"), r"A  Cat / a cat and DOG / dog"),
        (("caf\u00e9", "cafe\u0301", "x"), ".* / .*"),
        (("A", "a", "cat", "cats"), None),  # letters
    ],
)
@pytest.mark.parametrize("train", ["", "train/"])
def test_classes_that_differ_only_in_letter_case(
    tmp_path: Path, names: tuple[str, ...], named: str | None, train: str
) -> None:
    for name in names:
        make(tmp_path, {f"{train}{name}": 3})
    if len(list((tmp_path / train).iterdir())) < len(names):
        pytest.skip("this file system ignores letter case")
    source = Folder(root=str(tmp_path))
    if named is None:
        source.refuse_unusable()
        return
    with pytest.raises(DataError, match=f"whose names differ only in letter case or spaces, {named}; merge or rename"):
        source.refuse_unusable()
    source.refuse_unusable(for_training=False)  # a network trained by an earlier version may have them
    assert source.classes


def test_all_faults_are_reported_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_heic(monkeypatch)
    make(tmp_path, {"train/a": 3, "train/b": 1, "train/c": 0, "train/d": 1, "train/e": 0, "val": 2, "test/x": 1})
    for name in ("e/1.HEIC", "e/2.svg", "c/.hidden"):
        (tmp_path / "train" / name).touch()
    with pytest.raises(DataError) as caught:
        Folder(root=str(tmp_path)).refuse_unusable()
    assert str(caught.value).replace(str(tmp_path), "R") == (
        "2 class folders in R contain no image that can be read, train/c (empty) and train/e (only .heic and .svg); "
        "add images or remove these folders; pip install pillow-heif makes .heic readable; also, R/val contains no "
        "class folder; put the images of each class into one, or move it out of data.root; also, R/test/x is a class "
        "that is missing from R/train, which has a, b, c, d and e; give the same class the same name in both, or add "
        "training images; also, 2 classes have too few images in R/train, b (1) and d (1); each needs 2, one each for "
        "training and validation: add some or remove the classes."
    )


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"a": 3, "b": 2}, "class b has 2 images in R, but needs 3, one each for training, validation and test; add"),
        (
            {"train/a": 3, "train/b": 2},
            "class b has 2 images in R/train, but needs 3, one each for training, validation",
        ),
        (
            {"train/a": 2, "train/b": 1, "test/a": 1},
            "b has 1 image in R/train, but needs 2, one each for training and v",
        ),
        (
            {"train/a": 2, "train/b": 1, "val/a": 1},
            "class b has 1 image in R/train, but needs 2, one each for training",
        ),
        ({"a": 3, "b": 3}, ""),
        ({"train/a": 2, "train/b": 2, "test/a": 1}, ""),
        ({"train/a": 1, "train/b": 1, "test/a": 1, "val/b": 1}, ""),
    ],
)
def test_a_class_must_have_an_image_for_every_part(tmp_path: Path, counts: dict[str, int], sentence: str) -> None:
    """Exactly what the data module needs."""
    source = Folder(root=str(make(tmp_path / "R", counts)))
    data = ImageDataModule(source=source, image_size=4, batch_size=1, cache_dir=tmp_path / "cache")
    if not sentence:
        source.refuse_unusable()
        data.setup()
        return
    with pytest.raises(DataError) as early:
        source.refuse_unusable()
    assert sentence in str(early.value).replace(str(tmp_path / "R"), "R")
    source.refuse_unusable(for_training=False)
    with pytest.raises(
        DataError, match="class b has 1 image in the training part of folder, but needs 2, one each for"
    ):
        data.setup()


def test_testing_needs_no_training_images(tmp_path: Path) -> None:
    source = Folder(root=str(make(tmp_path, {"train/a": 0, "test/a": 1, "test/b": 1})))
    source.refuse_unusable(for_training=False)
    source = Folder(root=str(make(tmp_path, {"test/c": 0, "test/d": 0})))
    with pytest.raises(DataError, match=r"2 class folders in .*, test/c \(empty\) and test/d \(empty\); add images"):
        source.refuse_unusable(for_training=False)
    with pytest.raises(DataError, match="contains no class folder; put the images of each class into one, as"):
        Folder(root=str(make(tmp_path / "flat", {"": 2}))).refuse_unusable(for_training=False)


def test_usable_folders_are_checked_by_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes and times of 100,000 files would take half a second."""
    make(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    monkeypatch.setattr(listing, "_stat", lambda entry: pytest.fail(f"asked for the size of {entry.name}"))
    Folder(root=str(tmp_path)).refuse_unusable()


def test_a_class_folder_that_is_a_dangling_link_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "c").symlink_to("gone")
    with pytest.raises(DataError, match=r"/c is a dangling link; fix or remove it"):
        _ = Folder(root=str(tmp_path)).classes
    (tmp_path / "d").symlink_to("d")
    with pytest.raises(DataError, match=r"/c and .*/d are dangling links; fix or remove them"):
        Folder(root=str(tmp_path)).refuse_unusable()


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
