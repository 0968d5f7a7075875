"""The examples of .readme/extending.md, all together in every command."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import CONF, result
from vitexp.commands import evaluate, explain, predict
from vitexp.errors import ConfigError

GUIDE = (CONF.parent / ".readme" / "extending.md").read_text()
# The command of the guide that uses every example.
[EVERYTHING] = re.findall(r"vitexp train --config-dir conf (model=tempered data=stripes .*)", GUIDE)
SMALL = (
    *("data.per_class=10", "data.batch_size=8", "data.num_workers=0", "data.val_fraction=0.2"),
    *("model.dim=16", "model.depth=2", "model.num_heads=2", "model.patch_size=8"),
    *("trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the guide, as the working directory."""
    folder = tmp_path_factory.mktemp("project")
    for path, content in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", GUIDE, re.S):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def run(project: Path) -> Path:
    """A run with every example of the guide."""
    import vitexp

    few = ("callbacks.explanations.images=1", "callbacks.explanations.measured=2", "callbacks.embedding.training=10")
    return vitexp.train(*EVERYTHING.split(), *SMALL, *few, config_dir="conf").folder


def test_every_example_takes_part_in_a_run(run: Path) -> None:
    config = (run / "config.yaml").read_text()
    for name in ("model.TemperedViT", "data.Stripes", "augment.Brightness", "loss.Poly1", "optimizer.SignSGD"):
        assert f"_target_: mine.{name}\n" in config
    for name in ("schedule.Power", "callback.ConfidenceHistogram", "logger.JsonLines", "task.Doubtful"):
        assert f"_target_: mine.{name}\n" in config
    assert result(run)["status"] == "completed"
    assert (run / "figures" / "confidences.png").exists()
    assert "Predicted probabilities of the test images." in (run / "report.html").read_text()
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("val/accuracy" in line for line in logged)


def test_evaluate_on_the_own_and_on_an_external_data_set(run: Path, tmp_path: Path) -> None:
    evaluate.main([f"run={run}", f"out={tmp_path}", "device=cpu"])
    metrics = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]
    assert metrics["accuracy"] == result(run)["metrics"]["test"]["accuracy"]
    other = ["data=stripes", "data.per_class=5", "--config-dir", "conf"]
    evaluate.main([f"run={run}", f"out={tmp_path / 'other'}", "device=cpu", *other])
    with open(tmp_path / "other" / "predictions.csv") as file:
        assert len(list(csv.DictReader(file))) == 15


def test_the_python_api(run: Path, tmp_path: Path) -> None:
    import vitexp

    loaded = vitexp.load(run)
    assert loaded.evaluate(data="stripes", per_class=5, config_dir="conf", out=tmp_path)["data"]["images"] == 15
    assert loaded.explain(np.zeros((30, 30, 3), np.uint8)).maps.shape[0] == 1


def test_predict(run: Path, tmp_path: Path) -> None:
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 256, (50, 30, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    predict.main([f"run={run}", f"images={tmp_path}", f"out={tmp_path / 'out.csv'}", "device=cpu"])
    with open(tmp_path / "out.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png"]
    assert all(row["class"] in ("horizontal", "diagonal", "vertical") for row in rows)


def test_explain(run: Path) -> None:
    explain.main([f"run={run}", "images=2", "shown=1", "embedded=10"])
    drawn = {path.stem for path in (run / "figures" / "explain").glob("*.png")}
    assert {"attention_heads", "explanations", "faithfulness", "embedding_pca"} <= drawn


def test_the_app_shows_the_run(run: Path) -> None:
    from vitexp.app.picture import Picture
    from vitexp.app.views import Choice, Views
    from vitexp.runs.explained import load_explainer

    views = Views(load_explainer(run))
    assert views.probabilities(Picture(kind="test", row=0)).shape == (3,)
    assert views.views[0].figures["explanations"](Picture(kind="test", row=0), Choice()) is not None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=tempered", "model.temperature=0"], "model.temperature=0 must be a number above 0"),
        (["model=tempered", "model.num_heads=5"], "does not divide"),
        (["data=stripes", "data.per_class=2"], "per_class=2 must be an integer of 5 or more"),
        (["loss=poly", "+loss.epsilom=1"], "there is no key 'loss.epsilom' of mine.loss.Poly1; the nearest is epsilon"),
        (["task=doubtful", "task.penalty=high"], "task.penalty=high must be a number of 0 or more"),
    ],
)
def test_wrong_options_are_refused(project: Path, words: list[str], sentence: str) -> None:
    import vitexp

    with pytest.raises(ConfigError, match=re.escape(sentence)):
        vitexp.compose(*words, config_dir="conf")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "train --config-dir conf model=tempered data=stripes --help",
        "sweep --config-dir conf model=tempered data=stripes augment=brightness model.temperature=1,2 engine=local "
        "callbacks=none logger=csv",
        "bench --config-dir conf what=step model=tempered data=stripes repeats=1 steps=1",
    ],
)
def test_other_commands_in_a_process(project: Path, command: str) -> None:
    name, *words = command.split()
    small = () if "--help" in words else [each for each in SMALL if name != "bench" or not each.startswith("trainer.")]
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "vitexp", name, *words, *small],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if name == "sweep":
        assert all(result(path.parent)["status"] == "completed" for path in project.glob("logs/**/result.json"))
    if "--help" in words:
        assert "divides the logits" in done.stdout
