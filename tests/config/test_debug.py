"""trainer=debug: nothing is logged and few figures are drawn, unless other keys say otherwise."""

from __future__ import annotations

from tests.conftest import composed
from vitexp.config.check import check
from vitexp.runs.record import config_hash
from vitexp.runs.resume import differences


def test_options_of_a_debug_run() -> None:
    config = composed("trainer=debug")
    check(config)
    assert list(config.logger) == []
    assert set(config.callbacks) < set(composed().callbacks)
    assert config.trainer.debug


def test_other_keys_win() -> None:
    config = composed("trainer=debug", "logger=wandb", "callbacks=none", "trainer.max_epochs=5")
    assert (list(config.logger), list(config.callbacks), config.trainer.max_epochs) == (["wandb"], [], 5)
    assert list(composed("trainer=debug", "experiment=gtsrb_best").logger) == []


def test_a_run_is_not_resumed_as_another_kind(tmp_path: object) -> None:
    from omegaconf import OmegaConf

    debug, usual = composed("trainer=debug"), composed()
    assert config_hash(debug) != config_hash(usual)
    folder = tmp_path
    OmegaConf.save(debug, folder / "config.yaml")  # type: ignore[operator]
    assert any("trainer.debug=True, now False" in each for each in differences(folder, usual))  # type: ignore[arg-type]
