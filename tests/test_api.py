"""The Python API: trained, loaded and used as in the README."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vitexp
from tests.conftest import TINY, result
from vitexp.errors import ConfigError, UserError
from vitexp.runs.launcher import PARENT, RUN_FOLDER


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> vitexp.Run:
    logs = tmp_path_factory.mktemp("logs")
    return vitexp.train(*TINY, "callbacks=none", "logger=csv", f"log_dir={logs}")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(path)
    return path


def test_importing_is_fast_and_imports_nothing() -> None:
    probe = "import time; start = time.perf_counter(); import vitexp; print(time.perf_counter() - start)\n"
    probe += "import sys; assert not {'torch', 'hydra', 'numpy'} & sys.modules.keys(); vitexp.__version__"
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert float(ended.stdout) < 0.1


def test_a_source_tree_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert not hasattr(vitexp, "__version__")


def test_a_trained_run(run: vitexp.Run) -> None:
    assert run.metrics == result(run.folder)["metrics"]
    assert result(run.folder)["overrides"][0] == TINY[0]
    assert repr(run).startswith("Run(signs-vit_tiny, seed 0, ") and "\n" not in repr(run)
    again = vitexp.load(run.folder)
    assert again.metrics == run.metrics and again.result["run_id"] == run.result["run_id"]


def test_predictions_are_those_of_the_test(run: vitexp.Run) -> None:
    recorded = [line.split(",") for line in (run.folder / "predictions.csv").read_text().splitlines()]
    test = run.data.source.split("test")
    predicted = run.predict([test.read(index) for index in range(len(test))])
    assert recorded == [
        ["index", "true", "predicted", "probability"],
        *(
            [str(index), run.classes[test.labels[index]], each.name, f"{each.probability:.6f}"]
            for index, each in enumerate(predicted)
        ),
    ]


def test_every_kind_of_image(run: vitexp.Run, photo: Path) -> None:
    with Image.open(photo) as image:
        given: list[Any] = [str(photo), photo, image.convert("RGB"), np.asarray(image.convert("RGB"))]
    first, *others = (run.predict(each) for each in given)
    assert all(np.array_equal(first.probabilities, each.probabilities) for each in others)
    assert first.probabilities.sum() == pytest.approx(1)
    assert first.top(3)[0] == (first.name, first.probability)
    assert repr(first).startswith(f"Prediction({first.name!r}, ")
    [in_folder] = run.predict(photo.parent)
    assert in_folder.file == str(photo)
    with pytest.raises(UserError, match=r"must be uint8 \[H, W, 3\], not float64"):
        run.predict(np.zeros((8, 8, 3)))
    photo.write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"photo\.png"):
        run.predict(photo)
    with pytest.raises(UserError, match=r"no image in .* could be decoded: photo\.png"):
        run.predict(photo.parent)
    Image.new("RGB", (8, 8)).save(photo.parent / "other.png")
    (photo.parent / "third.pcx").touch()
    with pytest.warns(match=r"not read: .*photo\.png and .*third\.pcx"):
        assert len(run.predict(photo.parent)) == 1  # type: ignore[arg-type]
    with pytest.warns(match=r"not read: .*photo\.png and .*third\.pcx"):
        assert len(run.explain(photo.parent).images) == 1
    photo.unlink()
    with pytest.warns(match=r"not read: .*third\.pcx"):
        assert len(run.explain(photo.parent).images) == 1


def test_explanations(run: vitexp.Run, photo: Path) -> None:
    explanation = run.explain([photo, photo], label=3)
    assert explanation.images.shape == (2, 32, 32, 3) and len(explanation.maps) == 2
    assert explanation.labels == [3, 3]
    assert np.array_equal(explanation.predictions[1].probabilities, run.predict([photo, photo])[1].probabilities)
    assert explanation._repr_png_().startswith(b"\x89PNG")
    assert repr(explanation) == "Explanation(relevance of 2 images)"
    with pytest.raises(UserError, match="method=x must be one of attention, rollout, relevance"):
        run.explain(photo, method="x")
    with pytest.raises(UserError, match="label=43 must be a class number from 0 to 42"):
        run.explain(photo, label=43)


def test_evaluating_on_other_data(run: vitexp.Run, tmp_path: Path) -> None:
    for name in ("train/0", "train/1", "test/0", "test/1"):
        folder = tmp_path / "my photos, 2" / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 40), (number, 0, 0)).save(folder / f"{number}.png")
    evaluation = run.evaluate(data="folder", root=tmp_path / "my photos, 2", out=tmp_path / "out")
    assert evaluation["data"]["images"] == 4
    assert (tmp_path / "out" / "predictions.csv").read_text().count("\n") == 5


def test_a_configuration_is_checked_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.num_heads=5 does not divide"):
        vitexp.train("model=vit_tiny", "model.num_heads=5", f"log_dir={tmp_path}")
    assert not list(tmp_path.iterdir())
    assert vitexp.compose("data=cifar10").data.name == "cifar10"


def test_settings_in_another_form_are_refused_with_the_right_one(run: vitexp.Run) -> None:
    functions: dict[str, Any] = {name: getattr(vitexp, name) for name in ("train", "pretrain", "compose")}
    for name, function in functions.items():
        for given, keys in (
            ((), {"data": "folder", "seed": 3}),
            (("data=folder",), {"seed": 3}),
            ((["data=folder", "seed=3"],), {}),
            (({"data": "folder", "seed": 3},), {}),
        ):
            with pytest.raises(ConfigError) as caught:
                function(*given, **keys)
            assert str(caught.value).endswith(f': vitexp.{name}("data=folder", "seed=3").')
    build: Any = vitexp.build
    with pytest.raises(ConfigError, match=r"build\('data=folder'\): give the configuration that"):
        build("data=folder")
    evaluate: Any = run.evaluate
    with pytest.raises(UserError, match=r'by name: run\.evaluate\(data="folder", root="photos"\)'):
        evaluate("data=folder", "data.root=photos")
    with pytest.raises(ConfigError, match=r"did you mean data\.root"):
        run.evaluate(data="folder", rooot="photos")


def test_a_configuration_for_another_trainer(run: vitexp.Run) -> None:
    datamodule, module = vitexp.build(vitexp.compose(*TINY))
    images, labels = next(iter(datamodule.train_dataloader()))
    assert images.shape == (32, 32, 32, 3) and labels.shape == (32,)
    again = vitexp.build(vitexp.compose(*TINY))[1].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in module.state_dict().items())


def test_resuming_keeps_the_overrides_of_the_run(run: vitexp.Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "signs-vit_tiny" / "copied"))
    longer = vitexp.train(f"resume={folder}", "trainer.max_epochs=2")
    assert longer.folder == folder
    assert (longer.result["epochs"], longer.config.model.dim) == (2, 16)


def test_pretraining_returns_the_weights_for_a_classifier(tmp_path: Path) -> None:
    words = [*TINY, "callbacks=none", "logger=csv", f"log_dir={tmp_path}", "checkpoint.monitor=null"]
    folder = vitexp.pretrain(*words)
    assert result(folder)["status"] == "completed" and (folder / "model.safetensors").is_file()
    with pytest.raises(ConfigError, match=r"does not train a classifier; use vitexp\.pretrain"):
        vitexp.train("task=mae", *words)
    with pytest.raises(ConfigError, match=r"needs labels; use vitexp\.train"):
        vitexp.pretrain("task=classification", *words)
    assert len(list(tmp_path.glob("*/*/result.json"))) == 1
    assert vitexp.compose(*TINY, f"model.weights={folder}").model.weights == str(folder)


def test_another_process_of_a_distributed_run_ends_with_it(
    run: vitexp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "copied"))
    monkeypatch.setenv(RUN_FOLDER, str(folder))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(PARENT, "1")
    monkeypatch.setattr("vitexp.runs.lifecycle.die_with", lambda parent: None)
    with pytest.raises(SystemExit) as ended:
        vitexp.train(*TINY, "seed=5")
    assert ended.value.code == 2
    assert "started for a run with a different configuration" in (folder / ".failed-process-1").read_text()
    monkeypatch.setattr("vitexp.runs.run._train_and_test", lambda *given: None)
    with pytest.raises(SystemExit) as ended:
        vitexp.train(*run.result["overrides"])
    assert not ended.value.code
