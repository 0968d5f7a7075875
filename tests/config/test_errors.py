"""What a user sees after a typo: one sentence, exit code 2, and nothing read or written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitexp.errors import ConfigError

ROOT = Path(__file__).parents[2]


def train(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # plain_errors sets both variables, also in a test that runs a command in this process
    inherited = {key: os.environ[key] for key in os.environ if key not in ("HYDRA_FULL_ERROR", "VITEXP_PLAIN_ERRORS")}
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), f"log_dir={folder}/logs", *overrides],
        cwd=folder,
        env={**inherited, "VITEXP_CACHE": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.batchsize=8", "data.batch_size"),
        ("modle=vit_tiny", "model"),
        ("model=vit_tinny", "vit_tiny"),
        ("optim=adam", "adamw"),
        ("modell.dim=8", "model.dim"),
        ("trainer.max_epoch=3", "trainer.max_epochs"),
        ("model.patch_size=5", "does not divide"),
        ("name='unclosed", "key=value"),
        ("data=folder", "data.root"),
        ("experiment=unheard", "experiment"),
        ("+seed=1", "drop the leading"),
        ("=x", "key=value"),
        ("trainer=1", "must be a string"),
        ("seed=${seed}", "seed: Recursive"),
        ("data.prepare.7.p=0", "index out of range"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_nearest_names(tmp_path: Path, override: str, told: str) -> None:
    ended = train(tmp_path, override)
    assert ended.returncode == 2, ended.stderr
    assert told in ended.stderr
    assert ended.stderr.startswith("vitexp: ")
    assert len(ended.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model=vit_tiny", "model.stem=conf"], "conv"),
        (["augment.rotation=left"], "rotation"),
        pytest.param(["trainer=gpu"], "trainer.accelerator=cpu", marks=pytest.mark.slow),
        (["trainer.precision=half"], "precision"),
        (["trainer.strategy=magic"], "strategy"),
    ],
)
def test_what_only_shows_while_building_is_one_sentence_too(tmp_path: Path, overrides: list[str], told: str) -> None:
    """Nothing was prepared, and no run is left."""
    if "trainer=gpu" in overrides:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
    ended = train(tmp_path, "logger=csv", "callbacks=none", *overrides)
    assert ended.returncode == 2, ended.stderr
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "cache").exists() and not list(tmp_path.glob("logs/*"))


def test_a_traceback_for_those_who_ask(tmp_path: Path) -> None:
    ended = train(tmp_path, "data.batchsize=8", HYDRA_FULL_ERROR="1")
    assert ended.returncode != 0
    assert "Traceback" in ended.stderr


def test_configuration_errors_and_help_do_not_wait_for_torch(tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['train.py', {argument!r}]\n"
        "try: runpy.run_path({script!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    for argument in ("--help", "data.batchsize=8", "optim.lr=-1", "model._target_=no.such.Net"):
        script = code.format(argument=argument, script=str(ROOT / "train.py"))
        ended = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["loss=focal", "loss.gama=2"], "did you mean loss.gamma"),
        (["loss=focal", "augment.policy=x", "augment=none"], "augment.policy' belongs to augment=natural; select it"),
        (
            ["data.source.download=true"],
            "data.source.download' belongs to data=cifar10, data=cifar100, data=gtsrb and data=huggingface",
        ),
        (["model=vit_tiniest"], "--config-dir adds options of your own"),
    ],
)
def test_suggestions_are_those_of_the_selected_options(words: list[str], sentence: str) -> None:
    from vitexp.config.compose import compose

    with pytest.raises(ConfigError, match=sentence):
        compose(words)


@pytest.mark.parametrize(
    ("value", "command"),
    [
        ("photos", "data=folder data.root=photos"),
        ("my photos (new)", "data=folder 'data.root=my photos (new)'"),
        ("{}/photos/", "data=folder data.root={}/photos/"),
    ],
)
def test_a_folder_in_place_of_an_option_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, command: str
) -> None:
    from vitexp.config.compose import compose

    monkeypatch.chdir(tmp_path)
    for name in ("photos", "my photos (new)", "signs"):
        Path(name).mkdir()
    value, command = value.format(tmp_path), command.format(tmp_path)
    with pytest.raises(ConfigError) as caught:
        compose(["seed=1", f"data={value}"])
    assert str(caught.value).startswith(f"data={value} is a folder, not an option; ")
    assert f"write {command}." in str(caught.value)
    with pytest.raises(ConfigError, match="model has no option 'x'"):
        compose(["data=signs", "model=x"])


@pytest.mark.parametrize(("folder", "words"), [("photos", "data.root=photos"), ("my photos", "'data.root=my photos'")])
def test_a_folder_without_a_key_or_without_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, words: str
) -> None:
    from vitexp.config.check import check
    from vitexp.config.compose import compose

    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir()
    with pytest.raises(ConfigError) as caught:
        compose(["seed=1", folder])
    assert str(caught.value) == f"{folder} is a folder; for images in class folders, write data=folder {words}."
    with pytest.raises(ConfigError, match=r"experiment has no option 'own_image'; did you mean own_images|own_images"):
        compose(["experiment=own_image"], config_dir=folder)
    with pytest.raises(ConfigError) as caught:
        check(compose([f"data.root={folder}"]))
    assert str(caught.value).endswith(f"has no folder; for images in class folders, write data=folder {words}.")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["data.root", "=", "photos"], "data=folder data.root=photos"),
        (["data.root=", "photos", "seed=1"], "data=folder data.root=photos"),
        (["data=folder", "data.root", "=photos"], "data.root=photos"),
        (["data", "=", "folder", "data.root", "=", "photos"], "data=folder data.root=photos"),
        (["seed=1", "optim.lr", "=0.1", "name=", "x"], "optim.lr=0.1 name=x"),
        (["--config-dir", "conf", "seed", "=", "1"], "seed=1"),
    ],
)
def test_spaces_around_an_equals_sign(words: list[str], meant: str) -> None:
    from vitexp.commands.words import options_first

    with pytest.raises(ConfigError) as caught:
        options_first("train", words)
    assert str(caught.value) == f"there are spaces around an equals sign; write {meant}"


@pytest.mark.parametrize("words", [["name=", "seed=1"], ["=", "x"], ["--cfg", "job"], ["name=", "--cfg", "job"]])
def test_other_words_with_an_equals_sign(words: list[str]) -> None:
    from vitexp.commands.words import options_first

    assert sorted(options_first("train", words)) == sorted(words)


def test_spaces_in_the_words_of_another_command() -> None:
    from vitexp.commands.words import read_words

    with pytest.raises(ConfigError, match="spaces around an equals sign; write images=new"):
        read_words(["run=x", "images", "=", "new"], keys=("images", "run"))


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["data=folder", "data.root=my", "photos"], "'data.root=my photos'"),
        (["data.root=my", "photos", "of", "2024", "seed=1"], "'data.root=my photos of 2024'"),
        (["seed=1", "--config-dir", "my", "photos"], "'my photos'"),
        (["data.root=your", "photos"], None),
        (["data.root=my photos", "seed=1"], None),
    ],
)
def test_a_path_that_the_shell_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], quoted: str | None
) -> None:
    from vitexp.commands.words import options_first

    monkeypatch.chdir(tmp_path)
    for name in ("my photos", "my photos of 2024"):
        Path(name).mkdir()
    if quoted is None:
        options_first("train", words)  # Hydra explains other words without a key
        return
    with pytest.raises(ConfigError) as caught:
        options_first("train", words)
    assert str(caught.value).endswith(f" contains spaces; quote it: {quoted}")


def test_a_missing_folder_of_options_is_refused() -> None:
    from vitexp.config.compose import compose

    with pytest.raises(ConfigError, match="config_dir=nowhere is not a folder"):
        compose([], config_dir="nowhere")


@pytest.mark.parametrize(
    ("urls", "missing"),
    [
        ("[file:///nowhere]", "file:///nowhere: folder /nowhere does not exist"),
        ("nowhere", "nowhere: folder nowhere does not exist"),
        ("[file://{},pkg://no.such.package]", "pkg://no.such.package: package no.such.package does not exist"),
        ("[file://{},{},pkg://json]", None),
    ],
)
def test_a_missing_folder_of_the_searchpath(tmp_path: Path, urls: str, missing: str | None) -> None:
    """Hydra ignores it, and with it the options that it should add."""
    from vitexp.commands.words import options_first
    from vitexp.config.compose import compose

    words = [f"hydra.searchpath={urls.format(tmp_path, tmp_path)}"]
    if missing is None:
        assert options_first("sweep", words) == words
        return
    for read in (compose, lambda words: options_first("train", words)):
        with pytest.raises(ConfigError) as caught:
            read(words)
        assert str(caught.value).startswith(f"hydra.searchpath={missing}; correct")


def test_options_may_stand_between_overrides() -> None:
    from vitexp.commands.words import options_first

    words = ["model=vit_tiny", "--config-dir", "conf", "loss=bce", "-m", "seed=1,2"]
    assert options_first("train", words) == ["--config-dir", "conf", "-m", "model=vit_tiny", "loss=bce", "seed=1,2"]
