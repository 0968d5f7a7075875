"""The data module with its defaults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import composed
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.folder import Folder
from vitexp.data.loading import BatchSampler
from vitexp.data.source import BrokenImages, DataError
from vitexp.runs.inputs import check_inputs


def photos(root: Path) -> Folder:
    """Write 40 pictures of cats and 10 of dogs, 9 x 7 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 7, 9, 3), dtype=np.uint8)
    for index, picture in enumerate(pixels):
        folder = root / ("cats" if index < 40 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{index}.png")
    return Folder(root=str(root))


def test_only_the_source_is_required(tmp_path: Path) -> None:
    data = ImageDataModule(source=photos(tmp_path / "photos"), cache_dir=tmp_path / "cache", batch_size=16)
    data.setup()
    images, labels = next(iter(data.train_dataloader()))
    assert data.name == "folder"
    assert (images.shape, labels.shape) == ((16, 32, 32, 3), (16,))
    assert data.class_counts.tolist() == [29, 7]  # of 32 and 8 training images without the test images
    assert data.imbalance == 29 / 7


def test_balanced_sampler_reaches_the_training_batches_only(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    data = ImageDataModule(source=source, cache_dir=tmp_path, batch_size=32, sampler="balanced")
    data.setup()
    [(_, labels)] = data.train_dataloader()
    sampler = BatchSampler(length=36, batch_size=32, balance=data.train.labels, drop_last=True)
    assert labels.tolist() == data.train.labels[next(iter(sampler)).indices].tolist()
    assert sum(len(labels) for _, labels in data.val_dataloader()) == len(data.val)


def test_unreadable_images_of_all_parts_are_counted_together(tmp_path: Path) -> None:
    for part in ("train", "test", "val"):
        for label in "ab":
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (4, 4)).save(folder / f"{number}.png")
        (tmp_path / part / "a" / "broken.png").write_bytes(b"broken")
    data = ImageDataModule(source=Folder(root=str(tmp_path)), cache_dir=tmp_path / "cache")
    with pytest.raises(BrokenImages) as caught:
        data.setup()
    assert str(caught.value).startswith("3 of 21 images cannot be decoded; fix or remove them, or set data.on_broken")
    names = ", ".join(f"{tmp_path / part}/a/broken.png" for part in ("train", "test", "val"))
    assert f": {names}: not a PNG" in str(caught.value) and str(caught.value).count("not a PNG") == 1


def test_little_shared_memory_is_refused_before_workers_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker gives a container 64 MB."""
    from types import SimpleNamespace

    from tests.training.ranked import data
    from vitexp.data.source import DataError

    monkeypatch.setattr("vitexp.data.datamodule.shutil.disk_usage", lambda path: SimpleNamespace(free=64e6))
    module = data(4)
    module.image_size = 224
    module._refuse_little_shared_memory(2, batch_size=64)
    with pytest.raises(DataError, match=r"needs 96 MB of shared memory .* has only 64 MB free; .*shm-size"):
        module._refuse_little_shared_memory(2, batch_size=128)


def test_the_folds_of_one_seed_are_the_training_images(tmp_path: Path) -> None:
    source, rows = photos(tmp_path / "photos"), []
    for fold in range(4):
        data = ImageDataModule(source=source, cache_dir=tmp_path / "cache", batch_size=8, folds=4, fold=fold)
        data.setup()
        assert not set(data.train.rows) & set(data.val.rows)
        assert np.bincount(data.val.labels).tolist() == [8, 2]
        rows += data.val.rows.tolist()
    assert sorted(rows) == list(range(40))


def test_folds_are_refused_where_the_data_set_chooses_the_validation_images(tmp_path: Path) -> None:
    for part in ("train", "test", "val"):
        for label in "ab":
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (4, 4)).save(tmp_path / part / label / f"{number}.png")
    data = ImageDataModule(source=Folder(root=str(tmp_path)), cache_dir=tmp_path / "cache", folds=2)
    with pytest.raises(DataError, match=r"data.folds=2 .* has validation images of its own"):
        data.setup()
    with pytest.raises(DataError, match="has validation images of its own"):  # before torch is imported
        check_inputs(composed("data=folder", f"data.root={tmp_path}", "data.folds=2"))
    (tmp_path / "val").rename(tmp_path.parent / f"{tmp_path.name}-val")
    check_inputs(composed("data=folder", f"data.root={tmp_path}", "data.folds=2"))
    with pytest.raises(DataError, match=r"data.folds=3 needs 3 training images of every class, but class a has 2"):
        check_inputs(composed("data=folder", f"data.root={tmp_path}", "data.folds=3"))
