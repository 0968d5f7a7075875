"""Parquet files as on the Hugging Face Hub, in a folder and from a server."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, tiny_run
from tests.data.conftest import FileServer
from vitexp.config.overrides import with_quoted_paths
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.huggingface import HuggingFace
from vitexp.data.source import BrokenImage, DataError
from vitexp.errors import ConfigError

pa = pytest.importorskip("pyarrow", reason="data=huggingface needs pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="data=huggingface needs pyarrow")

NAMES = ["a/b | c", "<i>ü</i>\n", ""]  # classes may be called anything


def image_bytes(red: int, *, side: int = 8) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (side, side), (red, 0, 0)).save(content, "PNG")
    return content.getvalue()


def table(
    labels: list[Any],
    *,
    names: list[str] | None = None,
    image: str = "image",
    label: str = "label",
    more: dict[str, list[Any]] | None = None,
) -> Any:
    """Return a table of images whose red is 10 times their row, as the library `datasets` writes it."""
    images = [{"bytes": image_bytes(row * 10 % 256), "path": f"{row}.png"} for row in range(len(labels))]
    columns = {image: pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})), label: pa.array(labels)}
    made = pa.table({**(more or {}), **columns})
    if names is None:
        return made
    features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(file: Path, content: Any, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, file, **{"row_group_size": 3, **options})


def reds(split: Any) -> list[int]:
    return [int(split.read(index)[0, 0, 0]) for index in range(len(split))]


def test_parts_shards_and_class_names(tmp_path: Path) -> None:
    write(tmp_path / "data/train-00000-of-00002.parquet", table([0, 1, 2, 0, 1], names=NAMES))
    write(tmp_path / "data/train-00001-of-00002.parquet", table([2, 2], names=NAMES))
    write(tmp_path / "data/validation-00000-of-00001.parquet", table([1, 0], names=NAMES))
    write(tmp_path / "data/test-00000-of-00001-0a1b2c.parquet", table([2, 1, 0, 0], names=NAMES))
    source = HuggingFace(path=str(tmp_path))
    assert source.classes == ["a/b | c", r"<i>\xfc</i>\n", "class 2"]
    train, val, test = source.split("train"), source.validation(), source.split("test")
    assert val is not None
    assert [each.labels.tolist() for each in (train, val, test)] == [[0, 1, 2, 0, 1, 2, 2], [1, 0], [2, 1, 0, 0]]
    assert reds(train) == [0, 10, 20, 30, 40, 0, 10] and reds(test) == [0, 10, 20, 30]
    assert reds(pickle.loads(pickle.dumps(train))) == reds(train)  # it is passed to processes
    assert source.describe() == "" and source.unread() == ""
    assert source.test_part().numbered and len(source.test_part().split) == 4


def test_folders_named_after_parts_and_texts_as_labels(tmp_path: Path) -> None:
    write(tmp_path / "train/0000.parquet", table(["x10", "x9", "x9"], image="img", label="kind"))
    write(tmp_path / "train/0001.parquet", table(["x10", "x9"], image="img", label="kind"))
    write(tmp_path / "val/0000.parquet", table(["x9", "x9"], image="img", label="kind"))
    source = HuggingFace(path=str(tmp_path))
    assert source.classes == ["x9", "x10"]
    assert source.validation() is None and source.split("test").labels.tolist() == [0, 0]
    assert source.split("train").labels.tolist() == [1, 0, 0, 1, 0]
    assert "val is the test set because there is no test part" in source.describe()
    assert not source.test_part().numbered


def test_a_part_without_labels_is_not_used_and_test_is_split_from_train(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", table([3, 7] * 20))
    write(tmp_path / "test.parquet", table([-1] * 4))
    write(tmp_path / "README.parquet", table([1, 2]))
    source = HuggingFace(path=str(tmp_path))
    train, test = source.split("train"), source.split("test")
    assert source.classes == ["3", "7"]
    assert np.bincount(test.labels).tolist() == [4, 4] and np.bincount(train.labels).tolist() == [16, 16]
    assert sorted([*train.groups, *test.groups]) == list(range(40))
    assert reds(test) == [int(row) * 10 % 256 for row in test.groups]
    assert "test has no labeled images and is not used; 20% of every class" in source.describe()
    assert source.unread() == "Parquet files whose names contain no part, such as train, were not read: README.parquet"
    assert train.fingerprint not in (
        test.fingerprint,
        HuggingFace(path=str(tmp_path), split_seed=1).split("train").fingerprint,
    )


def test_columns_that_are_not_clear_are_chosen_by_a_key(tmp_path: Path) -> None:
    more = {"fine_label": [5, 6, 5, 6]}
    write(tmp_path / "train.parquet", table([0, 1, 0, 1], label="coarse_label", more=more))
    with pytest.raises(DataError, match=r"data\.label_column is not clear; set it to fine_label or coarse_label\."):
        _ = HuggingFace(path=str(tmp_path)).classes
    assert HuggingFace(path=str(tmp_path), label_column="fine_label").classes == ["5", "6"]
    with pytest.raises(DataError, match=r"data\.label_column=fine does not exist; choose from fine_label and coarse"):
        _ = HuggingFace(path=str(tmp_path), label_column="fine").classes
    with pytest.raises(DataError, match=r"data\.image_column=fine_label is of type int64; choose from image\."):
        _ = HuggingFace(path=str(tmp_path), image_column="fine_label").split("train")


def test_broken_images_are_named_by_file_and_row(tmp_path: Path) -> None:
    whole = table([0, 1, 0, 1, 0])
    images = whole["image"].to_pylist()
    images[3]["bytes"], images[4]["bytes"] = b"no image", None
    write(tmp_path / "train.parquet", whole.set_column(0, "image", pa.array(images, whole.schema.field("image").type)))
    split = HuggingFace(path=str(tmp_path), test_fraction=0.01).split("train")
    rows = split.groups.tolist()
    for row, why in ((3, "not a PNG, JPEG"), (4, "it is not stored in the file")):
        if row in rows:
            with pytest.raises(BrokenImage, match=rf"train\.parquet, row {row}: {why}"):
                split.read(rows.index(row))
    assert {3, 4} & set(rows)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "contains no Parquet files, such as data/train-00000-of-00001"),
        ({"data/train-00000-of-00002": [0, 1]}, "data has 1 of the 2 files of train; download the others"),
        (
            {"a/train": [0, 1], "b/train": [0, 1]},
            r"several data sets \(a and b\); add the name of one, as in data\.path=.*/a",
        ),
        ({"test": [0, 1]}, "has no train part, such as data/train-00000-of-00001"),
        ({"train": [0, 1], "training": [0, 1]}, "contains both train and training; remove or rename one"),
        ({"train": [0, 1, None]}, "column label of train contains None, which is not one of the 2 classes"),
        ({"train": ["a", "b"], "test": ["a", "c", None]}, "column label of test contains None, which is not one of"),
        ({"train": [0.5, 1.5]}, r"has no column for data\.label_column: it has image and label"),
    ],
)
def test_every_mistake_gives_one_sentence(tmp_path: Path, files: dict[str, list[Any]], sentence: str) -> None:
    for name, labels in files.items():
        write(tmp_path / f"{name}.parquet", table(labels))
    with pytest.raises(DataError, match=sentence) as refused:
        HuggingFace(path=str(tmp_path)).split("train")
    assert "\n" not in str(refused.value)


def test_classes_that_differ_only_in_letter_case(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", table(["Cat"] * 3 + ["cat"] * 3))
    with pytest.raises(DataError, match="differ only in letter case or spaces, Cat / cat; merge or rename them"):
        HuggingFace(path=str(tmp_path)).refuse_unusable()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"train": [0, 0, 0, 1, 1]},
            "class 1 has 2 images in train of .*, but needs 3, one each for training, validation",
        ),
        (
            {"train": [0, 0, 1], "test": [0]},
            "class 1 has 1 image in train of .*, but needs 2, one each for training and",
        ),
        ({"train": [0, 0, 0, 1], "test": [-1]}, "class 1 has 1 image in train of .*, but needs 3"),
        ({"train": [0, 0], "test": [1, 2]}, r"2 classes have no image in train of .*, 1 and 2; each needs 2, one each"),
        ({"train": [0, 0, 0]}, r"has only one class \(0\); a classifier needs two or more"),
        ({"train": [0, 0, 1, 1], "test": [0, 3]}, "class 3 has 0 images in train of .*, but needs 2"),
        ({"train": [0, 1], "val": [0], "test": [0]}, ""),
        (
            {"train": [0, 0, 1, 1], "test": []},
            "2 classes have too few images in train of .*, 0 .2. and 1 .2.; each needs 3",
        ),
    ],
)
def test_classes_with_too_few_images(tmp_path: Path, files: dict[str, list[int]], sentence: str) -> None:
    for name, labels in files.items():
        write(tmp_path / f"{name}.parquet", table(labels))
    source = HuggingFace(path=str(tmp_path))
    if not sentence:
        source.refuse_unusable()
        return
    with pytest.raises(DataError, match=sentence):
        source.refuse_unusable()


def test_unusable_files_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", table([0, 0, 0, 1]))
    code = (
        "import sys; from vitexp.runs.inputs import refuse_unusable_data as refuse\n"
        "source = {'_target_': 'vitexp.data.huggingface.HuggingFace', 'path': sys.argv[1], 'download': False}\n"
        "try: refuse(source)\n"
        "finally: assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    for path, sentence in ((str(tmp_path), "class 1 has 1 image"), ("no/such", "nor completely downloaded")):
        ended = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120)
        assert sentence in ended.stderr and "torch was" not in ended.stderr, ended.stderr
    HuggingFace(path="no/such", download=True).refuse_unusable()


def test_damaged_files_and_missing_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"cannot read .*train\.parquet: "):
        HuggingFace(path=str(tmp_path)).split("train")
    for path in ("./nowhere", "/nowhere/at/all", str(tmp_path / "train.parquet"), "a/b/c/d", "Fotos (neu)"):
        with pytest.raises(DataError, match="is neither a folder nor the name of a data set on the Hub"):
            HuggingFace(path=path).split("train")
    monkeypatch.setattr("vitexp.errors.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="data=huggingface needs one more package: pip install pyarrow"):
        HuggingFace(path=str(tmp_path)).split("train")


def test_the_same_images_have_the_same_fingerprint_after_preparation(tmp_path: Path) -> None:
    for place in ("one", "two"):
        write(tmp_path / place / "train.parquet", table([0, 1] * 10, names=NAMES[:2]))
        write(tmp_path / place / "test.parquet", table([0, 1], names=NAMES[:2]))
    prints = []
    for place in ("one", "two", "one"):
        source = HuggingFace(path=str(tmp_path / place))
        data = ImageDataModule(source=source, image_size=4, batch_size=4, num_workers=0, cache_dir=tmp_path / "cache")
        data.setup()
        prints.append((data.fingerprint, data.test.fingerprint(data.classes)))
    assert prints[0] == prints[1] == prints[2]
    assert len(list((tmp_path / "cache").glob("huggingface-train-*"))) == 2
    # A file that is replaced is read again.
    write(tmp_path / "one" / "test.parquet", table([1, 0, 1], names=NAMES[:2]))
    assert HuggingFace(path=str(tmp_path / "one")).split("test").labels.tolist() == [1, 0, 1]


# A server of two data sets: "us/signs" has Parquet files, "us/other" only on the branch for converted ones.
DOWNLOAD = """
import sys
from vitexp.data.huggingface import HuggingFace
from vitexp.errors import UserError
try:
    source = HuggingFace(path=sys.argv[1], download=sys.argv[2] == "true")
    print(len(source.split("train")), len(source.split("test")), source.classes, source.split("train").read(1).shape)
except UserError as error:
    print("refused:", error)
"""


def publish(server: FileServer, name: str, revision: str, files: dict[str, bytes]) -> None:
    commit = hashlib.sha1(f"{name} {revision}".encode(), usedforsecurity=False).hexdigest()
    quoted = revision.replace("/", "%2F")
    siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
    info = json.dumps({"id": name, "sha": commit, "siblings": siblings, "tags": [], "private": False}).encode()
    for reference in (quoted, commit):
        server.files[f"api/datasets/{name}/revision/{reference}"] = info
        server.files[f"api/datasets/{name}/tree/{reference}?recursive=true&expand=false"] = json.dumps(
            [{"type": "file", "path": path, "oid": commit, "size": len(content)} for path, content in files.items()]
        ).encode()
    for path, content in files.items():
        place = f"datasets/{name}/resolve/{commit}/{path}"
        md5 = server.publish(place, content)
        server.headers[place] = {"ETag": f'"{md5}"', "X-Repo-Commit": commit}


def test_downloads_only_when_asked_to_and_from_the_endpoint(server: FileServer, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="downloading needs huggingface_hub")
    files = {}
    for part, labels in (("train", [0, 1, 0]), ("test", [1, 0])):
        write(tmp_path / "x.parquet", table(labels, names=["a", "b"]))
        files[f"data/{part}-00000-of-00001.parquet"] = (tmp_path / "x.parquet").read_bytes()
    publish(server, "us/signs", "main", {**files, "README.md": b"# Signs", "signs.py": b"raise SystemExit"})
    publish(server, "us/other", "main", {"0.jpg": b""})
    publish(server, "us/other", "refs/convert/parquet", {f"default/{name[5:]}": each for name, each in files.items()})
    publish(server, "us/none", "main", {"0.jpg": b""})
    server.headers["api/datasets/us/none/revision/refs%2Fconvert%2Fparquet"] = {"X-Error-Code": "RevisionNotFound"}

    def run(path: str, download: str = "false") -> str:
        own = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
        own["HF_HUB_OFFLINE"] = "0"  # the app, started by another test of this process, sets it
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOAD, path, download], env=own, capture_output=True, text=True, timeout=120
        )
        return done.stdout.strip() or done.stderr

    assert run("us/signs") == (
        "refused: data.path=us/signs is neither a folder nor completely downloaded; set data.download=true to "
        "download it."
    )
    assert server.requests == []
    assert run("us/signs", "true") == "3 2 ['a', 'b'] (8, 8, 3)"
    assert not any("README" in name or "signs.py" in name for name, _ in server.requests)
    server.requests.clear()
    assert run("us/signs") == "3 2 ['a', 'b'] (8, 8, 3)"
    assert server.requests == []
    assert run("us/other", "true") == run("us/other") == "3 2 ['a', 'b'] (8, 8, 3)"
    assert "refused: data.path=us/none has no Parquet files on the Hub" in run("us/none", "true")
    assert f"refused: cannot download data.path=us/gone from {server.url}: " in run("us/gone", "true")


@pytest.mark.slow
def test_every_command_works_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitexp.evaluate.evaluation import evaluate
    from vitexp.runs.explained import explain_run
    from vitexp.runs.finished import load_run

    monkeypatch.setenv("VITEXP_CACHE", str(tmp_path / "cache"))
    for part, count in (("train", 36), ("validation", 9), ("test", 12)):
        write(tmp_path / f"signs (1)/data/{part}-00000-of-00001.parquet", table([0, 1, 2] * (count // 3), names=NAMES))
    own = ("data=huggingface", f"data.path={tmp_path / 'signs (1)'}", "data.batch_size=8")
    words = [word for word in TINY if "_per_class" not in word and "batch_size" not in word]
    monkeypatch.setattr("tests.conftest.TINY", tuple(words))
    folder = tiny_run(tmp_path / "logs", *with_quoted_paths(own))
    run = load_run(folder)
    assert run.classes == ["a/b | c", r"<i>\xfc</i>\n", "class 2"]
    results = evaluate(folder)
    assert results["data"]["of_the_run"] and results["data"]["images"] == 12
    (tmp_path / "signs (1)").rename(tmp_path / "moved")
    moved = evaluate(folder, data=(f"data.path={tmp_path / 'moved'}",))
    assert moved["data"]["of_the_run"]
    explain_run(
        folder=folder,
        other=None,
        image=None,
        data=(f"data.path={tmp_path / 'moved'}",),
        images=4,
        shown=2,
        embedded=6,
        layer=0,
        head=0,
        label="a/b | c",
    )
    assert (folder / "figures" / "explain").is_dir()
