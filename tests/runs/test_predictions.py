from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import result, tiny_run
from vitexp.commands.predict import main
from vitexp.data.imagefile import ENDINGS
from vitexp.data.prepare import Prepared
from vitexp.errors import ConfigError, UserError
from vitexp.runs.finished import FinishedRun, load_run
from vitexp.runs.predictions import as_array, predict, predict_folder, write_test_predictions
from vitexp.runs.probabilities import read_probabilities


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return load_run(tiny_run(tmp_path_factory.mktemp("logs"), "callbacks=none", "logger=none"))


def test_folder_of_images(run: FinishedRun, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("b.png", "a.PNG", "more/c.jpg"):
        Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(photos / name)
    (photos / "broken.png").write_bytes(b"not an image")
    (photos / "notes.txt").write_text("not an image either")
    (photos / "more" / "d.pcx").write_bytes(b"an image of a format that is not read")
    (photos / "gone.png").symlink_to("nowhere")
    (photos / "linked.png").symlink_to("more")
    (photos / "._a.png").write_bytes(b"hidden, as macOS leaves them on other disks")
    predictions, unread = predict_folder(run, photos, tmp_path / "out.csv")
    assert len(predictions) == 3
    names = ("broken.png", "gone.png", "linked.png", "more/d.pcx", "notes.txt")
    assert unread == [photos / name for name in names]
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a.PNG", "b.png", "more/c.jpg"]
    assert list(rows[0])[1:5] == ["class", "probability", "class_2", "probability_2"]
    for row in rows:
        ranked = [float(row[name]) for name in row if name.startswith("probability")]
        assert len(ranked) == 5 and ranked == sorted(ranked, reverse=True)


def test_a_single_file(run: FinishedRun, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    predictions, unread = predict_folder(run, tmp_path / "a.png", tmp_path / "out.csv")
    assert (len(predictions), unread) == (1, [])
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["a.png"]
    with pytest.raises(UserError, match=r"out\.csv is not a folder or an image file \(\.png, .*\)\."):
        predict_folder(run, tmp_path / "out.csv", tmp_path / "other.csv")


def test_folder_without_images(run: FinishedRun, tmp_path: Path) -> None:
    for name in ("empty", "others", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "others" / "a.pcx").touch()
    (tmp_path / "others" / "b.svg").touch()
    (tmp_path / "broken" / "c.png").touch()
    for folder, problem in (
        ("empty", r"contains no images \(\.png, .*\)\.$"),
        ("others", r"contains no images \(\.png, .*\), only a\.pcx and b\.svg\.$"),
        ("broken", r"no image in .*/broken could be decoded: c\.png\."),
        ("nowhere", "is not a folder"),
    ):
        with pytest.raises(UserError, match=problem) as refused:
            predict_folder(run, tmp_path / folder, tmp_path / "out.csv")
        assert refused.value.exit_code == 2
    assert not (tmp_path / "out.csv").exists()


def test_the_command_names_what_was_not_read(
    run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    for name in ("b.png", "c.pcx"):
        (photos / name).touch()
    (photos / "d").symlink_to(tmp_path)
    main([f"images={photos}", f"run={run.folder}", f"out={tmp_path / 'out.csv'}"])
    assert capsys.readouterr().out.splitlines()[-5:] == [
        f"predicted    1 {next(predict(run, [photos / 'a.png'])).name}",
        f"predictions  1 image: {tmp_path / 'out.csv'}",
        f"not read     {photos / 'b.png'} cannot be decoded",
        f"not read     {photos / 'c.pcx'} is not one of {', '.join(ENDINGS)}",
        f"not read     {photos / 'd'} is a link to a folder",
    ]


def test_earlier_predictions_are_replaced_only_on_request(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    main(["images=.", f"run={run.folder}"])
    before = Path("predictions.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"predictions\.csv exists; out=predictions\.csv replaces it"):
        main(["images=.", f"run={run.folder}"])
    main(["images=.", f"run={run.folder}", "out=predictions.csv"])
    assert Path("predictions.csv").read_bytes() == before


def test_limited_batches_are_a_sample_of_all_classes(tmp_path: Path) -> None:
    limited = ("trainer.limit_test_batches=1", "trainer.limit_val_batches=1")
    run = load_run(tiny_run(tmp_path, "callbacks=none", "logger=none", *limited))
    size = run.config.data.batch_size
    assert (run.result["data"]["val"], run.result["data"]["test"]) == (size, size)
    with open(run.folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == size and len({row["true"] for row in rows}) > size / 4
    labels = run.data.source.split("test").labels
    assert [row["true"] for row in rows] == [run.classes[labels[int(row["index"])]] for row in rows]
    assert not run.data_changed


def test_a_run_on_a_fold_keeps_its_probabilities(run: FinishedRun, tmp_path: Path) -> None:
    few = ("callbacks=none", "logger=none", "data.val_fraction=0.1")
    folder = tiny_run(tmp_path, *few, "data.folds=4", "data.fold=3")
    assert (result(folder)["data"]["train"], result(folder)["data"]["val"]) == (129, 43)
    kept = read_probabilities(folder)
    assert kept is not None
    probabilities, labels = kept
    with open(folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = load_run(folder).classes
    assert probabilities.dtype == np.float32 and probabilities.shape == (len(rows), len(classes))
    assert [classes[label] for label in labels] == [row["true"] for row in rows]
    assert [classes[label] for label in probabilities.argmax(axis=1)] == [row["predicted"] for row in rows]
    assert float((probabilities.argmax(axis=1) == labels).mean()) == pytest.approx(
        result(folder)["metrics"]["test"]["accuracy"]
    )
    assert read_probabilities(run.folder) is None  # without folds


def test_file_paths_of_a_test_set(tmp_path: Path) -> None:
    numbers = np.arange(2)
    images = Prepared(
        stored=np.zeros((2, 4, 4, 3), np.uint8),
        rows=numbers,
        labels=numbers,
        groups=numbers,
        moments=np.zeros((2, 2, 3)),
        paths=np.array(["0/a.png", "1/b.png"], dtype=object),
    )
    write_test_predictions(
        tmp_path / "predictions.csv",
        classes=["Stop, or go", "Yield"],
        images=images,
        probabilities=torch.tensor([[0.75, 0.25], [1.0, 0.0]]),
        labels=torch.tensor([0, 1]),
    )
    assert (tmp_path / "predictions.csv").read_text() == (
        "file,true,predicted,probability\n"
        '0/a.png,"Stop, or go","Stop, or go",0.750000\n'
        '1/b.png,Yield,"Stop, or go",1.000000\n'
    )


def test_a_pil_image_is_read_like_its_file(run: FinishedRun, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(pixels).save(file, exif=exif)
    with Image.open(file) as image:
        assert np.array_equal(as_array(image), as_array(file))
    assert as_array(file).shape == (50, 40, 3)


@pytest.mark.parametrize("image", [np.zeros((0, 4, 3), np.uint8), torch.zeros(3, 8, 8), Image.new("F", (8, 8)), 5])
def test_what_is_no_image_is_one_sentence(image: Any) -> None:
    with pytest.raises(UserError, match="image"):
        as_array(image)


@pytest.mark.parametrize("out", ["", "nowhere/out.csv", "/dev/null"])
def test_predictions_replace_regular_files_only(tmp_path: Path, out: str) -> None:
    from vitexp.system.disk import refuse_unwritable

    with pytest.raises(UserError, match=r"regular file|not a writable folder"):
        refuse_unwritable(tmp_path / out)
