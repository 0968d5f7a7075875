"""Checkpoints that were damaged or forged."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from vitexp.errors import UserError
from vitexp.training.checkpoints import (
    NAMES,
    CheckedCheckpointIO,
    DamagedCheckpoint,
    newest_checkpoint,
    promote,
    read_checkpoint,
    sealed,
    set_damaged_aside,
)

DAMAGES = 200  # of the soak test


def checkpoint(step: int) -> dict[str, Any]:
    weights = {f"layer{number}": torch.randn(64, 33) for number in range(4)}
    return {"state_dict": weights, "position": {"steps": step}, "loops": {"a": [1, 2.5, True]}}


def write_two(folder: Path) -> None:
    """Write last.ckpt of step 2 and previous.ckpt of step 1."""
    for step in (1, 2):
        CheckedCheckpointIO().save_checkpoint(checkpoint(step), folder / NAMES[0])
        promote(folder)


def test_a_checkpoint_is_read_back_and_torch_reads_it_too(tmp_path: Path) -> None:
    path, written = tmp_path / "a.ckpt", checkpoint(1)
    CheckedCheckpointIO().save_checkpoint(written, path)
    torch.testing.assert_close(read_checkpoint(path), written, rtol=0, atol=0)
    torch.testing.assert_close(torch.load(path, weights_only=True), written, rtol=0, atol=0)
    assert zipfile.ZipFile(path).testzip() is None
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    write_two(tmp_path)
    CheckedCheckpointIO().save_checkpoint(checkpoint(3), tmp_path / NAMES[0])
    found = newest_checkpoint(tmp_path)  # killed before renaming
    assert found is not None
    assert found[1] == {"steps": 3}
    promote(tmp_path)
    assert [read_checkpoint(tmp_path / name)["position"]["steps"] for name in NAMES[1:]] == [3, 2]


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Return `data` with a flipped bit, a truncation, a block of zeros, or appended bytes."""
    kind, offset = dice.choice(("flip", "flip", "truncate", "zeros", "append")), dice.randrange(len(data))
    if kind == "flip":
        return data[:offset] + bytes([data[offset] ^ (1 << dice.randrange(8))]) + data[offset + 1 :]
    if kind == "truncate":
        return data[:offset]
    if kind == "zeros":
        hole = bytes(min(dice.randrange(1, 4096), len(data) - offset))
        return data[:offset] + hole + data[offset + len(hole) :]
    return data + dice.randbytes(dice.randrange(1, 100))


def damage_many(folder: Path, times: int, dice: random.Random) -> None:
    write_two(folder)
    last, recognised = folder / "last.ckpt", 0
    whole = last.read_bytes()
    for _ in range(times):
        broken = damaged(whole, dice)
        if broken == whole:  # zeros over zeros
            broken = whole[:-1]
        last.write_bytes(broken)
        found = newest_checkpoint(folder)
        assert found is not None
        recognised += found == (folder / "previous.ckpt", {"steps": 1})
    print(f"{recognised} of {times} damaged checkpoints were detected and the earlier one used")
    assert recognised == times


def test_a_damaged_checkpoint_is_detected_and_the_previous_one_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage_many(tmp_path, 20, random.Random(0))
    assert "is damaged" in caplog.text
    assert (tmp_path / "last.ckpt").exists()  # an attempt to resume that fails changes nothing
    set_damaged_aside(tmp_path, tmp_path / "previous.ckpt")
    assert not (tmp_path / "last.ckpt").exists()  # it must not become the previous one
    assert (tmp_path / "previous.ckpt").exists()
    assert (tmp_path / "damaged.ckpt").exists()


@pytest.mark.soak
def test_two_hundred_damaged_checkpoints(tmp_path: Path) -> None:
    damage_many(tmp_path, DAMAGES, random.Random())


def test_if_every_checkpoint_is_damaged_none_is_used(tmp_path: Path) -> None:
    write_two(tmp_path)
    for name in NAMES[1:]:
        (tmp_path / name).write_bytes(b"no checkpoint")
    assert newest_checkpoint(tmp_path) is None


class Call:
    """An object that calls `function` when unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def payloads(mark: Path) -> dict[str, Any]:
    """Return objects that would create the file `mark` when unpickled."""
    touch = f"touch {mark}"
    python = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": Call(os.system, touch),
        "builtins.exec": Call(exec, python),
        "builtins.eval": Call(eval, python),
        "builtins.open": Call(open, str(mark), "w"),
        "Path.touch": Call(Path.touch, mark),
        "os.mkdir": Call(os.mkdir, str(mark)),
        "nested in a list": {"state_dict": {"a": [torch.zeros(2), {"b": (Call(os.system, touch),)}]}},
        "nested in a tensor's place": {"state_dict": {"weight": Call(eval, python)}, "position": {"steps": 1}},
        "as a key": {"position": {(1, Call(os.system, touch)): 1}},
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
    }


FORGERS = {
    "sealed as ours": lambda payload: _sealed_pickle(payload),
    "a bare pickle": lambda payload: pickle.dumps(payload),
    "an archive without a checksum": lambda payload: _saved(payload),
    "an old archive": lambda payload: _saved(payload, _use_new_zipfile_serialization=False),
}


def _saved(payload: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer, **how)
    return buffer.getvalue()


def _sealed_pickle(payload: Any) -> bytes:
    data = sealed(payload)
    assert hashlib.sha256(data[: -len("sha256:") - 64]).hexdigest().encode() == data[-64:]
    return data


@pytest.mark.parametrize("forger", FORGERS)
def test_no_payload_is_executed(tmp_path: Path, forger: str) -> None:
    mark = tmp_path / "executed"
    for name, payload in payloads(mark).items():
        path = tmp_path / NAMES[1]
        path.write_bytes(FORGERS[forger](payload))
        with pytest.raises(UserError) as refused:
            read_checkpoint(path)
        assert not mark.exists(), name
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)
        if forger == "sealed as ours":
            assert "not loaded" in str(refused.value)
            with pytest.raises(UserError, match="not loaded"):
                newest_checkpoint(tmp_path)
        else:
            assert isinstance(refused.value, DamagedCheckpoint)


def test_a_careless_reader_would_execute_the_payload(tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    for number, name in enumerate(payloads(tmp_path)):
        if name != "getattr":  # this one only imports a function
            mark = tmp_path / str(number)
            torch.load(io.BytesIO(sealed(payloads(mark)[name])), weights_only=False)
            assert mark.exists(), name


def test_a_full_disk_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import errno

    path = tmp_path / "best.ckpt"
    CheckedCheckpointIO().save_checkpoint(checkpoint(1), path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    CheckedCheckpointIO().save_checkpoint(checkpoint(2), path)
    assert read_checkpoint(path)["position"]["steps"] == 1
    assert "cannot write checkpoints/best.ckpt (No space left on device); the run continues" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["best.ckpt"]


def test_the_first_checkpoint_that_could_not_be_loaded_is_refused_and_names_its_content(tmp_path: Path) -> None:
    leaked = {**checkpoint(1), "optimizer_states": [{"betas": OmegaConf.create([0.9, 0.99])}]}
    with pytest.raises(UserError, match=r"\(omegaconf\.\w+\.\w+\), which could execute code"):
        CheckedCheckpointIO().save_checkpoint(leaked, tmp_path / "a.ckpt")
    assert not list(tmp_path.iterdir())
