from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from vitexp.data import cifar
from vitexp.data.cifar import CIFAR
from vitexp.data.source import DataError

if TYPE_CHECKING:
    from tests.data.conftest import FileServer

Kind = Literal["cifar10", "cifar100"]
KINDS: list[Kind] = ["cifar10", "cifar100"]
NAMES = {"cifar10": ["airplane", "bird"], "cifar100": ["aquarium_fish", "beaver", "bee"]}


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> dict[Kind, dict[str, bytes]]:
    """Files in the official format with three images each; torchvision expects their md5 sums."""
    rng = np.random.default_rng(0)
    sets: dict[Kind, dict[str, bytes]] = {}
    for kind in KINDS:
        dataset: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]
        files = {}
        for number, name in enumerate(name for name, _ in dataset.train_list + dataset.test_list):
            pixels = rng.integers(0, 256, (3, 3072), dtype=np.uint8)
            pixels[:, 0] = number  # red of the first pixel
            labels = (
                {"labels": [0, 1, 0]} if kind == "cifar10" else {"fine_labels": [0, 2, 1], "coarse_labels": [1, 4, 0]}
            )
            files[name] = pickle.dumps({"data": pixels, **labels})
        files[dataset.meta["filename"]] = pickle.dumps({dataset.meta["key"]: NAMES[kind]})
        for part in ("train_list", "test_list"):
            told = [[name, _md5(files[name])] for name, _ in getattr(dataset, part)]
            monkeypatch.setattr(dataset, part, told)
        monkeypatch.setitem(dataset.meta, "md5", _md5(files[dataset.meta["filename"]]))
        sets[kind] = {f"{dataset.base_folder}/{name}": content for name, content in files.items()}
    return sets


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_cifar10(official: dict[Kind, dict[str, bytes]], tmp_path: Path) -> None:
    source = CIFAR(root=str(write(tmp_path, official["cifar10"])), kind="cifar10")
    train, test = source.split("train"), source.split("test")
    assert source.classes == ["airplane", "bird"]
    assert train.labels.tolist() == [0, 1, 0] * 5 and test.labels.tolist() == [0, 1, 0]
    assert train.labels.dtype == np.int64 and len(set(train.groups)) == 15
    assert [int(train.read(i)[0, 0, 0]) for i in range(15)] == [i // 3 for i in range(15)]
    first = pickle.loads(official["cifar10"]["cifar-10-batches-py/test_batch"])["data"][0]
    read = pickle.loads(pickle.dumps(test.read))
    assert len(pickle.dumps(train.read)) < 3072
    np.testing.assert_array_equal(read(0), first.reshape(3, 32, 32).transpose(1, 2, 0))
    assert train.fingerprint != test.fingerprint


def test_cifar100_has_fine_labels(official: dict[Kind, dict[str, bytes]], tmp_path: Path) -> None:
    source = CIFAR(root=str(write(tmp_path, official["cifar100"])), kind="cifar100")
    assert source.classes == ["aquarium fish", "beaver", "bee"]
    assert source.split("train").labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_missing(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{kind} is missing: .*data\.download=true, or put .*\.$"):
        CIFAR(root=str(tmp_path), kind=kind).split("train")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damaged", ["data_batch_3", "batches.meta"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_damaged(official: dict[Kind, dict[str, bytes]], tmp_path: Path, damaged: str, how: str) -> None:
    path = write(tmp_path, official["cifar10"]) / "cifar-10-batches-py" / damaged
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"cifar-10-batches-py is incomplete or damaged"):
        CIFAR(root=str(tmp_path), kind="cifar10").split("train")


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_truncated_files_are_found_without_reading(kind: Kind, tmp_path: Path) -> None:
    source, sizes = CIFAR(root=str(tmp_path), kind=kind), {"cifar10": 30_730_000, "cifar100": 153_700_000}
    with pytest.raises(DataError, match=rf"{kind} is missing"):
        source.refuse_unusable()
    dataset: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    files = [folder / name for name, _ in dataset.train_list + dataset.test_list]
    for file in files:
        with file.open("wb") as opened:
            opened.truncate(sizes[kind])  # sparse
    (folder / dataset.meta["filename"]).write_bytes(b"x")
    source.refuse_unusable()
    os.truncate(files[0], 30_000_000)
    files[-1].unlink()
    with pytest.raises(
        DataError, match=rf"incomplete or damaged \({files[0].name}: truncated and {files[-1].name}: missing\); delete"
    ):
        source.refuse_unusable()


class Payload:
    """An object that calls a function when unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda mark: Payload(os.system, f"touch {mark}"), "posix.system"),
        (lambda mark: Payload(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: {"data": [{"labels": Payload(open, str(mark), "w")}]}, "io.open|_io.open"),
        (lambda mark: {"data": np.array([Payload(os.mkdir, str(mark))])}, "posix.mkdir"),
        (lambda mark: Payload(getattr, "text", "upper"), "builtins.getattr"),
    ],
)
def test_a_pickle_with_a_payload_is_refused(
    official: dict[Kind, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, named: str
) -> None:
    mark = tmp_path / "executed"
    evil = pickle.dumps(make(mark))
    write(tmp_path, {**official["cifar10"], "cifar-10-batches-py/data_batch_1": evil})
    told: Any = datasets.CIFAR10.train_list
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", _md5(evil)], *told[1:]])
    with pytest.raises(DataError, match=rf"data_batch_1: it uses ({named}), unlike the official files\)") as caught:
        CIFAR(root=str(tmp_path), kind="cifar10").split("train")
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_files_that_change_after_they_were_found(official: dict[Kind, dict[str, bytes]], tmp_path: Path) -> None:
    split = CIFAR(root=str(write(tmp_path, official["cifar10"])), kind="cifar10").split("test")
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="test_batch: its md5 checksum is not"):
        split.read(0)


def test_arrays_as_python_2_wrote_them(
    official: dict[Kind, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Official files use protocol 2, byte strings and the old name of NumPy's module."""
    data = bytes(range(256)) * 12
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0c\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(data).to_bytes(4, "little") + data + b"tb"
    )
    old = b"\x80\x02}(U\x04data" + array + b"U\x06labels]K\x01au."
    write(tmp_path, {**official["cifar10"], "cifar-10-batches-py/test_batch": old})
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", _md5(old)]])
    split = CIFAR(root=str(tmp_path), kind="cifar10").split("test")
    assert split.labels.tolist() == [1]
    np.testing.assert_array_equal(split.read(0).transpose(2, 0, 1).ravel(), np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_downloads(
    kind: Kind,
    official: dict[Kind, dict[str, bytes]],
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]
    monkeypatch.setattr(dataset, "url", f"{server.url}/{dataset.filename}")
    root = str(tmp_path / "new")
    with pytest.raises(DataError, match=r"404 .* yourself\.$"):
        CIFAR(root=root, kind=kind, download=True).split("train")
    monkeypatch.setattr(dataset, "tgz_md5", server.publish(dataset.filename, packed(official[kind])))
    source = CIFAR(root=root, kind=kind, download=True)
    assert len(source.split("test")) == 3
    assert len(source.classes) == len(NAMES[kind])
    assert len(server.requests) == 2


def test_copies_in_two_folders_have_the_same_fingerprint_and_images(
    official: dict[Kind, dict[str, bytes]], tmp_path: Path
) -> None:
    one, two = (CIFAR(root=str(write(tmp_path / n, official["cifar10"])), kind="cifar10") for n in ("one", "two"))
    assert one.split("train").fingerprint == two.split("train").fingerprint
    np.testing.assert_array_equal(one.split("train").read(4), two.split("train").read(4))


@pytest.fixture
def class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of two classes with six training and four test images, as numerous as the set is made to be here."""
    monkeypatch.setattr(cifar, "_IMAGES", {"train": 6, "test": 4})
    monkeypatch.setattr(cifar, "_CLASSES", {"cifar100": 2})
    for part, each in (("train", 3), ("test", 2)):
        for label, name in enumerate(["aquarium_fish", "bee"]):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(each):
                Image.new("RGB", (32, 32), (label, number, 0)).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def test_class_folders_are_read_where_the_official_files_are_missing(class_folders: Path) -> None:
    source = CIFAR(root=class_folders, kind="cifar100")
    source.refuse_unusable()
    assert source.classes == ["aquarium fish", "bee"]
    train, test = source.split("train"), source.split("test")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert test.read(3)[0, 0].tolist() == [1, 1, 0]
    assert train.fingerprint != test.fingerprint
    (class_folders / "cifar-100-python").mkdir()  # the official files have priority
    with pytest.raises(DataError, match="incomplete or damaged"):
        CIFAR(root=class_folders, kind="cifar100").refuse_unusable()


def test_class_folders_of_other_images_are_refused(class_folders: Path) -> None:
    (class_folders / "test" / "bee" / "1.png").unlink()
    expected = r"test contains 3 images of 2 classes, but cifar100 has 4 of 2 there; use data=folder"
    for use in (CIFAR.refuse_unusable, lambda source: source.split("train"), lambda source: source.classes):
        with pytest.raises(DataError, match=expected):
            use(CIFAR(root=class_folders, kind="cifar100"))
