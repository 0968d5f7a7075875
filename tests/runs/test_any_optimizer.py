"""Optimizers of torch and timm in whole runs: checkpoint, resume, test and weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TINY, result, tiny_run
from tests.forked import Server
from vitexp.training.checkpoints import read_checkpoint

BETAS = "betas: [0.9, 0.99]\n"  # a list, which must not become one of OmegaConf
OPTIMIZERS = {
    **{f"torch.optim.{name}": BETAS for name in ("NAdam", "RAdam", "Adamax")},
    **{f"torch.optim.{name}": "" for name in ("Adagrad", "RMSprop", "Adadelta", "ASGD")},
    **{f"timm.optim.{name}": BETAS for name in ("Lamb", "AdamP", "NAdamW")},
}


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


@pytest.mark.soak
@pytest.mark.parametrize("target", OPTIMIZERS)
def test_any_optimizer_trains_resumes_and_is_tested(server: Server, tmp_path: Path, target: str) -> None:
    (tmp_path / "conf" / "optim").mkdir(parents=True)
    option = f"_target_: {target}\nlr: 0.001\nweight_decay: 0.01\n{OPTIMIZERS[target]}"
    (tmp_path / "conf" / "optim" / "mine.yaml").write_text(option)
    given = ("logger=csv", "callbacks=none", f"log_dir={tmp_path / 'logs'}", "name=run", "run_id=run", "optim=mine")
    config = f"--config-dir={tmp_path / 'conf'}"
    for epochs in (1, 2):
        words = (config, *TINY, *given, f"trainer.max_epochs={epochs}", "resume=auto", "schedule.min_lr=0")
        assert server.train(tmp_path / "log", *words) == 0, (tmp_path / "log").read_text()[-2000:]
    run = tmp_path / "logs" / "run" / "run"
    record = result(run)
    assert (record["status"], record["epochs"], record["steps"]) == ("completed", 2, 8)
    assert record["metrics"]["test"]["loss"] > 0
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["optimizer_states"][0]["state"]


def test_a_time_limit_is_stored_as_plain_values(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "callbacks=none", "trainer.max_time={hours: 1}")
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["position"]["length"][2] == {"hours": 1}
