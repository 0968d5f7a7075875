"""An attempt to resume starts from the run's own config.yaml, and changes its record only once it can start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import TINY, composed, result
from tests.forked import Server
from vitexp.config.renames import read_config
from vitexp.errors import UserError
from vitexp.runs.lifecycle import open_run
from vitexp.runs.record import RunRecord
from vitexp.runs.resume import resumed, run_to_resume, why_not_resumed


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two classes of eight images each."""
    folder = tmp_path_factory.mktemp("photos")
    for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (folder / name).mkdir()
        for number in range(8):
            Image.new("RGB", (16, 16), tuple(value - number for value in color)).save(folder / name / f"{number}.png")
    return folder


def options(folder: Path, photos: Path) -> list[str]:
    words = [word for word in TINY if "per_class" not in word]
    data = ("data=folder", f"data.root={photos}", "data.batch_size=4")
    return [*words, *data, "logger=csv", "callbacks=none", f"log_dir={folder}"]


def files(run: Path) -> dict[str, bytes]:
    """Return the content of all files of a run, which a failed attempt may not change."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_an_attempt_that_cannot_start_leaves_the_completed_record(server: Server, photos: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(photos, images)
    arguments = ["data.cache_dir=" + str(tmp_path / "cache"), "run_id=done", "name=n"]
    assert server.train(tmp_path / "log", *options(tmp_path, images), *arguments) == 0, (tmp_path / "log").read_text()
    run = tmp_path / "n" / "done"
    before = files(run)
    images.rename(tmp_path / "away")
    assert server.train(tmp_path / "log", f"resume={run}", "trainer.max_epochs=3", "data.cache_dir=/tmp") == 2
    assert files(run) == before
    (tmp_path / "away").rename(images)
    written = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(written.replace("depth: 2", "depth: 3"))
    (run / "checkpoints" / "next.ckpt").write_bytes(b"damaged")
    before = files(run)
    assert server.train(tmp_path / "log", f"resume={run}", "trainer.max_epochs=3") == 2
    assert "does not fit the checkpoint" in (tmp_path / "log").read_text()
    assert files(run) == before
    (run / "config.yaml").write_text(written)
    assert server.train(tmp_path / "log", f"resume={run}", "trainer.max_epochs=3") == 0, (tmp_path / "log").read_text()
    assert (result(run)["status"], result(run)["epochs"]) == ("completed", 3)
    assert read_config(run / "config.yaml").trainer.max_epochs == 3
    assert read_config(run / "config.yaml").resume is None, "it repeats the run"
    assert (run / "checkpoints" / "damaged.ckpt").read_bytes() == b"damaged"


def test_a_stopped_run_that_is_not_resumed_is_named(tmp_path: Path) -> None:
    (tmp_path / "n" / "one").mkdir(parents=True)
    stopped = RunRecord.start(tmp_path / "n" / "one", composed("name=n", f"log_dir={tmp_path}"), overrides=[])
    stopped.finish("interrupted")
    given = ("name=n", f"log_dir={tmp_path}", "resume=auto")
    assert why_not_resumed(composed(*given)) is None
    assert run_to_resume(composed(*given)) == stopped.folder
    assert why_not_resumed(composed(*given, "seed=1")) == "no stopped run of this command; a new one starts"
    assert why_not_resumed(composed(*given, "seed=1", "run_id=x")) is None, "as each trial of a sweep starts"
    assert why_not_resumed(composed(*given[:2])) is None
    reason = why_not_resumed(composed(*given, "optim.lr=0.5"))
    assert reason is not None
    assert reason.endswith("one has a different configuration (optim.lr=0.001, now 0.5)")


def started(folder: Path, *overrides: str) -> Path:
    folder.mkdir(parents=True)
    RunRecord.start(
        folder, composed("name=n", f"log_dir={folder.parent.parent}", *overrides), overrides=list(overrides)
    )
    return folder


def auto(folder: Path) -> list[str]:
    return ["name=n", f"log_dir={folder}", "resume=auto", "run_id=one"]


DAMAGE = [
    ("result.json", "", "result.json is not complete JSON"),
    ("result.json", '{"schema": 1, "sta', "result.json is not complete JSON"),
    ("result.json", "[]", "result.json is not a record"),
    ("result.json", "{}", "result.json has the status None"),
    ("result.json", '{"schema": 1, "status": "failed", "overrides": [1]}', "overrides that are not a list of texts"),
    ("result.json", '{"schema": 2}', "written by a newer version of vitexp .schema 2.; update vitexp"),
    ("config.yaml", "", "config.yaml is not the configuration of a run"),
    ("config.yaml", "data: [", "config.yaml is not valid YAML"),
    ("config.yaml", "- model", "config.yaml must be a mapping"),
    ("config.yaml", "\x00", "config.yaml is not valid YAML"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), DAMAGE)
def test_a_damaged_record_is_refused(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    run = started(tmp_path / "n" / "one")
    (run / name).write_text(content)
    before = files(run)
    named, automatic = composed(f"resume={run}"), composed("name=n", f"log_dir={tmp_path}", "resume=auto")
    with pytest.raises(UserError, match=sentence):
        resumed(named, [f"resume={run}"], lambda overrides: composed(*overrides))
    with pytest.raises(UserError, match=sentence), open_run(composed(*auto(tmp_path)), overrides=[]):
        pass
    assert run_to_resume(automatic) is None
    assert files(run) == before


@pytest.mark.parametrize("missing", ["result.json", "config.yaml"])
def test_a_run_that_was_killed_before_both_files_were_written_starts_again(tmp_path: Path, missing: str) -> None:
    run = started(tmp_path / "n" / "one")
    (run / missing).unlink()
    config = composed(*auto(tmp_path))
    assert run_to_resume(config) is None
    assert RunRecord.start(run, config, overrides=[]).result["status"] == "running"


def test_result_json_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in between must not leave a record that resume=auto cannot resume, next to which it starts another run."""
    written: list[str] = []
    monkeypatch.setattr("vitexp.runs.record.write_atomically", lambda path, content: written.append(path.name))
    started(tmp_path / "n" / "one")
    assert written == ["config.yaml", "result.json"]


def test_a_repeated_run_is_resumed_with_its_own_configuration(server: Server, photos: Path, tmp_path: Path) -> None:
    """Its recorded overrides are only those typed after --config-name."""
    assert server.train(tmp_path / "log", *options(tmp_path, photos), "name=n", "run_id=first", "loss=focal") == 0
    first = tmp_path / "n" / "first"
    again = ("--config-dir", str(first), "--config-name", "config", "run_id=second", "loss.gamma=3")
    assert server.train(tmp_path / "log", *again) == 0, (tmp_path / "log").read_text()
    second = tmp_path / "n" / "second"
    assert result(second)["options"] == list(again[:4])
    words = f"--config-dir {first} --config-name config run_id=second loss.gamma=3"
    assert words in (second / "report.html").read_text()
    log = tmp_path / "resumed.log"
    assert server.train(log, f"resume={second}", "trainer.max_epochs=2", "trainer=cpu") == 0, log.read_text()
    assert result(second)["epochs"] == 2
    assert read_config(second / "config.yaml").loss.gamma == 3
    assert server.train(log, f"resume={second}", "trainer.max_epochs=8", "optim.lr=0.5") == 2
    assert "optim.lr=0.001, now 0.5" in log.read_text()
    assert "max_epochs" not in log.read_text().rpartition("different configuration")[2]
    assert OmegaConf.load(second / "config.yaml").trainer.max_epochs == 2
