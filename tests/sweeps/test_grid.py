"""Which trials make up a sweep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import CONF, composed
from vitexp.config.overrides import quoted
from vitexp.errors import ConfigError
from vitexp.sweeps.engines.trial import Trial
from vitexp.sweeps.grid import Row, ablation_rows, plan
from vitexp.sweeps.sweep import own_arguments

ABLATIONS = sorted((CONF / "ablation").glob("*.yaml"))
COMMANDS = [
    command
    for path in ABLATIONS
    for command in re.findall(r"^#   python sweep\.py (.*?)(?:  #.*)?$", path.read_text(), re.MULTILINE)
]
STEPS = [{"name": "A", "set": ["optim.lr=1e-2"]}, {"name": "B", "set": ["model.depth=2"]}]


def planned(
    *arguments: str, ablation: dict[str, Any] | None = None, folds: int | None = None
) -> tuple[list[Row], list[Trial]]:
    made = plan(Path("/nowhere/s"), ablation=ablation, arguments=arguments, folds=folds)
    return made.rows, made.trials


def test_a_grid_crosses_all_values_and_runs_seed_by_seed() -> None:
    rows, trials = planned("optim.lr=1e-4,3e-4", "model.depth=2,3", "model=vit_tiny", "seed=range(3)")
    assert [row.name for row in rows] == [
        *("optim.lr=0.0001, model.depth=2", "optim.lr=0.0001, model.depth=3"),
        *("optim.lr=0.0003, model.depth=2", "optim.lr=0.0003, model.depth=3"),
    ]
    assert [(trial.seed, trial.row) for trial in trials] == [(seed, row.name) for seed in range(3) for row in rows]
    assert "model=vit_tiny" in trials[0].overrides
    assert len({trial.folder for trial in trials}) == 12


def test_the_folder_is_the_hash_of_what_is_computed_and_nothing_else() -> None:
    [one], [other], [same] = (
        planned(*arguments)[1] for arguments in (["seed=1"], ["seed=2"], ["seed=1", "logger=csv"])
    )
    assert one.folder == same.folder
    assert one.folder != other.folder
    assert one.folder.parent == Path("/nowhere/s")
    assert f'run_id="{one.folder.name}"' in one.overrides


def test_the_trials_share_a_group_in_wandb_where_they_log_to_it() -> None:
    assert 'logger.wandb.group="s"' in planned("seed=1,2")[1][0].overrides
    assert not any("group" in override for override in planned("seed=1,2", "logger=csv")[1][0].overrides)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("optim.lr=0.01,0.02",), ["optim.lr=0.01", "optim.lr=0.02"]),
        (("seed=1,2",), ["s", "s"]),  # the sweep, whose only row has no name
        (("data.name='${model.name}',b",), ["data.name='${model.name}'", "data.name=b"]),
        (("optim.lr=0.01,0.02", "logger=csv"), [None, None]),
    ],
)
def test_a_trial_is_named_after_its_row_in_wandb(arguments: tuple[str, ...], expected: list[str | None]) -> None:
    trials = planned(*arguments)[1]
    loggers = [composed(*trial.overrides).logger.get("wandb") for trial in trials]
    assert [logger and logger.row for logger in loggers] == expected


def test_rows_of_every_kind_of_ablation() -> None:
    def overrides(**kind: bool) -> dict[str, tuple[str, ...]]:
        return {row.name: row.overrides for row in ablation_rows({"base": ["model.dim=96"], "rows": STEPS, **kind})}

    a, b = "optim.lr=1e-2", "model.depth=2"
    assert overrides() == {"A": ("model.dim=96", a), "B": ("model.dim=96", b)}
    assert overrides(cumulative=True) == {"A": ("model.dim=96", a), "B": ("model.dim=96", a, b)}
    assert overrides(leave_one_out=True) == {
        "full": ("model.dim=96", a, b),
        "without A": ("model.dim=96", b),
        "without B": ("model.dim=96", a),
    }


def test_a_row_replaces_the_base_and_the_command_line_both() -> None:
    ablation = {"base": ["optim.lr=1", "model.dim=96"], "rows": STEPS, "seeds": [0, 1]}
    rows, trials = planned("model.depth=5", ablation=ablation)
    assert rows[0].overrides == ("model.dim=96", "optim.lr=1e-2", "model.depth=5")
    assert [row.name for row in rows] == ["A", "B"]
    assert {trial.seed for trial in trials} == {0, 1}
    assert {trial.seed for trial in planned("seed=5", ablation=ablation)[1]} == {5}


def test_an_ablation_may_be_crossed_with_a_grid() -> None:
    rows, trials = planned("model=vit_tiny,vit_small", ablation={"rows": STEPS, "seeds": [0]})
    assert [row.name for row in rows][:2] == ["A, model=vit_tiny", "A, model=vit_small"]
    assert len(trials) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["model.patch_size=4,5"], "'model.patch_size=5': model.patch_size=5 does not divide"),
        (["optim.lr=1e-3,0.001"], "are the same configuration"),
        (["run_id=a,b"], "run_id cannot be set for trials"),
    ],
)
def test_refuses_before_anything_runs(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace(".", r"\.")):
        planned(*arguments)


@pytest.mark.parametrize(
    ("ablation", "sentence"),
    [
        ({}, "ablation.rows is missing; it must be a list of rows"),
        ({"rows": []}, "ablation.rows=[] must be a list of rows"),
        ({"rows": STEPS, "seed": [1]}, "there is no key 'ablation.seed'; the nearest is seeds"),
        ({"rows": STEPS, "cumulativ": True}, "there is no key 'ablation.cumulativ'; the nearest is cumulative"),
        ({"rows": STEPS, "cumulative": True, "leave_one_out": True}, "exclude each other"),
        ({"rows": STEPS, "seeds": "0,1"}, "ablation.seeds=0,1 must be a list of integers"),
        ({"rows": STEPS, "seeds": 3}, "ablation.seeds=3 must be a list of integers"),
        ({"rows": STEPS, "seeds": []}, "ablation.seeds=[] must be a list of integers"),
        ({"rows": STEPS, "seeds": [1, 1]}, "contains a seed twice"),
        ({"rows": STEPS, "base": ["optim.lr=1", "optim.lr=2"]}, "optim.lr is given twice in base"),
        ({"rows": {"A": []}}, "must be a list of rows"),
        ({"rows": [*STEPS, "C"]}, "row 3, C, must be a mapping, {name: NAME, set: [OVERRIDE, ...]}"),
        ({"rows": [{"set": []}]}, "row 1: name is missing"),
        ({"rows": [{"name": ""}]}, "row '': name= must be a text of 1 to 100 characters"),
        ({"rows": [{"name": 3}]}, "row 1: name=3 must be a text"),
        ({"rows": [{"name": False}]}, "row 1: name=false must be a text"),
        ({"rows": [{"name": {"a": []}}]}, "row 1: name={'a': []} must be a text"),
        ({"rows": [STEPS[0], STEPS[0]]}, "row 'A': there is a row with this name above"),
        ({"rows": [{"name": "C", "overrides": []}]}, "row 'C': there is no key 'overrides'; choose from name, set"),
        ({"rows": [{"name": "C", "set": "optim.lr=1"}]}, "row 'C': set=optim.lr=1 must be a list of overrides"),
        ({"rows": [{"name": "C", "set": [{"optim.lr": 1}]}]}, "row 'C': set=[{'optim.lr': 1}] must be a list"),
        ({"rows": [{"name": "C", "set": ["optim.lr"]}]}, "row 'C': cannot read 'optim.lr'"),
        ({"rows": [{"name": "C", "set": ["optim.lr=1", "optim.lr=2"]}]}, "row 'C': optim.lr is given twice in set"),
        ({"rows": [{"name": "C", "set": ["optim.lr=1,2"]}]}, "row 'C': optim.lr=1,2 has several values"),
        ({"rows": [{"name": "C", "set": ["seed=1"]}]}, "row 'C': seed cannot be one of the overrides"),
        ({"rows": [{"name": "C", "set": ["log_dir=x"]}]}, "row 'C': log_dir cannot be one of the overrides"),
        ({"rows": [{"name": "C", "set": ["resume=auto"]}]}, "row 'C': resume cannot be one of the overrides"),
        ({"rows": [{"name": "C", "set": ["engine=ray"]}]}, "row 'C': engine can only be chosen for the sweep command"),
    ],
)
def test_a_wrong_ablation_is_one_sentence_with_its_file(ablation: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^mine.yaml.*{re.escape(sentence)}"):
        plan(Path("/nowhere/s"), ablation=ablation, arguments=[], file="mine.yaml")


def test_a_mistake_on_the_command_line_is_not_blamed_on_the_ablation() -> None:
    with pytest.raises(ConfigError, match=r"^there is no key 'optim.lrr'"):
        plan(Path("/nowhere/s"), ablation={"rows": STEPS}, arguments=["optim.lrr=1"], file="mine.yaml")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_at_the_head_of_an_ablation_can_be_planned(command: str) -> None:
    name, *arguments = command.split()
    path = CONF / "ablation" / f"{name.removeprefix('ablation=')}.yaml"
    ablation: Any = OmegaConf.to_container(OmegaConf.load(path))
    rows, trials = planned(*arguments, ablation=ablation)
    assert len(rows) == len(ablation["rows"])
    assert len(trials) == 3 * len(rows)


def test_every_ablation_opens_with_its_command() -> None:
    assert {command.split()[0] for command in COMMANDS} == {f"ablation={path.stem}" for path in ABLATIONS}


def test_own_keys_stay_and_those_of_the_trials_travel_in_one() -> None:
    typed = ["ablation=models", "engine.retries=2", "model=a,b", 'x="q\\"r"', "show=true", "--help"]
    assert own_arguments(typed) == [
        *("ablation=models", "engine.retries=2", "show=true", "--help"),
        r'trials=["model=a,b","x=\"q\\\"r\""]',
    ]


def test_a_cache_elsewhere_does_not_make_another_trial() -> None:
    [here], [there] = planned("data.cache_dir=a")[1], planned("data.cache_dir=b", "data.num_workers=1")[1]
    assert here.folder == there.folder


@pytest.mark.parametrize("text", ["5e9209733777", "123456789012", "a b", 'quo"te', "back\\slash\\", "x=1,2", "${seed}"])
def test_what_the_sweep_gives_reaches_train_py_as_it_is(text: str) -> None:
    assert composed(f"run_id={quoted(text)}")._get_node("run_id")._value() == text


def test_folds_repeat_every_row_and_seed() -> None:
    rows, trials = planned("optim.lr=1e-4,3e-4", "seed=0,1", folds=3)
    assert [row.name for row in rows] == ["optim.lr=0.0001", "optim.lr=0.0003"]
    assert [(trial.seed, trial.fold, trial.row) for trial in trials] == [
        (seed, fold, row.name) for seed in (0, 1) for fold in range(3) for row in rows
    ]
    assert len({trial.folder for trial in trials}) == 12
    for trial in trials:
        assert {"data.folds=3", f"data.fold={trial.fold}"} <= set(trial.overrides)
        assert trial.repetition == f"seed {trial.seed}, fold {trial.fold}"
    [one] = planned("seed=1")[1]
    assert (one.fold, one.repetition) == (None, "seed 1")


def test_folds_of_one_combination_are_a_sweep() -> None:
    [row], trials = planned(folds=2)
    assert [trial.row for trial in trials] == [row.name] * 2


@pytest.mark.parametrize(
    ("arguments", "steps", "sentence"),
    [
        (["data.fold=0,1"], None, r"^data.fold cannot be set for trials; folds=3 sets it\.$"),
        (["data.folds=2"], None, r"^data.folds cannot be set for trials; folds=3 sets it\.$"),
        ([], [{"name": "A", "set": ["data.fold=1"]}], r"row 'A': data.fold cannot be set; folds=3 sets it\.$"),
        (
            ["data.val_fraction=0.2,0.3"],
            None,
            r"row 'data.val_fraction=0.2': data.val_fraction=0.2 and data.folds=3 both",
        ),
        (["data.val_fraction=0.2"], None, r"^data.val_fraction=0.2 and data.folds=3 both choose"),
    ],
)
def test_only_the_sweep_chooses_the_folds(arguments: list[str], steps: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        planned(*arguments, ablation=steps and {"rows": steps}, folds=3)
