"""A run must not write down a secret or listen to the network."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from tests.conftest import CONF, TINY, composed
from vitexp.config.secrets import refuse_secrets, refuse_typed_secrets
from vitexp.errors import ConfigError

PROJECT = CONF.parent
KEY, PASSWORD, AWS = "0badc0ffee" * 4, "correct-horse-battery", "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put secrets where they belong, in the environment and in .netrc; return them all."""
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {PASSWORD}\n")
    named = {"WANDB_API_KEY": KEY, "RAY_AUTH_TOKEN": AWS + "r", "HF_TOKEN": AWS + "h", "AWS_SECRET_ACCESS_KEY": AWS}
    for name, value in {**named, "NETRC": str(tmp_path / "netrc"), "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    return [PASSWORD, *named.values()]


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("+logger.wandb.api_key=abc", "logger.wandb.api_key"),
        ("++training.password='abc'", "training.password"),
        (f"logger.wandb.entity={KEY}", "WANDB_API_KEY"),
        (f"name=run-{AWS}", "AWS_SECRET_ACCESS_KEY"),
        (f"logger.wandb.tags=[a,{PASSWORD}]", ".netrc for api.wandb.ai"),
        ("data.root=https://me:hunter22@example.org/set", "data.root"),
        ("data.root=https://ghp_0123@example.org/set", "data.root"),
        ("engine.address=ray://me:hunter22@example.org", "engine.address"),
    ],
)
def test_a_secret_in_a_setting_is_refused_without_repeating_it(secrets: list[str], typed: str, named: str) -> None:
    with pytest.raises(ConfigError, match="WANDB_API_KEY, for example") as refused:
        refuse_typed_secrets(["seed=1", typed])
    assert named in str(refused.value)
    assert not any(secret in str(refused.value) for secret in [*secrets, "hunter22", "ghp_0123", "abc"])
    *parents, last = typed.partition("=")[0].lstrip("+").split(".")
    nested: Any = {last: [typed.partition("=")[2]]}
    for parent in reversed(parents):
        nested = {parent: nested}
    with pytest.raises(ConfigError):
        refuse_secrets(nested)


def test_what_is_no_secret_passes(secrets: list[str]) -> None:
    harmless = ("data.root=ssh://git@example.org/a", "model.pool=token", "a.token=true", "a.token=null", "-m", "a@b=c")
    refuse_typed_secrets([*harmless, "+logger.wandb.api_key=${oc.env:WANDB_API_KEY}"])  # its value is checked later
    for options in ((), ("data=gtsrb", "data.root=/a"), ("logger=wandb", "trainer=ddp")):
        refuse_secrets(dict(composed(*options)))
    refuse_secrets({"a": {"token": None, "key": 3, "password": ""}})


def said(*line: str, cwd: Path = PROJECT) -> tuple[int, str]:
    ended = subprocess.run([sys.executable, *line], capture_output=True, text=True, cwd=cwd, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "line",
    [
        ("train.py", "+logger.wandb.api_key=hunter22"),
        ("train.py", "logger.wandb.entity=${oc.env:AWS_SECRET_ACCESS_KEY}"),
        ("train.py", "-m", "seed=1,2", "+logger.wandb.api_key=hunter22"),
        ("sweep.py", "engine=local", "seed=1,2", "+logger.wandb.api_key=hunter22"),
    ],
)
def test_the_commands_refuse_before_anything_is_written(secrets: list[str], tmp_path: Path, line: list[str]) -> None:
    code, output = said(*line, *TINY, f"log_dir={tmp_path / 'logs'}")
    assert code == 2, output
    assert "Traceback" not in output
    assert output.count("keep secrets in the environment") == 1
    assert not any(secret in output for secret in [*secrets, "hunter22"])
    assert not (tmp_path / "logs").exists()


def assert_none_of(secrets: list[str], folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path


@pytest.mark.slow
def test_no_file_of_a_run_holds_a_secret_of_the_environment(secrets: list[str], tmp_path: Path) -> None:
    code, output = said("train.py", *TINY, f"log_dir={tmp_path / 'logs'}")
    assert code == 0, output
    assert not any(secret in output for secret in secrets)
    assert_none_of(secrets, tmp_path / "logs")


@pytest.mark.slow
def test_no_file_of_a_sweep_holds_a_secret_of_the_environment(secrets: list[str], tmp_path: Path) -> None:
    code, output = said(
        "sweep.py", "engine=local", "seed=1,2", "optim.lr=-1,1e-3", *TINY, f"log_dir={tmp_path / 'logs'}"
    )
    assert code in (0, 1, 2), output
    code, output = said("sweep.py", "engine=local", "seed=1,2", *TINY, f"log_dir={tmp_path / 'logs'}")
    assert code == 0, output
    assert not any(secret in output for secret in secrets)
    assert_none_of(secrets, tmp_path / "logs")


def listening(line: list[str], environment: Mapping[str, str]) -> set[tuple[str, str]]:
    """Return every (address, process) on which a command or its children listen, checked five times per second."""
    process = psutil.Popen(line, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    family, seen = {process}, set()
    while process.poll() is None:
        with suppress(psutil.Error):
            family |= set(process.children(recursive=True))
        for each in list(family):  # including processes whose parent has exited, as with Ray
            with suppress(psutil.Error):
                name = each.name()
                seen |= {(c.laddr.ip, name) for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        time.sleep(0.2)
    assert process.returncode == 0, process.stdout.read().decode()
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "alone"),
    [
        (["train.py"], True),
        (["train.py", "trainer.devices=2", "trainer.strategy=ddp"], False),
        (["train.py", "trainer.devices=1", "trainer.strategy=ddp"], False),
        (["sweep.py", "engine=local", "seed=1,2"], True),
        (["sweep.py", "engine=ray", "seed=1,2"], False),
    ],
)
def test_nothing_on_one_machine_listens_beyond_it(tmp_path: Path, line: list[str], alone: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MASTER_"))}
    arguments = [*TINY, "logger=default", f"log_dir={tmp_path / 'logs'}"]
    seen = listening([sys.executable, *line, *arguments], {**environment, "WANDB_MODE": "offline"})
    assert alone == (not seen), seen  # several processes must listen to each other; else the check is broken
    assert {address.removeprefix("::ffff:") for address, _ in seen} <= {"127.0.0.1", "::1"}, seen


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", PROJECT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finding(name: str, identity: str, *, fixed: list[str]) -> dict[str, Any]:
    return {"name": name, "version": "1", "vulns": [{"id": identity, "aliases": ["CVE-1"], "fix_versions": fixed}]}


def test_ci_fails_for_a_vulnerability_and_says_where_nothing_was_audited(audit: ModuleType) -> None:
    clean, skipped = {"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not there"}
    bad = finding("c", "PYSEC-1", fixed=["2"])
    assert audit.verdict({"dependencies": [skipped]}, {}) == audit.verdict({"dependencies": []}, {})
    output, failed = audit.verdict({"dependencies": [skipped]}, {})
    assert (failed, "NOTHING was audited" in output) == (False, True)
    output, failed = audit.verdict({"dependencies": [clean, skipped, bad]}, {})
    assert failed
    assert "c 1: PYSEC-1, fixed in 2" in output
    assert "unknown to the service: b" in output
    assert not audit.verdict({"dependencies": [clean, bad]}, {"CVE-1": "not our case"})[1]
    assert audit.verdict({"dependencies": [finding("d", "PYSEC-2", fixed=[])]}, {"CVE-2": ""})[1]
