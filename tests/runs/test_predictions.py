from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import tiny_run
from vitexp.errors import UserError
from vitexp.runs.finished import FinishedRun, load_run
from vitexp.runs.predictions import predict_folder, write_test_predictions


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
    count, broken = predict_folder(run, photos, tmp_path / "out.csv")
    assert (count, broken) == (3, [photos / "broken.png"])
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a.PNG", "b.png", "more/c.jpg"]
    assert list(rows[0])[1:5] == ["class", "probability", "class_2", "probability_2"]
    for row in rows:
        ranked = [float(row[name]) for name in row if name.startswith("probability")]
        assert len(ranked) == 5 and ranked == sorted(ranked, reverse=True)


def test_folder_without_images(run: FinishedRun, tmp_path: Path) -> None:
    for folder, problem in ((tmp_path, "contains no images"), (tmp_path / "nowhere", "is not a folder")):
        with pytest.raises(UserError, match=problem):
            predict_folder(run, folder, tmp_path / "out.csv")


def test_file_paths_of_a_test_set(tmp_path: Path) -> None:
    write_test_predictions(
        tmp_path / "predictions.csv",
        classes=["Stop, or go", "Yield"],
        paths=np.array(["0/a.png", "1/b.png"], dtype=object),
        probabilities=torch.tensor([[0.75, 0.25], [1.0, 0.0]]),
        labels=torch.tensor([0, 1]),
    )
    assert (tmp_path / "predictions.csv").read_text() == (
        "file,true,predicted,probability\n"
        '0/a.png,"Stop, or go","Stop, or go",0.750000\n'
        '1/b.png,Yield,"Stop, or go",1.000000\n'
    )
