"""The figures of vitexp explain for tiny runs, and what it refuses."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import vitexp
from tests.conftest import TINY, composed, tiny_run
from vitexp.errors import ConfigError, UserError
from vitexp.runs.explained import _Page, explain_run, find_class, index_of, positions_before
from vitexp.runs.finished import load_run
from vitexp.runs.run import run
from vitexp.system.disk import checksum

EVERYWHERE = {"explanations", "explanations_raw", "classes", "filters", "embedding_pca", "faithfulness"}
OF_A_VIT = {
    *("patches", "head_diversity", "position_embedding"),
    *("attention_layers", "attention_layers_raw", "attention_heads", "attention_heads_raw"),
}
FEW = ("callbacks=none", "trainer.limit_train_batches=1", "data.image_size=32")


@pytest.fixture(scope="module")
def vit_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("vit"), *FEW, "model.pool=gap")


@pytest.fixture(scope="module")
def cnn_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cnn")
    few = [each for each in TINY if not each.startswith("model")]
    run(composed(*few, *FEW, "model=simple_cnn", "logger=csv", f"log_dir={folder}"))
    [made] = folder.glob("*/*")
    return made


def written(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.png") if Image.open(file).size[0] == 1080}


@pytest.mark.slow
def test_two_runs_side_by_side(vit_run: Path, cnn_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain_run(vit_run, other=cnn_run, images=6, shown=3, embedded=40)
    folder = vit_run / "figures" / "explain"
    assert {*EVERYWHERE, *OF_A_VIT, "comparison", "confusions"} <= written(folder)
    rows = list(csv.DictReader((folder / "faithfulness.csv").open()))
    assert {row["explanation"] for row in rows} == {
        *("attention", "rollout", "relevance", "Grad-CAM", "occlusion", "random order"),
    }
    assert all(row["images"] == "6" and 0 <= float(row["deletion_auc"]) <= 1 for row in rows)
    order = [float(row["insertion_minus_deletion"]) for row in rows]
    assert order == sorted(order, reverse=True)
    table = (folder / "faithfulness.md").read_text()
    printed = capsys.readouterr().out
    assert len(table.splitlines()) == 8 and "|" not in printed
    assert all(row["explanation"] in printed for row in rows)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_are_printed_for_people_and_whole(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("relevance", "[a] long name of an explanation | of someone")
    rows = [{"explanation": name, "insertion AUC (high is good)": "0.123 ± 0.012", "images": "100"} for name in names]
    _Page(tmp_path).add_table("faithfulness", rows, text="| Markdown |\n")
    printed = capsys.readouterr().out
    assert (tmp_path / "faithfulness.md").read_text() == "| Markdown |\n" and "Markdown" not in printed
    assert printed.count("0.123 ± 0.012") == 2 and "[a] long" in printed and "…" not in printed
    assert max(map(len, printed.splitlines())) <= width


def test_positions_before_training(vit_run: Path, cnn_run: Path, tmp_path: Path) -> None:
    trained = load_run(vit_run)
    built = vitexp.build(trained.config)[1].net.pos_embed
    before = positions_before(trained)
    assert torch.equal(before, built) and not torch.equal(before, trained.net.pos_embed)
    assert positions_before(load_run(cnn_run)) is None
    weights = {"from": str(vit_run), "sha256": checksum(vit_run / "model.safetensors")}
    tuned = replace(trained, result={"model": {"weights": weights}})
    assert torch.equal(positions_before(tuned), trained.net.pos_embed)
    for gone in ({"from": str(tmp_path)}, {"from": "augreg_ti16"}, {"sha256": "other"}):
        assert positions_before(replace(trained, result={"model": {"weights": weights | gone}})) is None


def test_a_cnn(cnn_run: Path) -> None:
    explain_run(cnn_run, images=2, shown=1, embedded=20)
    folder = cnn_run / "figures" / "explain"
    made = written(folder)
    assert made >= EVERYWHERE and not made & OF_A_VIT
    names = [row["explanation"] for row in csv.DictReader((folder / "faithfulness.csv").open())]
    assert sorted(names) == ["Grad-CAM", "occlusion", "random order"]


def test_an_image_file(vit_run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "mine.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(picture)
    explain_run(vit_run, image=picture, embedded=20, layer=1, head=2, label="Stop")
    made = written(vit_run / "figures" / "explain" / "mine")
    assert made >= (EVERYWHERE | OF_A_VIT) - {"faithfulness"} and "faithfulness" not in made


def test_arguments_that_do_not_fit_the_run_are_refused(vit_run: Path, cnn_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layer=3 is too large: this network has 2;"):
        explain_run(vit_run, layer=3)
    with pytest.raises(
        ConfigError, match="head=1 selects a part of the attention of a ViT, which this network is not; remove head"
    ):
        explain_run(cnn_run, head=1)
    with pytest.raises(ConfigError, match="class=Stopp"):
        explain_run(vit_run, label="Stopp")
    with pytest.raises(UserError, match="not a finished run"):
        explain_run(tmp_path)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(UserError, match=r"text\.png"):
        explain_run(vit_run, image=text)


def test_runs_with_different_test_sets_are_refused_before_drawing(vit_run: Path, tmp_path: Path) -> None:
    another = Path(shutil.copytree(vit_run, tmp_path / "another"))
    config = OmegaConf.load(another / "config.yaml")
    config.data.source.test_per_class += 1
    OmegaConf.save(config, another / "config.yaml")
    folder = vit_run / "figures" / "explain"
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*")}
    with pytest.raises(ConfigError, match="different test set"):
        explain_run(vit_run, other=another)
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*")} == before


def test_classes_by_name_and_number() -> None:
    names = ["Stop", "Yield", "7"]
    assert [find_class(word, names) for word in ("yield", "0", "7")] == [1, 0, 2]
    with pytest.raises(ConfigError, match="from 0 to 2"):
        find_class("3", names)
    assert find_class("a", ["A", "a"]) == 1
    with pytest.raises(ConfigError, match=r"nor a class name; the nearest is Yield\."):
        find_class("Yeild", names)
    with pytest.raises(
        ConfigError, match="class=0 is not a class name; the classes are 1"
    ):  # it is not the first class
        find_class("0", ["1", "2"])


def test_layers_count_from_one() -> None:
    assert index_of("layer", 6, 6) == 5
    assert index_of("layer", 0, 6) is None
