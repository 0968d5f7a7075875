"""Errors that files can tell are reported before torch is imported and before a run folder is made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONF, TINY, composed
from vitexp import errors
from vitexp.commands import app, evaluate, explain, predict, runs
from vitexp.data.folder import Folder
from vitexp.errors import ConfigError, UserError
from vitexp.runs.find import read_finished, requested_run
from vitexp.runs.inputs import check_inputs
from vitexp.runs.record import TRIAL_LOCK
from vitexp.runs.resume import resumed, run_to_resume
from vitexp.sweeps.grid import plan
from vitexp.system.disk import refuse_unwritable_folder

SHIPPED = CONF.parent / "vitexp" / "runs" / "shipped" / "gtsrb"
RELEASED = CONF.parent / "tests" / "released" / "2026-11-26" / "run"
# config.yaml, result.json and weights with the ViT of model=vit_tiny_conv


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for folder in ("one/a", "faulty/a", "faulty/b", "faulty/c"):
        Path(folder).mkdir(parents=True)
    Path("faulty/a/1.png").touch()
    Path("my photos").mkdir()
    Path("noise.safetensors").write_bytes(b"\xff" * 100)
    Path("file").touch()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("data=folder data.root=nowhere", "folder nowhere does not exist; set data.root"),
        ("data=folder data.root=empty", "empty contains no class folder"),
        ("data=folder data.root=one", "one contains a single class folder, a"),
        ("data=folder data.root=faulty", r"2 class folders .*, b \(empty\) and c \(empty\); .* class a has 1 image in"),
        ("data=gtsrb", "GTSRB training images .*, test images and labels .* are missing.*data.download=true"),
        ("data=cifar10", "cifar10 is missing.*data.download=true"),
        ("data=cifar100 data.root=one", "cifar100 is missing: one/cifar-100-python does not exist"),
        ("model.weights=nowhere", "there is no nowhere; give pretrained"),
        ("model.weights=pretraind", r"there is no pretraind; did you mean pretrained\?$"),
        ("model.weights=imagenet-1k", r"did you mean imagenet1k\?$"),
        ("model.weights=empty", "there is no empty/model.safetensors"),
        ("model.weights=noise.safetensors", "cannot be read as weights"),
        (f"model.weights={SHIPPED} model=vit_tiny", "needs model.stem=conv, but this model has patch"),
        (f"model.weights={SHIPPED} model.dim=96", "needs model.dim=192, but this model has 96"),
        (f"model.weights={SHIPPED} model.mlp_ratio=2.0", "needs model.mlp_ratio="),
        (f"model.weights={SHIPPED} model.layer_scale=1e-4", "needs model.layer_scale=null"),
        ("model.weights=imagenet1k", "is published for .*not for this model"),
        ("training.teacher=nowhere", "training.teacher=nowhere: .* is not a finished run"),
        ("training.teacher=one", "training.teacher=one: .* is not a finished run"),
        ("resume=nowhere", "is not a run folder"),
        ("log_dir=/proc/here", r"log_dir: cannot write to /proc .*choose another"),
    ],
)
def test_unusable_files_are_refused(words: str, sentence: str) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError, match=sentence):
        check_inputs(composed(*words.split()))
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        "data=signs",
        "data=gtsrb data.download=true",
        f"model.weights={SHIPPED}",
        f"model.weights={SHIPPED} model.pool=gap model.drop_path=0.1",
        "data=folder data.root=two",
    ],
)
def test_what_may_work_is_accepted(words: str) -> None:
    for label in "ab":
        Path("two", label).mkdir(parents=True)
        for number in range(3):
            Path("two", label, f"{number}.png").touch()
    check_inputs(composed(*words.split()))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    check_inputs(composed("logger=csv"))
    with pytest.raises(ConfigError, match=r"logger=tensorboard needs one more package: pip install tensorboard"):
        check_inputs(composed("logger=tensorboard"))
    with pytest.raises(ConfigError, match=r"export=onnx needs one more package: pip install onnx"):
        evaluate.parse(["export=onnx", f"run={SHIPPED}"])


def test_errors_in_files_do_not_wait_for_torch_and_leave_no_folder(tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['train.py', *{words!r}]\n"
        "try: runpy.run_path({script!r}, run_name='__main__')\n"
        "except SystemExit as ended: assert ended.code == 2, ended.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    for words in (["data=gtsrb"], ["data=folder", "data.root=faulty"], [f"model.weights={SHIPPED}", "model=vit_tiny"]):
        script = code.format(words=words, script=str(CONF.parent / "train.py"))
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1
        assert ended.stdout == ""
    assert not Path("logs").exists()


def started_from(run: Path, *words: str) -> str:
    """Return the message with which the config.yaml of a run is refused."""
    command = [sys.executable, str(CONF.parent / "train.py"), "--config-dir", str(run), "--config-name", "config"]
    ended = subprocess.run([*command, *words], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and ended.stdout == ""
    return ended.stderr


def test_the_configuration_of_a_run_of_an_earlier_version_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundled one was written before there was a group loss."""
    monkeypatch.chdir(tmp_path)
    assert "GTSRB training images" in started_from(SHIPPED, "trainer.max_epochs=1", "training.mixup_alpha=0.1")


def test_an_option_for_the_configuration_of_a_run_names_the_command_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = started_from(SHIPPED, "trainer=debug", "seed=1")
    assert "trainer=debug selects an option, but the config.yaml of a run has only values; " in refused
    assert "experiment=gtsrb_best logger=csv trainer=debug seed=1 starts this run with it." in refused
    shutil.copytree(SHIPPED, "repeated")
    record = json.loads(Path("repeated/result.json").read_text())
    for change in ({"options": ["--config-dir", "x", "--config-name", "config"]}, {"overrides": []}):
        Path("repeated/result.json").write_text(json.dumps(record | change))
        refused = started_from(Path("repeated"), "model=vit_small")
        assert refused.endswith("only values; change single values, such as model.KEY=VALUE.\n")


def test_a_sweep_checks_the_files_of_its_trials_before_they_run() -> None:
    words = ["optim.lr=1e-3,1e-4", "model.weights=nowhere"]
    with pytest.raises(ConfigError, match=r"'optim\.lr=0\.001': model.weights=nowhere: there is no nowhere"):
        plan(Path("sweep"), ablation=None, arguments=words, check_inputs=True)
    assert len(plan(Path("sweep"), ablation=None, arguments=words).trials) == 2


def test_a_sweep_lists_the_files_of_a_data_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(Folder, "refuse_unusable", lambda self, **_: checked.append(self.root))
    words = ["optim.lr=1e-3,1e-4,1e-5", "data=folder", "data.root=one,empty"]
    assert len(plan(Path("sweep"), ablation=None, arguments=words, check_inputs=True).trials) == 6
    assert checked == [Path("one"), Path("empty")]


@pytest.mark.parametrize(
    ("main", "words", "sentence"),
    [
        (evaluate.main, ["run=one"], "is not a finished run"),
        (evaluate.main, ["run=newst"], r"run=newst is not a folder; did you mean newest\?$"),
        (predict.main, ["images=my", "photos"], r"the path 'my photos' contains spaces; quote it: 'images=my photos'$"),
        (
            evaluate.main,
            [f"run={SHIPPED}", "data=empty"],
            r"data=empty is a folder, .* data=folder data\.root=empty\.$",
        ),
        (evaluate.main, [f"run={SHIPPED}"], "GTSRB test images and labels of the test images are missing"),
        (evaluate.main, [f"run={SHIPPED}", "data=folder", "data.root=nowhere"], "folder nowhere does not exist"),
        (evaluate.main, [f"run={SHIPPED}", "data=folder", "data.root=empty"], "empty contains no class folder"),
        (evaluate.main, [f"run={SHIPPED}", "data=folder", "data.root=faulty"], "2 class folders"),
        (evaluate.main, [f"run={SHIPPED}", "out=file/x"], "out: cannot write to"),
        (explain.main, ["run=one"], "is not a finished run"),
        (explain.main, [f"run={SHIPPED}", "run2=one"], "is not a finished run"),
        (explain.main, [f"run={SHIPPED}"], "GTSRB training images"),
        (explain.main, [f"run={SHIPPED}", "image=noise.safetensors"], "noise.safetensors"),
        (predict.main, ["run=one", "images=empty"], "empty contains no images"),
        (app.main, ["run=one"], "is not a finished run"),
        (app.main, [f"run={SHIPPED}", "data.root=nowhere"], "GTSRB training images"),
    ],
)
def test_commands_refuse_unusable_files(
    main: Any, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: True)
    with pytest.raises(UserError, match=sentence):
        main(words)


def test_the_newest_run_is_named_with_data_model_accuracy_and_date(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("old", "debug"):
        shutil.copytree(SHIPPED, Path("logs/gtsrb") / name)
    record = json.loads(Path("logs/gtsrb/debug/result.json").read_text())
    record |= {"finished_at": "2999-01-01T00:00:00+00:00", "debug": True}
    Path("logs/gtsrb/debug/result.json").write_text(json.dumps(record))
    accuracy = f"{record['metrics']['test']['accuracy']:.2%}"
    for words in ([], ["run=newest"]):
        with pytest.raises(UserError, match="GTSRB"):  # the images are missing
            evaluate.main(words)
        first, second = capsys.readouterr().out.splitlines()[:2]
        assert first == "run       logs/gtsrb/old"
        assert second.startswith(f"          gtsrb, vit_tiny_conv, {accuracy} test accuracy, 20")
    assert read_finished("logs/gtsrb/debug").describe().endswith("2999-01-01 00:00, debug run")


def test_a_trial_of_a_sweep_is_called_that(capsys: pytest.CaptureFixture[str]) -> None:
    trial = Path(shutil.copytree(SHIPPED, "logs/models-gtsrb/0123456789ab"))
    for words in ([], ["run=models-gtsrb/0123456789ab"]):
        (trial / TRIAL_LOCK).touch()
        with pytest.raises(UserError, match="GTSRB"):  # the images are missing
            explain.main(words)
        assert capsys.readouterr().out.splitlines()[1].endswith(", a trial of the sweep models-gtsrb")
        (trial / TRIAL_LOCK).unlink()
        assert "trial" not in read_finished(trial).describe()


def test_a_run_may_be_named_as_it_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is without the folder of the logs."""
    for folder in ("logs/paper/a", "more/b"):
        shutil.copytree(RELEASED, f"{folder}/1")
        runs.main([f"log_dir={folder.partition('/')[0]}"])
        assert capsys.readouterr().out.splitlines()[1].startswith(f"{folder.partition('/')[2]}/1 ")
    found = Path("logs/paper/a/1")
    assert requested_run("paper/a/1") == app.parse(["run=paper/a/1"])[0] == found
    explained = explain.parse(["run=paper/a/1", "run2=paper/a/1"])
    assert (explained["folder"], explained["other"]) == (found, found)
    assert evaluate.parse(["run=b/1", "log_dir=more"])["folder"] == Path("more/b/1")
    with pytest.raises(ConfigError, match="run=b/1 is not a folder"):
        evaluate.parse(["run=b/1"])
    with pytest.raises(ConfigError, match=r"run=paper/a is a folder of runs; .* run=logs/paper/a/1\.$"):
        evaluate.parse(["run=paper/a"])
    for key, name, log_dir in (("model.weights", "paper/a/1", "logs"), ("training.teacher", "b/1", "more")):
        check_inputs(composed(*TINY, "model.depth=1", f"{key}={name}", f"log_dir={log_dir}"))
        with pytest.raises(ConfigError, match=f"{key}={name}"):
            check_inputs(composed(*TINY, f"{key}={name}", "log_dir=empty"))
    plan(Path("more/sweep"), ablation=None, arguments=[*TINY, "training.teacher=b/1"], check_inputs=True)
    words = ["resume=b/1", "log_dir=more"]
    config = resumed(composed(*words), words, lambda words: composed(*words))
    assert run_to_resume(config) == Path("more/b/1").resolve()
    with pytest.raises(ConfigError, match="more/b/1 has a different configuration"):
        run_to_resume(composed(*words))


def test_a_path_that_exists_is_not_a_name_of_the_list(tmp_path: Path) -> None:
    for folder in ("logs/a/1", "a/1"):
        Path(folder).mkdir(parents=True)
    assert requested_run("a/1") == Path("a/1")
    assert requested_run(str(tmp_path / "a" / "1")) == tmp_path / "a" / "1"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    refuse_unwritable_folder(tmp_path / "a" / "b", key="log_dir")
    assert not (tmp_path / "a").exists()
    with pytest.raises(UserError, match=r"log_dir: cannot write to /proc"):
        refuse_unwritable_folder(Path("/proc/nowhere"), key="log_dir")
