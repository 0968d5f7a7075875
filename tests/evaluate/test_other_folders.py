"""Evaluating on other folders: which images, which classes, and whether they are the run's own; accuracy recomputed."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from tests.conftest import composed, result
from vitexp.errors import ConfigError, UserError
from vitexp.evaluate.evaluation import evaluate
from vitexp.runs.explained import check_same_test, load_explainer, note_changed_data
from vitexp.runs.finished import load_run, write_weights
from vitexp.runs.run import run
from vitexp.runs.test_set import TestSet, open_test_set

SIZE = 8
PATTERNS = np.random.default_rng(0).integers(40, 216, (10, SIZE, SIZE, 3))  # one per class
DIGITS = [str(number) for number in range(10)]
WORDS = ["Stop", "Yield", "Ahead only", "Café", "Zürich", "Road work", "Curve", "Bumpy road", "Keep left", "Keep right"]


class Linear(nn.Module):
    """A network that learns the patterns in a second."""

    def __init__(self, *, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.head = nn.Linear(3 * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))  # type: ignore[no-any-return]


def write(folder: Path, label: int, count: int, *, seed: int = 0, ending: str = "png") -> None:
    """Write noisy images of a class; the last of several shows another class, so that accuracies differ from 1."""
    folder.mkdir(parents=True)
    random = np.random.default_rng((seed, label))
    for index in range(count):
        shown = (label + 1) % 10 if 0 < index == count - 1 else label
        pixels = PATTERNS[shown] + random.normal(0, 8, PATTERNS[shown].shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.{ending}", quality=95)


def nearest(path: Path) -> int:
    """Classify an image without vitexp."""
    with Image.open(path) as image:
        pixels = np.asarray(image, np.float64)
    return int(((PATTERNS - pixels) ** 2).sum(axis=(1, 2, 3)).argmin())


def expected(folders: dict[Path, int]) -> tuple[int, float]:
    """Return the number of images in folders, and the fraction that `nearest` assigns to the label of their folder."""
    right = [nearest(path) == label for folder, label in folders.items() for path in folder.glob("*.[pj][np]g")]
    return len(right), float(np.mean(right))


def measured(finished: Path, root: Path) -> tuple[int, float, TestSet]:
    loaded, test = open_test_set(load_run(finished), ["data=folder", f"data.root={root}"])
    predicted: NDArray[np.int64] = loaded.all_logits(test.images).argmax(dim=1).numpy()
    return len(test.images), float(np.mean(predicted == test.labels)), test


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on data/<0 to 9>/*, 20 % of it for testing."""
    place = tmp_path_factory.mktemp("other")
    for label in range(10):
        write(place / "data" / str(label), label, 12)
    words = (
        *("data=folder", f"data.root={place / 'data'}", f"data.image_size={SIZE}", "data.val_fraction=0.25"),
        *(
            "data.batch_size=20",
            "data.num_workers=0",
            "augment=none",
            "model=simple_cnn",
            "~model.dropout",
            "~model.hidden",
        ),
        *(f"model._target_={__name__}.Linear", "optim.lr=0.01", "trainer=cpu", "trainer.max_epochs=10"),
        *("trainer.enable_progress_bar=false", "callbacks=none", "logger=csv", f"log_dir={place}", "run_id=run"),
    )
    run(composed(*words))
    return place


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    [folder] = place.glob("*/run")
    assert result(folder)["metrics"]["test"]["accuracy"] > 0.8
    return folder


def renamed(finished: Path, names: Sequence[str], folder: Path) -> Path:
    """Return a copy of the run whose network has other class names."""
    loaded = load_run(finished)
    shutil.copytree(finished, folder)
    about: Any = {"model": loaded.config.model, "image_size": SIZE, "mean": loaded.mean, "std": loaded.std}
    write_weights(folder, loaded.net.state_dict(), classes=names, **about)
    return folder


@pytest.mark.parametrize(
    ("ours", "theirs", "how"),
    [
        (DIGITS, {name: label for label, name in enumerate(DIGITS)}, "10 of the network's 10, matched by name"),
        (DIGITS, {f"{label:05d}": label for label in range(10)}, "by name: '00000' is '0', '00001' is '1', "),
        (DIGITS, {str(label): label for label in range(1, 10)}, "9 of the network's 10, matched by name"),
        ([f"{label + 1:02d}" for label in range(10)], {str(label + 1): label for label in range(9)}, "'1' is '01'"),
        ([str(label + 1) for label in range(10)], {str(label + 1): label for label in range(10)}, "by name"),
        (WORDS, {f"{label:05d}": label for label in range(10)}, "by number, counted from 0: '00000' is 'Stop', "),
        (WORDS, {"7": 7, "3": 3}, "by number, counted from 0: '3' is 'Café', '7' is 'Bumpy road'"),
        (WORDS, {name.upper(): at for at, name in enumerate(WORDS)}, "by name: 'AHEAD ONLY' is 'Ahead only', 'BUMPY"),
        (WORDS, {unicodedata.normalize("NFD", name): at for at, name in enumerate(WORDS)}, "by name: "),
        (["A", "a", *WORDS[2:]], {"a": 1, "Café": 3}, "2 of the network's 10, matched by name"),
        ([f"class {label}" for label in range(10)], {f"class {label}": label for label in range(10)}, "by name"),
        (["7", "5", *WORDS[2:]], {"5": 1, "07": 0, "Café": 3}, "'07' is '7'"),
        (WORDS, {"Keep left": 8}, "1 of the network's 10, matched by name"),
    ],
)
def test_class_names(finished: Path, tmp_path: Path, ours: list[str], theirs: dict[str, int], how: str) -> None:
    for name, label in theirs.items():
        write(tmp_path / "photos" / name, label, 2 + label % 3)
    images, accuracy, test = measured(renamed(finished, ours, tmp_path / "run"), tmp_path / "photos")
    assert (images, accuracy) == expected({tmp_path / "photos" / name: label for name, label in theirs.items()})
    assert how in test.matching and 0.4 < accuracy < 1


@pytest.mark.parametrize(
    ("ours", "theirs", "sentence"),
    [
        (DIGITS, [str(label + 1) for label in range(10)], "does not know 1 of the 10 classes of photos \\('10'; its"),
        ([str(label + 1) for label in range(10)], DIGITS, "does not know 1 of the 10 classes of photos \\('0'; its"),
        (DIGITS, ["cat", "dog"], "does not know 2 of the 2 classes .*; use the same names\\.$"),
        (DIGITS, ["1", "01"], "two classes of photos, '01' and '1', match the same class of the network, '1'"),
        (WORDS, ["10"], "does not know 1 of the 1 classes .*; use the same names, or numbers from 0 to 9"),
        (WORDS, ["Stop", "0"], "does not know 1 of the 2 classes of photos \\('0'"),
        (["A", "a", "7", *WORDS[3:]], ["0", "1"], "does not know 2 of the 2 classes"),
        (["Go left", "go left", *WORDS[2:]], ["GO LEFT"], "'GO LEFT' of photos could be 'Go left' or 'go left'"),
        (["1", "01", *WORDS[2:]], ["001"], "'001' of photos could be '1' or '01'"),
    ],
)
def test_class_names_that_are_refused(
    finished: Path, tmp_path: Path, ours: list[str], theirs: list[str], sentence: str
) -> None:
    for name in theirs:
        write(tmp_path / "photos" / name, 0, 1)
    with pytest.raises(UserError, match=sentence):
        measured(renamed(finished, ours, tmp_path / "run"), tmp_path / "photos")


@pytest.mark.parametrize(
    ("folders", "evaluated", "about"),
    [
        ({"0": 3, "1": 4, "2": 5}, "", "all of PHOTOS"),
        ({"0": 1, "1": 1}, "", "all of PHOTOS"),
        ({"5": 3}, "", "all of PHOTOS"),
        ({"test/0": 2, "test/1": 3}, "test/", "all of PHOTOS/test"),
        ({"train/0": 9, "train/1": 9, "test/0": 2, "test/1": 3}, "test/", "all of PHOTOS/test; not evaluated: train"),
        ({"train/0": 4, "test/0": 2, "test/1": 2, "val/0": 3}, "test/", "PHOTOS/test; not evaluated: train and val"),
        ({"train/0": 2, "train/1": 3}, "train/", "all of PHOTOS/train"),
        ({"val/0": 2, "val/1": 3}, "val/", "all of PHOTOS/val"),
        ({"train/0": 9, "valid/0": 2, "valid/1": 3}, "valid/", "all of PHOTOS/valid; not evaluated: train"),
        ({"Training/0": 9, "Testing/0": 2, "Testing/1": 3}, "Testing/", "PHOTOS/Testing; not evaluated: Training"),
    ],
)
def test_layouts(finished: Path, tmp_path: Path, folders: dict[str, int], evaluated: str, about: str) -> None:
    photos = tmp_path / "photos"
    for name, count in folders.items():
        write(photos / name, int(name[-1]), count, ending="jpg" if name[-1] == "1" else "png")
    images, accuracy, test = measured(finished, photos)
    counted = {
        photos / name: int(name[-1]) for name in folders if name.startswith(evaluated) and name[:-1] == evaluated
    }
    assert (images, accuracy) == expected(counted)
    assert test.about.endswith(about.replace("PHOTOS", str(photos))) and not test.own


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        ({"Train/0": 2, "train/0": 2}, "contains both Train and train; merge them, or rename one"),
        ({"images/0": 2, "images/1": 2}, "set data.root to it if its folders are the classes"),
        ({".": 2}, "contains no class folder; put the images of each class into one"),
        ({"0": 2, "1": 0}, "the class folder .*/1 contains no image"),
    ],
)
def test_layouts_that_are_refused(finished: Path, tmp_path: Path, folders: dict[str, int], sentence: str) -> None:
    for name, count in folders.items():
        write(tmp_path / "photos" / name, 0, count)
    with pytest.raises(UserError, match=sentence):
        measured(finished, tmp_path / "photos")


def test_files_that_are_not_read_are_named(finished: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write(photos / "0", 0, 3)
    write(photos / "1" / "more", 1, 1)
    write(tmp_path / "elsewhere", 2, 3)
    (photos / "2").symlink_to(tmp_path / "elsewhere")
    for name in ("0/a.pcx", "1/b.svg", "notes.txt", ".hidden"):
        (photos / name).touch()
    shutil.copy(photos / "0" / "0.png", photos / "1" / "one.png")
    images, accuracy, test = measured(finished, photos)
    assert (images, accuracy) == expected({photos / str(label): label for label in range(3)})
    assert test.about.endswith("; not read: notes.txt, 0/a.pcx, 1/b.svg and 1/more/0.png")


def test_another_data_set_with_the_same_names_is_not_that_of_the_run(
    place: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = evaluate(finished)
    assert own["data"]["of_the_run"] and "result_json" in own
    assert "images    20 images of data: the run's own test split\nclasses   10 of the" in capsys.readouterr().out
    before = (finished / "evaluation" / "evaluation.json").read_bytes()
    for label in range(10):
        write(tmp_path / str(label), label, 12, seed=1)
    other = evaluate(finished, data=[f"data.root={tmp_path}"], tta=True)
    assert f"images    120 images of {tmp_path.name}: all of {tmp_path}\nclasses   10 of the" in capsys.readouterr().out
    assert not other["data"]["of_the_run"] and other["data"]["images"] == 120 and "result_json" not in other
    assert other["metrics"]["accuracy"] == pytest.approx(expected({tmp_path / name: int(name) for name in DIGITS})[1])
    assert (finished / "evaluation" / "evaluation.json").read_bytes() == before
    assert json.loads((finished / "evaluation" / f"on-{tmp_path.name}" / "evaluation.json").read_text()) == other
    # The temperature is that of the run's own validation images.
    assert other["calibration"]["temperature"] == own["calibration"]["temperature"]
    write(tmp_path / "again", 0, 12, seed=2)
    shutil.rmtree(tmp_path / "0")
    (tmp_path / "again").rename(tmp_path / "0")
    again = evaluate(finished, data=[f"data.root={tmp_path}"])  # as many images, but other ones
    assert again["data"]["images"] == 120 and "test_time_augmentation" not in again


def test_the_moved_data_set_of_the_run_is_recognized(place: Path, finished: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(place / "data", tmp_path / "moved")
    for typed in ([f"data.root={moved}"], ["data=folder", f"data.root={moved}", "data.name=mine"]):
        loaded, test = open_test_set(load_run(finished), typed)
        assert test.own and len(test.images) == 20
        assert loaded.data.fingerprint == result(finished)["data"]["fingerprints"]["train"]


def test_the_test_set_of_the_run_needs_no_training_images(finished: Path, tmp_path: Path) -> None:
    """A run on train and test folders, whose training images were deleted."""
    photos, copy = tmp_path / "photos", Path(shutil.copytree(finished, tmp_path / "run"))
    for label in range(10):
        write(photos / "train" / str(label), label, 4)
        write(photos / "test" / str(label), label, 3, seed=1)
    config = OmegaConf.load(copy / "config.yaml")
    config.data.root = config.data.source.root = str(photos)
    OmegaConf.save(config, copy / "config.yaml")
    record = result(copy)
    record["data"]["fingerprints"]["test"] = open_test_set(load_run(copy), [])[1].fingerprint
    (copy / "result.json").write_text(json.dumps(record))
    shutil.rmtree(photos / "train")
    test = open_test_set(load_run(copy), [])[1]
    assert test.own and len(test.images) == 30
    write(photos / "test" / "0" / "more", 0, 1)
    (photos / "test" / "0" / "more" / "0.png").rename(photos / "test" / "0" / "more.png")
    with pytest.raises(UserError, match=r"contains test but no images to train on; add train/"):
        open_test_set(load_run(copy), [])


def test_a_copy_of_the_test_images_alone_leaves_the_training_images_in_place(
    place: Path, finished: Path, tmp_path: Path
) -> None:
    own = open_test_set(load_run(finished), [])[1]
    for label, path in zip(own.labels, own.images.paths, strict=True):  # type: ignore[arg-type]
        (tmp_path / "copy" / str(label)).mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "data" / path, tmp_path / "copy" / str(label))
    loaded, test = open_test_set(load_run(finished), ["data=folder", f"data.root={tmp_path / 'copy'}"])
    assert test.own and not loaded.data_changed


def test_skipped_images_are_counted(finished: Path, tmp_path: Path) -> None:
    write(tmp_path / "photos" / "0", 0, 3)
    (tmp_path / "photos" / "0" / "broken.png").write_bytes(b"broken")
    words = ["data=folder", f"data.root={tmp_path / 'photos'}", "data.on_broken=skip"]
    test = open_test_set(load_run(finished), words)[1]
    assert len(test.images) == 3 and test.about.endswith("; 1 image skipped")


def test_images_that_changed_in_place_are_not_those_of_the_run(place: Path, finished: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(finished, tmp_path / "run"))
    record = result(changed)
    record["data"]["fingerprints"] = {"train": "0" * 12, "test": "0" * 12}
    (changed / "result.json").write_text(json.dumps(record))
    results = evaluate(changed)
    assert not results["data"]["of_the_run"] and results["data"]["images"] == 20
    assert "have changed since training" in results["data"]["evaluated"]
    assert results["calibration"]["temperature"] is None
    assert any("the run's training images, or their preparation, changed" in note for note in results["notes"])
    assert load_run(changed).data_changed and not load_run(finished).data_changed


def test_runs_that_recorded_no_fingerprint_know_their_data_by_the_place(
    place: Path, finished: Path, tmp_path: Path
) -> None:
    older = Path(shutil.copytree(finished, tmp_path / "run"))
    record = result(older)
    del record["data"]["fingerprints"]
    (older / "result.json").write_text(json.dumps(record))
    moved = shutil.copytree(place / "data", tmp_path / "moved")
    assert open_test_set(load_run(older), [])[1].own
    assert open_test_set(load_run(older), [f"data.root={place / '.' / 'data'}"])[1].own
    assert not open_test_set(load_run(older), [f"data.root={moved}"])[1].own
    assert not load_run(older).data_changed


def test_training_images_among_those_evaluated_are_noted(place: Path, finished: Path, tmp_path: Path) -> None:
    """Also if the folder of the run is split differently."""
    moved = shutil.copytree(place / "data", tmp_path / "moved")
    write(moved / "0" / "new", 0, 1, seed=3)
    (moved / "0" / "new" / "0.png").rename(moved / "0" / "new.png")
    (moved / "0" / "new").rmdir()
    learned = result(finished)["data"]["train"]
    notes = evaluate(finished, data=[f"data.root={moved}"], out=tmp_path / "out")["notes"]
    assert f"the run was trained on {learned} of these 121 images." in notes
    other = evaluate(finished, data=["data.split_seed=1"], out=tmp_path / "out")
    assert other["data"]["images"] == 20 and not other["data"]["of_the_run"]
    assert any("the run was trained on" in note for note in other["notes"])


def test_explanations_say_that_the_images_are_others(
    place: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in range(10):
        write(tmp_path / "others" / str(label), label, 12, seed=1)
    own, others = load_explainer(finished), load_explainer(finished, [f"data.root={tmp_path / 'others'}"])
    note_changed_data(own.run)
    assert "note" not in capsys.readouterr().out
    note_changed_data(others.run)
    assert "note  the images of others are not those that" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="different test set"):  # though labels and file names are equal
        check_same_test((own, others))
    with pytest.raises(UserError, match="nowhere does not exist"):
        load_explainer(finished, [f"data.root={tmp_path / 'nowhere'}"])
    (tmp_path / "others" / "9").rename(tmp_path / "others" / "nine")
    with pytest.raises(UserError, match="the data set folder does not have the classes of the run"):
        load_explainer(finished, [f"data.root={tmp_path / 'others'}"])


def test_a_folder_for_data_that_are_not_files_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root has no effect because data=signs reads no files; data=folder"):
        open_test_set(load_run(finished), ["data=signs", f"data.root={tmp_path}"])
