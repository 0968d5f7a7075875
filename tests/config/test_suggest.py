"""The key that an unknown word means."""

from __future__ import annotations

import sys

import pytest

from vitexp.commands.words import options_first
from vitexp.config.compose import compose
from vitexp.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("lr=0.1", r"there is no key 'lr'; did you mean optim\.lr=0\.1\?"),
        ("epochs=3", r"did you mean trainer\.max_epochs=3\?"),
        ("max_epochs=3", r"did you mean trainer\.max_epochs=3\?"),
        ("batch_size=32", r"did you mean data\.batch_size=32\?"),
        ("data.batchsize=32", r"did you mean data\.batch_size=32\?"),
        ("optim.learning_rate=1e-3", r"did you mean optim\.lr=1e-3\?"),
        ("dropout=0.1", r"did you mean model\.dropout=0\.1\?"),
        ("modle=vit_tiny", r"did you mean model=vit_tiny\?"),
        ("dataset=gtsrb", r"did you mean data=gtsrb\?"),
        ("optim.foo=1", r"choose from optim\.lr, optim\.weight_decay, optim\.betas"),
        # never a key of an option that is not selected
        ("momentum=0.9", r"there is no key 'momentum'; --help lists all\.$"),
        ("update_rms=0.1", r"there is no key 'update_rms'; --help lists all\.$"),
        ("momentum=0.9 optim=muon", r"did you mean optim\.momentum=0\.9\?"),
        ("dropout=0.1 model=resnet18", r"there is no key 'dropout'; --help lists all\.$"),
        ("gtsrb", r"cannot read 'gtsrb': write key=value, such as data=gtsrb\.$"),
    ],
)
def test_unknown_keys_lead_to_keys_of_the_selected_options(words: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        compose(words.split())


@pytest.mark.parametrize(
    ("command", "words", "line"),
    [
        ("train", "--epochs 3", r" trainer\.max_epochs=3$"),
        ("train", "data=gtsrb --lr 0.1", r" data=gtsrb optim\.lr=0\.1$"),
        ("train", "--lr=0.1 --data gtsrb -m", r" -m optim\.lr=0\.1 data=gtsrb$"),
        ("train", "--batch-size 32", r" data\.batch_size=32$"),
        ("train", "--optim.lr 3", r" optim\.lr=3$"),
        ("train", "--help-me", r"there is no option --help-me; did you mean --help\?$"),
        ("train", "--xyzzy", "there is no option --xyzzy; keys are written key=value"),
        ("train", "--momentum 0.9", "there is no option --momentum; keys are written key=value, and --help lists all"),
        ("sweep", "--ablation modern_recipe", " ablation=modern_recipe$"),
    ],
)
def test_options_of_other_programs_lead_to_the_right_line(command: str, words: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        options_first(command, words.split(), ("ablation",) if command == "sweep" else ())


def test_options_of_hydra_keep_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert options_first("train", ["seed=1", "--cfg", "job", "-m"]) == ["--cfg", "job", "-m", "seed=1"]
