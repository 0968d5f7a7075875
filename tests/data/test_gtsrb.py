from __future__ import annotations

import dataclasses
import io
import os
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vitexp.data import gtsrb
from vitexp.data.gtsrb import ARCHIVES, GTSRB
from vitexp.data.source import DataError

if TYPE_CHECKING:
    from tests.data.conftest import FileServer

COLUMNS = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
TEST_LABELS = [16, 1, 42]


def ppm(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (red, 10, 20)).save(buffer, "PPM")
    return buffer.getvalue()


def training(folder: str, tracks: int = 2) -> dict[str, bytes]:
    """Return `tracks` tracks of two frames for every class; red is the class."""
    names = [(label, track, frame) for label in range(43) for track in range(tracks) for frame in range(2)]
    files = {f"{folder}/{label:05d}/{track:05d}_{frame:05d}.ppm": ppm(label) for label, track, frame in names}
    return {**files, f"{folder}/00000/GT-00000.csv": b"Filename;ClassId\n"}


def images_of_test(folder: str) -> dict[str, bytes]:
    return {f"{folder}/{i:05d}.ppm": ppm(label) for i, label in enumerate(TEST_LABELS)}


def table(column: str = "ClassId") -> bytes:
    rows = [f"{i:05d}.ppm;4;3;0;0;3;2;{label}" for i, label in enumerate(TEST_LABELS)]
    return "\r\n".join([COLUMNS.replace("ClassId", column), *rows, ""]).encode()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


FULL = training("GTSRB/Final_Training/Images")
ONLINE = training("GTSRB/Training", tracks=1)
TEST = images_of_test("GTSRB/Final_Test/Images")


@pytest.fixture
def archives(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A server of small archives with the names and layouts of the official ones."""
    contents = {
        "full": FULL,
        "online": ONLINE,
        "test": {**TEST, "GTSRB/Final_Test/Images/GT-final_test.test.csv": b"Filename;Width\n"},
        "labels": {"GT-final_test.csv": table()},
    }
    for key, files in contents.items():
        md5 = server.publish_zip(ARCHIVES[key].file, files)
        monkeypatch.setitem(gtsrb.ARCHIVES, key, dataclasses.replace(ARCHIVES[key], md5=md5))
    return server


@pytest.mark.parametrize("inside", [".", "gtsrb", "GTSRB"])
@pytest.mark.parametrize("labels_in", [".", "GTSRB", "GTSRB/Final_Test", "GTSRB/Final_Test/Images"])
def test_reads_the_official_layout(tmp_path: Path, inside: str, labels_in: str) -> None:
    base = write(tmp_path / inside, {**FULL, **TEST, f"{labels_in}/GT-final_test.csv": table()})
    for root in {tmp_path, base, base / "GTSRB"}:
        source = GTSRB(root=str(root))
        train, test = source.split("train"), source.split("test")
        assert len(source.classes) == 43
        assert np.bincount(train.labels).tolist() == [4] * 43
        assert all(train.read(i)[0, 0, 0] == label for i, label in enumerate(train.labels))
        assert train.read(7).shape == (3, 4, 3)
        assert test.labels.tolist() == TEST_LABELS
        assert [test.read(i)[0, 0].tolist() for i in range(3)] == [[label, 10, 20] for label in TEST_LABELS]
        assert test.groups.tolist() == [0, 1, 2]
        assert train.labels.dtype == train.groups.dtype == test.labels.dtype == np.int64


def test_a_group_is_one_track_of_one_class(tmp_path: Path) -> None:
    train = GTSRB(root=str(write(tmp_path, FULL))).split("train")
    groups, sizes = np.unique(train.groups, return_counts=True)
    assert len(groups) == 43 * 2 and set(sizes) == {2}
    assert all(len(set(train.labels[train.groups == group])) == 1 for group in groups)


def test_chooses_the_training_set(tmp_path: Path) -> None:
    root = str(write(tmp_path, ONLINE))
    assert GTSRB(root=root).describe() == "online training set, 86 images instead of 26,640"
    with pytest.raises(DataError, match=r"full set\) are missing.*data.download=true, or put"):
        GTSRB(root=root, train_set="full").split("train")
    write(tmp_path, FULL)
    assert GTSRB(root=root).describe() == "full training set, 172 images instead of 39,209"
    assert len(GTSRB(root=root, train_set="online").split("train")) == 86
    with pytest.raises(DataError, match=r"auto, full or online, not 'all'"):
        GTSRB(root=root, train_set="all")  # type: ignore[arg-type]


def test_the_description_of_a_complete_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gtsrb._SIZES, "full", 172)
    assert GTSRB(root=str(write(tmp_path, FULL))).describe() == "full training set, 172 images"


def test_the_error_names_the_missing_class(tmp_path: Path) -> None:
    folder = write(tmp_path, FULL) / "GTSRB/Final_Training/Images/00017"
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"incomplete: .*00017 is missing or has no images"):
        GTSRB(root=str(tmp_path)).split("train")
    folder.rmdir()
    with pytest.raises(DataError, match=r"incomplete: .*00017 is missing or has no images"):
        GTSRB(root=str(tmp_path)).split("train")


def test_obvious_faults_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"\(full set\), test images and labels .* are missing: .*; .* put .*_Images.zip, "
    ):
        GTSRB(root=str(tmp_path)).refuse_unusable()
    with pytest.raises(DataError, match=r"the GTSRB test images and labels of the test images are missing"):
        GTSRB(root=str(tmp_path)).refuse_unusable(for_training=False)
    GTSRB(root=str(tmp_path), download=True).refuse_unusable()
    write(tmp_path, {**FULL, **TEST, "GT-final_test.csv": table()})
    GTSRB(root=str(tmp_path)).refuse_unusable()
    images = tmp_path / "GTSRB"
    for name in ("Final_Training/Images/00017", "Final_Training/Images/00042"):
        for file in (images / name).iterdir():
            file.unlink()
    (images / "Final_Test/Images/00001.ppm").rename(images / "Final_Test/Images/00009.ppm")
    with pytest.raises(DataError) as caught:
        GTSRB(root=str(tmp_path)).refuse_unusable()
    assert str(caught.value).replace(str(images), "R") == (
        "the GTSRB training set is incomplete: in R/Final_Training/Images, 00017 and 00042 are missing or have no "
        "images; also, the GTSRB test set is incomplete: 3 images in R/Final_Test/Images and 3 labels, and no image "
        "for 00001.ppm and no label for 00009.ppm."
    )
    with pytest.raises(DataError, match=r"^the GTSRB test set is incomplete"):
        GTSRB(root=str(tmp_path)).refuse_unusable(for_training=False)


def test_refuses_a_training_file_without_a_track(tmp_path: Path) -> None:
    write(tmp_path, {**FULL, "GTSRB/Final_Training/Images/00003/copy.ppm": ppm(3)})
    with pytest.raises(DataError, match=r"00003/copy\.ppm is not named <track>_<frame>\.ppm"):
        GTSRB(root=str(tmp_path)).split("train")


def test_missing_test_labels(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"labels of the test images are missing: neither .* contains GT-final_test\.csv"
    ):
        GTSRB(root=str(write(tmp_path, TEST))).split("test")


@pytest.mark.parametrize("content", [table("Nothing"), b"", b"\xff\xfe", table().replace(b";42", b";x")])
def test_a_file_that_is_not_the_label_table(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {**TEST, "GT-final_test.csv": content})
    with pytest.raises(DataError, match=r"GT-final_test\.csv is not the table|incomplete"):
        GTSRB(root=str(tmp_path)).split("test")


def test_class_out_of_range(tmp_path: Path) -> None:
    write(tmp_path, {**TEST, "GT-final_test.csv": table().replace(b";42", b";43")})
    with pytest.raises(DataError, match=r"has class 43 for 00002\.ppm; classes are 0 to 42"):
        GTSRB(root=str(tmp_path)).split("test")


def test_incomplete_test_set(tmp_path: Path) -> None:
    write(tmp_path, {**TEST, "GT-final_test.csv": table()})
    (tmp_path / "GTSRB/Final_Test/Images/00001.ppm").rename(tmp_path / "GTSRB/Final_Test/Images/00009.ppm")
    with pytest.raises(DataError, match=r"no image for 00001\.ppm"):
        GTSRB(root=str(tmp_path)).split("test")
    write(tmp_path, TEST)
    with pytest.raises(DataError, match=r"4 images in .* 3 labels, and no label for 00009\.ppm"):
        GTSRB(root=str(tmp_path)).split("test")


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    write(tmp_path, {**FULL, **TEST, "GT-final_test.csv": table()})

    def fingerprints() -> tuple[str, str]:
        source = GTSRB(root=str(tmp_path))
        return source.split("train").fingerprint, source.split("test").fingerprint

    before = fingerprints()
    assert before == fingerprints() and before[0] != before[1]
    later = time.time_ns() + 10**9
    os.utime(tmp_path / "GTSRB/Final_Training/Images/00005/00000_00000.ppm", ns=(later, later))
    after = fingerprints()
    assert after[0] != before[0] and after[1] == before[1]
    write(tmp_path, {"GT-final_test.csv": table().replace(b";42", b";41")})
    assert fingerprints()[1] != before[1]


def test_the_pickled_reader_is_small(tmp_path: Path) -> None:
    train = GTSRB(root=str(write(tmp_path, FULL))).split("train")
    packed = pickle.dumps(train.read)
    assert len(packed) < 40 * len(train)
    np.testing.assert_array_equal(pickle.loads(packed)(5), train.read(5))


def test_downloads_what_is_missing(archives: FileServer, tmp_path: Path) -> None:
    root = tmp_path / "new"
    source = GTSRB(root=str(root), download=True, base_url=archives.url + "/")
    assert len(source.split("train")) == 172
    assert source.split("test").labels.tolist() == TEST_LABELS
    fetched = [name for name, _ in archives.requests]
    assert fetched == [ARCHIVES[key].file for key in ("full", "test", "labels")]
    again = GTSRB(root=str(root), download=True, base_url=archives.url)
    assert again.split("train").fingerprint == source.split("train").fingerprint
    assert len(archives.requests) == 3
    online = GTSRB(root=str(root), download=True, train_set="online", base_url=archives.url)
    assert len(online.split("train")) == 86


def test_an_archive_supplied_by_the_user_needs_no_network(archives: FileServer, tmp_path: Path) -> None:
    for key in ("full", "test", "labels"):
        (tmp_path / ARCHIVES[key].file).write_bytes(archives.files[ARCHIVES[key].file])
    source = GTSRB(root=str(tmp_path))
    assert len(source.split("train")) == 172 and len(source.split("test")) == 3
    assert not archives.requests


def test_nothing_is_downloaded_by_default(archives: FileServer, tmp_path: Path) -> None:
    for name in ("train", "test"):
        with pytest.raises(DataError, match=r"missing.*set data\.download=true"):
            GTSRB(root=str(tmp_path), base_url=archives.url).split(name)
    assert not archives.requests and list(tmp_path.iterdir()) == []


def test_a_failed_download_gives_a_one_line_error(archives: FileServer, tmp_path: Path) -> None:
    archives.files.clear()
    with pytest.raises(DataError, match=r"cannot download .*: the server returned 404 .* yourself\.$"):
        GTSRB(root=str(tmp_path), download=True, base_url=archives.url).split("train")
