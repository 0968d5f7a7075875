"""Every tab draws; a click on a point of the embedding map finds its image."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import TINY, composed, result
from vitexp.app.picture import Picture
from vitexp.app.views import Choice, Views
from vitexp.errors import ConfigError, UserError
from vitexp.explain import drawing
from vitexp.runs.explained import load_explainer
from vitexp.runs.find import completed_runs
from vitexp.runs.finished import load_run, write_weights
from vitexp.runs.run import run

PICTURE = Picture(kind="test", row=3)


@pytest.fixture(scope="module")
def views(vit_run: Path) -> Views:
    return Views(load_explainer(vit_run))


def test_every_tab_of_a_vit_draws(views: Views, cnn_run: Path) -> None:
    assert [view.name for view in views.views] == [
        *("Explanations", "Patches", "Attention", "Classes", "Faithfulness", "Embeddings", "Heads", "Weights"),
        "Two runs",
    ]
    assert list(views.others()) == [cnn_run]
    accuracy = result(cnn_run)["metrics"]["test"]["accuracy"]
    assert views.others()[cnn_run].endswith(f"/ {cnn_run.name}, {accuracy:.2%}")
    choice = Choice(label=5, layer=0, head=1, overlay=False, other=str(cnn_run))
    for view in views.views:
        for name, draw in view.figures.items():
            figure = draw(PICTURE, choice)
            assert figure is not None, name
            figure.savefig(file := io.BytesIO(), format="png")
            assert Image.open(file).size[0] == 1080, name


def test_a_cnn_has_fewer_tabs(cnn_run: Path, vit_run: Path) -> None:
    views = Views(load_explainer(cnn_run))
    names = [view.name for view in views.views]
    assert names == ["Explanations", "Classes", "Faithfulness", "Embeddings", "Weights", "Two runs"]
    choice = Choice(other=str(vit_run))
    drawn = {name: draw(PICTURE, choice) for view in views.views for name, draw in view.figures.items()}
    assert {name for name, figure in drawn.items() if figure is None} == {"position_embedding"}


def test_a_click_on_a_point_finds_its_image(views: Views) -> None:
    about = views.about(PICTURE, Choice())
    figure = drawing.draw_embedding(views.explainer, about, views.embedded)
    figure.savefig(file := io.BytesIO(), format="png")
    offsets = np.concatenate([np.asarray(each.get_offsets()) for each in figure.axes[0].collections[:-1]])
    pixels = figure.axes[0].transData.transform(offsets)
    apart = np.hypot(*(pixels[:, None] - pixels[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(pixels))
    lonely = int(apart.min(axis=1).argmax())  # the point farthest from all others
    x, y = pixels[lonely][0], Image.open(file).size[1] - pixels[lonely][1]
    named = views.named_points(figure, PICTURE, Choice())
    at, down, label = min(named["points"], key=lambda point: np.hypot(point[0] - x, point[1] - y))
    assert np.hypot(at - x, down - y) < 1.5 and len(named["points"]) == len(views.embedded.labels)
    found = views.nearest_point(PICTURE, Choice(), x=x + 2, y=y - 2)
    assert found is not None and found.kind == "train"
    assert named["names"][label] == views.run.classes[found.truth(views.run)]
    again = drawing.draw_embedding(views.explainer, views.about(found, Choice()), views.embedded)
    star = again.axes[0].collections[-1].get_offsets()[0]
    assert np.allclose(star, offsets[lonely], atol=1e-4 * np.abs(offsets).max())
    assert views.nearest_point(PICTURE, Choice(), x=1, y=1) is None  # the title


def test_covering_a_part_changes_the_prediction(views: Views) -> None:
    covered = Picture(kind="test", row=3, strokes=np.ones((32, 32, 4), np.float32))
    white = np.full((32, 32, 3), 255, np.uint8)
    assert (covered.image(views.run) == white).all()
    assert not np.allclose(views.probabilities(covered), views.probabilities(PICTURE))
    assert np.allclose(views.probabilities(covered), views.explainer.probabilities(white[None])[0])


def test_uploads_work_without_the_data_set(vit_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "name" / "moved"
    shutil.copytree(vit_run, folder)
    config = OmegaConf.load(folder / "config.yaml")
    config.data.source = {"_target_": "vitexp.data.folder.Folder", "root": str(tmp_path / "gone")}
    OmegaConf.save(config, folder / "config.yaml")
    views = Views(load_explainer(folder))
    views.warm_up()
    drawn = [views.sample(int(row)) for row in views.sample_rows["all"]]
    assert {each.truth(views.run) for each in drawn} == set(range(43)) and drawn[0].kind == "drawn"
    first = views.samples(views.sample_rows["all"][:2])
    assert first.shape == (2, 32, 32, 3) and first.std() > 10
    assert (first[0] == drawn[0].image(views.run)).all()
    assert "These signs are drawn" in views.note and "`data.root=PATH`" in views.note
    assert "data.download" not in views.note  # a folder cannot be downloaded
    mine = tmp_path / "mine.png"
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(mine)
    picture = Picture(kind="file", file=str(mine))
    assert views.probabilities(picture).sum() == pytest.approx(1.0, abs=1e-5)
    by_name = {view.name: view for view in views.views}
    assert by_name["Explanations"].figures["explanations"](picture, Choice()) is not None
    assert by_name["Embeddings"].figures["embedding"](picture, Choice()) is None
    assert "needs the data set" in by_name["Embeddings"].description
    assert by_name["Heads"].figures["head_diversity"](picture, Choice()) is not None
    views.run.classes[0] = "a class of my own"
    other = Views(views.explainer)
    assert not len(other.sample_rows["all"]) and "Upload a picture" in other.note


def test_the_location_of_the_data_applies_to_the_compared_run_too(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for number in range(2 * count):
            image = tmp_path / "before" / split / f"class {number % 2}" / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((32, 32, 3), 20 * number, np.uint8)).save(image)
    small = [each for each in TINY if not each.startswith(("data.train", "data.test"))]
    own = (
        "data=folder",
        f"data.root={tmp_path / 'before'}",
        "data.name=own",
        "augment=none",
        "data.batch_size=4",
        "callbacks=none",
    )
    for seed in (0, 1):
        run(composed(*small, *own, "logger=csv", f"log_dir={tmp_path}", f"seed={seed}"))
    (tmp_path / "before").rename(tmp_path / "now")
    shown, beside = completed_runs(tmp_path)
    choice, typed = Choice(other=str(beside)), [f"data.root={tmp_path / 'now'}"]
    assert Views(load_explainer(shown, typed), typed).confusions(choice) is not None
    with pytest.raises(UserError, match="before"):
        Views(load_explainer(shown, typed)).confusions(choice)


def test_a_run_with_other_classes_is_neither_offered_nor_compared(
    views: Views, vit_run: Path, cnn_run: Path, tmp_path: Path
) -> None:
    loaded = load_run(cnn_run)
    about: Any = {"model": loaded.config.model, "image_size": 32, "mean": loaded.mean, "std": loaded.std}
    logs = tmp_path / "logs"
    for folder in (vit_run, cnn_run):
        shutil.copytree(folder, logs / "name" / folder.name)
    mine = Views(load_explainer(logs / "name" / vit_run.name))
    assert list(mine.others()) == [logs / "name" / cnn_run.name]
    other = logs / "name" / cnn_run.name
    write_weights(other, loaded.net.state_dict(), classes=["x", *loaded.classes[1:]], **about)
    assert not mine.others()
    with pytest.raises(ConfigError, match="different classes"):
        views.side_by_side(PICTURE, Choice(other=str(other)))


def test_a_folder_without_a_run_is_refused(views: Views, vit_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished run"):
        views.side_by_side(PICTURE, Choice(other=str(tmp_path)))


def test_completed_runs_are_listed_newest_first(vit_run: Path, cnn_run: Path, tmp_path: Path) -> None:
    for folder, finished_at in ((cnn_run, "2026-01-02"), (vit_run, "2026-01-03"), (cnn_run, "2026-01-01")):
        copy = Path(shutil.copytree(folder, tmp_path / "logs" / finished_at / folder.name))
        changed = json.loads((folder / "result.json").read_text()) | {"finished_at": finished_at}
        (copy / "result.json").write_text(json.dumps(changed))
    found = [folder.parent.name for folder in completed_runs(tmp_path / "logs")]
    assert found == ["2026-01-03", "2026-01-02", "2026-01-01"]
