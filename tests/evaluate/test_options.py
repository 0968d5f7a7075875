from __future__ import annotations

from pathlib import Path

import pytest

from vitexp.commands.evaluate import parse
from vitexp.errors import ConfigError
from vitexp.evaluate.options import Options


def test_nothing_typed_is_the_default() -> None:
    assert parse([]) == Options()


def test_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a/b=c").mkdir(parents=True)
    typed = "run=a/b=c data=gtsrb data.root=/x log_dir=l out=o device=cpu tta=true corruptions=True corruption_images=7"
    assert parse([*typed.split(), "latency=false", "export=[onnx, timm]"]) == Options(
        run=Path("a/b=c"),
        data=("data=gtsrb", "data.root=/x"),
        log_dir="l",
        out="o",
        device="cpu",
        tta=True,
        corruptions=True,
        corruption_images=7,
        export=("onnx", "timm"),
    )


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("corruption=true", "there is no key 'corruption'; nearest is corruptions"),
        ("tta", "write key=value"),
        ("=1", "write key=value"),
        ("tta=yes", "tta=yes must be true or false"),
        ("run=", "run= is empty"),
        ("run=nowhere", "run=nowhere is not a folder"),
        ("corruption_images=0", "must be an integer of 1 or more"),
        ("export=tensorflow", "must be one or both of onnx, timm"),
        ("export=", "export= is empty"),
        ("device=tpu", "must be one of auto, cpu, gpu"),
        ("trainer.devices=2", "there is no key 'trainer.devices'"),
    ],
)
def test_what_cannot_be_taken_is_one_sentence(typed: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse([typed])
    assert str(refused.value).endswith(".")
