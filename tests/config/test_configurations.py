"""For any configuration, train.py starts a correct run, or says in one sentence why it does not."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import CONF, TINY, composed

CASES = 15  # outside the soak test
SOAK = 1000
STEPS = 40  # a run that gets this far does train, and is stopped
PATIENCE_S = 120

DRAWING: dict[str, Any] = {
    "database": None,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.generate],  # no shrinking: a failure prints its command line, which is short
}
# Messages about the number of images, known only once the folder is read.
FROM_THE_IMAGES = ("larger than the training part", "needs two or more", "is less than one", "must not exceed the")

GROUPS = ("augment", "callbacks", "data", "logger", "model", "loss", "optim", "schedule", "task", "trainer")


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key in dotted form, including branches, with its value."""
    for key, value in node.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")


@cache
def _keys() -> dict[str, dict[str, list[Any]]]:
    """Return the values in conf of every key, by the option that has it; "" stands for all options."""
    found: dict[str, dict[str, list[Any]]] = {}
    options = [f"{group}={file.stem}" for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]
    for option in ["", *options]:
        for key, value in _leaves(OmegaConf.to_container(composed(*filter(None, [option])))):
            group = key.partition(".")[0]
            if (option or "=").partition("=")[0] == (group if group in GROUPS and group != key else ""):
                found.setdefault(key, {}).setdefault(option, []).append(value)
    for of_key in found.values():  # data sets that are not on this machine can only be refused
        for here in {"data=signs", "data=folder"} & set(of_key):
            for option in set(of_key) - {"data=signs", "data=folder"}:
                of_key[here] += of_key.pop(option, [])
    return found


HERE = "ROOT"  # placeholder for the folder of a small data set
# Values that start other processes, wait for other machines or compile for a minute; they have separate tests.
NEVER = {
    "trainer.compile": ("on", "true", "True"),
    "trainer.num_nodes": None,
    "trainer.devices": ("2", "4", "8", "16", "32"),
    "data.download": None,
    "data.base_url": None,
    "log_dir": None,
}

_TEXT = st.text(max_size=8).map(lambda text: text.replace("\x00", ""))
_WORDS = st.sampled_from(
    [
        *("null", "true", "false", "''", "' '", "x", "auto", "[]", "{}", "[1,2]", "[0.5,0.1]", "[a,b]", "{a:1}"),
        *("../x", "/", "a/b", ".", "~", "nan", "inf", "-inf", "'1'", "'???'", "???", "${seed}", "${nowhere.at.all}"),
        *("${oc.env:NOWHERE_SET}", "{_target_:os.getcwd}", "[{_target_:nothing.at.all}]", "{_target_:builtins.dict}"),
        *("é", "'日本 語'", "'\U0001f600'", "9" * 5000, "'" + "x" * 5000 + "'", "val/loss", "[null]", "1,2", "'\\\\'"),
    ]
)
_NUMBERS = st.one_of(
    st.sampled_from(
        [0, 1, 2, 3, 5, 16, 31, 32, 33, 64, -1, -0.0, 0.0, 0.5, 0.999999, 1.0, 1.5, 1e-300, 1e-9, 1e9, 1e308]
    ).map(str),
    st.sampled_from([2**31, 2**32, 2**63, 10**9, 10**30, -(10**9)]).map(str),
    st.integers(-3, 40).map(str),
    st.floats(0, 1).map(lambda value: f"{value:.3g}"),
)


def _typed(value: Any) -> str:
    """Format a value of the configuration as in an override."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_typed(each)}" for key, each in value.items()) + "}"
    return str(value)


@st.composite
def _override(draw: st.DrawFn) -> list[str]:
    """Draw a real key with a valid, borderline or hostile value, and the option that has the key."""
    key = draw(st.sampled_from(sorted(_keys())))
    option = draw(st.sampled_from(sorted(_keys()[key])))
    options = [option] if option and option.partition("=")[2] not in ("gpu", "ddp", "auto") else []
    known = [value for values in _keys()[key].values() for value in values if not isinstance(value, dict)] or ["{}"]
    kind = draw(st.integers(0, 19))
    if kind < 7:
        value = _typed(draw(st.sampled_from(known)))
    elif kind < 13:
        value = draw(_NUMBERS)
    elif kind < 19:
        value = draw(_WORDS)
    else:
        value = draw(_TEXT)
    banned = NEVER.get(key, ())
    if banned is None or value in banned:
        return options
    return [*options, f"{draw(st.sampled_from(['', '', '', '++']))}{key}={value}"]


@st.composite
def _option(draw: st.DrawFn) -> list[str]:
    """Draw an option of a group, or a name that does not exist."""
    group = draw(st.sampled_from(GROUPS))
    options = [file.stem for file in sorted((CONF / group).glob("*.yaml"))]
    name = draw(st.sampled_from([*options, *options, "none", "null", "nothing", "../train", ""]))
    return [f"{group}={'cpu' if group == 'trainer' and name in ('gpu', 'ddp', 'auto') else name}"]


_GARBAGE = st.one_of(
    st.sampled_from(
        [
            *("", "=", "==", "a", "seed", "=1", "seed=", "seed==1", "model.dim=[", "model.dim={a:", "x=)", "seed=1 2"),
            *("~seed", "~data", "~trainer.devices", "~model.dim", "~optim.lr", "~schedule.min_lr", "~callbacks.curves"),
            *("~nothing", "~data.source", "~augment", "~logger", "~name", "~training", "+a=1", "+a.b.c=1", "+data.x=1"),
            *("+model.in_channels=1", "+model.num_classes=3", "+trainer.logger=true", "+optim.maximize=true"),
            *("+optim._args_=[1]", "+model._partial_=true", "optim._partial_=false", "+callbacks.x={}", "+logger.x=1"),
            *("+callbacks.x={_target_:vitexp.training.callbacks.LearningCurves}", "+logger.x={_target_:builtins.dict}"),
            *("seed=${seed}", "name=${name}", "name=${log_dir}${name}", "model.dim=${model.depth}", "seed=${..seed}"),
            *("trainer.devices=${trainer.devices}", "data.name=${name}", "optim.lr=${model}", "training=${data}"),
            *("+augment.x=1", "augment._target_=os.abs", "model._target_=torch.nn.Identity", "schedule._target_=x.y"),
            *("optim._target_=torch.optim.Adam", "optim._target_=torch.optim.LBFGS", "data.source._target_=a.b"),
            *("model={dim:1}", "data=[]", "trainer=1", "model@x=vit_tiny", "experiment=x", "resume=x", "seed=1,2"),
            *("hydra.job.name=x", "hydra/launcher=x", "+x@_global_=y", "data.prepare=[]", "seed=${now:%Y}"),
            "data.prepare=[{_target_:albumentations.Resize,height:16,width:16}]",
            "data.prepare=[{_target_:albumentations.ToFloat}]",
            "data.prepare=[{_target_:albumentations.CLAHE,clip_limitt:2}]",
        ]
    ),
    st.text(max_size=12).map(lambda text: text.replace("\x00", "").lstrip("-")),
)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draw overrides for train.py, most of them sensible on their own."""
    kinds = [_override()] * 8 + [_option(), _GARBAGE.map(lambda word: [word])]
    drawn = [word for _ in range(draw(st.sampled_from([1, 1, 2, 2, 3]))) for word in draw(draw(st.sampled_from(kinds)))]
    keys = {override.lstrip("+~").partition("=")[0] for override in drawn}
    dropped = []  # keys that the drawn option does not have
    if any(override.startswith("model=") and "vit" not in override for override in drawn):
        dropped.append("model.")
    if any(override.startswith("data=") and "signs" not in override for override in drawn):
        dropped += ["data.train_per_class", "data.test_per_class"]
    base = [
        override
        for override in (*TINY, "logger=none", "callbacks=none")
        if override.partition("=")[0] not in keys and not override.startswith(tuple(dropped))
    ]
    if "data=folder" in drawn and "data.root" not in keys:
        base.append(f"data.root={HERE}")
    return [*base, *drawn]


@dataclass(frozen=True)
class Outcome:
    """The outcome of `python train.py`."""

    overrides: list[str]
    code: int | None  # None: it did not end
    stderr: str
    read: bool  # whether data were read
    steps: int  # trained
    results: list[dict[str, Any]]  # result.json of the runs
    started: bool  # without `run`: whether a run would have started


def _train(folder: Path, overrides: list[str], *, run: bool = True) -> Outcome:
    """Run `python train.py overrides` in a fork of this process, which has imported everything. run: see _begin."""
    [outcome] = _train_all([(folder, overrides)], run=run, at_once=1)
    return outcome


def _train_all(cases: list[tuple[Path, list[str]]], *, run: bool = True, at_once: int) -> Iterator[Outcome]:
    """Do the same for several cases, `at_once` at a time; yield their outcomes as they end."""
    waiting, running = cases[::-1], {}
    while waiting or running:
        while waiting and len(running) < at_once:
            folder, overrides = waiting.pop()
            running[_begin(folder, overrides, run=run)] = folder, overrides, time.monotonic()
        for pid, (folder, overrides, begun) in list(running.items()):
            late = time.monotonic() - begun > PATIENCE_S
            if late:
                os.kill(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, 0 if late else os.WNOHANG)
            if done:
                del running[pid]
                yield _found(folder, overrides, None if late else os.waitstatus_to_exitcode(status))
        time.sleep(0.005)


def _begin(folder: Path, overrides: list[str], *, run: bool) -> int:
    """Fork a process that runs train.py and return its id. run: if false, stop where the run would start."""
    folder.mkdir()
    pid = os.fork()
    if pid == 0:
        _child(folder, overrides, run)
    return pid


def _found(folder: Path, overrides: list[str], code: int | None) -> Outcome:
    return Outcome(
        overrides=overrides,
        code=code,
        stderr=(folder / "stderr").read_text(errors="replace"),
        read=(folder / "read").exists(),
        steps=len((folder / "steps").read_bytes()) if (folder / "steps").exists() else 0,
        results=[
            json.loads(file.read_text(), parse_constant=pytest.fail) for file in folder.rglob("logs/**/result.json")
        ],
        started=(folder / "started").exists(),
    )


def _child(folder: Path, overrides: list[str], run: bool) -> NoReturn:
    """Run train.py in the forked process; never return."""
    code = 70
    try:
        os.chdir(folder)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", closefd=False, buffering=1, errors="replace") for number in (1, 2)
        )
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        os.environ.pop("HYDRA_FULL_ERROR", None)
        os.environ.pop("VITEXP_PLAIN_ERRORS", None)
        if run:
            _watch(folder)
        else:
            stub = ModuleType("vitexp.runs.run")
            stub.run = lambda config: (folder / "started").touch()  # type: ignore[attr-defined]
            sys.modules["vitexp.runs.run"] = stub
        overrides = [
            override.replace(f"data.root={HERE}", f"data.root={folder.parent}/images") for override in overrides
        ]
        sys.argv = ["train.py", f"log_dir={folder}/logs", *overrides]
        runpy.run_path(str(CONF.parent / "train.py"), run_name="__main__")
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _watch(folder: Path) -> None:
    """Record in files when data are read and how many steps are trained; stop a run after STEPS steps."""
    from vitexp.data.cifar import CIFAR
    from vitexp.data.folder import Folder
    from vitexp.data.gtsrb import GTSRB
    from vitexp.data.signs import Signs
    from vitexp.training.classification import Classifier
    from vitexp.training.masked_autoencoding import MaskedAutoencoding

    for source in (CIFAR, Folder, GTSRB, Signs):

        def split(self: Any, name: Any, original: Any = source.split) -> Any:
            found = original(self, name)
            (folder / "read").touch()
            return found

        source.split = split  # type: ignore[method-assign]
    for kind in (Classifier, MaskedAutoencoding):

        def counted(self: Any, *arguments: Any, step: Any = kind.training_step) -> Any:
            loss = step(self, *arguments)
            with (folder / "steps").open("ab") as file:
                file.write(b".")
                if file.tell() >= STEPS:
                    os.kill(os.getpid(), signal.SIGINT)
            return loss

        kind.training_step = counted  # type: ignore[method-assign]


def _judge(outcome: Outcome) -> str:
    """Return refused, started, trained, stopped or diverged; fail the test for any other outcome."""
    told = f"\n{' '.join(map(repr, outcome.overrides))}\n{outcome.stderr}"
    assert outcome.code is not None, f"hangs: {told}"
    assert "Traceback" not in outcome.stderr, told
    if outcome.code == 2:
        lines = [line for line in outcome.stderr.splitlines() if line.startswith("vitexp: ")]
        assert len(lines) == 1 and outcome.stderr.strip() == lines[0], told
        counted = "data=folder" in outcome.overrides and any(words in lines[0] for words in FROM_THE_IMAGES)
        assert not outcome.read or counted, f"data were read: {told}"
        assert all(result["status"] == "failed" for result in outcome.results), told
        return "refused"
    if outcome.started:
        assert outcome.code == 0 and not outcome.stderr, told
        return "started"
    assert outcome.steps > 0, f"nothing was trained (exit code {outcome.code}): {told}"
    [result] = outcome.results
    if outcome.code == 130:
        assert outcome.steps >= STEPS, told
        assert result["status"] == "interrupted", told
        return "stopped"
    if outcome.code == 1:
        assert "the loss has been NaN or infinite" in outcome.stderr, told
        assert len(outcome.stderr.strip().splitlines()) == 1, told
        assert result["status"] == "failed", told
        return "diverged"
    assert outcome.code == 0, told
    assert result["status"] == "completed", told
    return "trained"


def _ready(folder: Path) -> None:
    """Import what a run imports, once for all forks, and make a small set of image files."""
    import albumentations  # noqa: F401

    import vitexp.runs.run  # noqa: F401

    for number in range(60):
        file = folder / "images" / ("red", "green", "blue")[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24), ((number % 3) * 80, 4 * number, 90)).save(file)


@pytest.mark.slow
@given(command_lines())
@settings(
    max_examples=CASES,
    derandomize=True,
    **DRAWING,
)
def test_a_configuration_starts_a_run_or_is_refused_in_one_sentence(overrides: list[str]) -> None:
    """This covers everything that train.py does before it imports torch."""
    with TemporaryDirectory() as folder:
        outcome = _train(Path(folder) / "case", overrides, run=False)
        assert outcome.results == []
        assert _judge(outcome) in ("refused", "started")


@pytest.mark.soak
def test_a_thousand_configurations(tmp_path: Path) -> None:
    """Run to the end: a refused configuration has read no data; any other one trains and is recorded."""
    _ready(tmp_path)
    cases: dict[tuple[str, ...], None] = {}  # each once, in the order drawn

    @given(command_lines())
    @settings(max_examples=5 * SOAK, **DRAWING)
    def draw(overrides: list[str]) -> None:
        cases[tuple(overrides)] = None

    draw()
    lines = [(tmp_path / str(number), list(case)) for number, case in enumerate([*cases][:SOAK])]
    assert len(lines) == SOAK
    words: list[str] = []
    for outcome in _train_all(lines, at_once=os.cpu_count() or 1):
        words.append(_judge(outcome))
        if len(words) % 50 == 0:
            print(len(words), Counter(words), flush=True)
    assert min(words.count("refused"), words.count("trained")) > SOAK / 10
