"""Resume a stopped run: find it, and check that it still has the same configuration. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vitexp.config.compose import plain_of
from vitexp.config.conf import CONF
from vitexp.config.defaults import with_defaults
from vitexp.config.overrides import flatten, key_of, merged
from vitexp.config.renames import changed_defaults, read_config, set_dotted, upgrade_overrides
from vitexp.data.length import AUTO
from vitexp.errors import ConfigError, UserError, reason
from vitexp.runs.find import run_path
from vitexp.runs.record import deciding, read_result, runs_folder, warn_skipped
from vitexp.system.disk import typed

_T = TypeVar("_T")

# A resumed run may be longer, and use other hardware.
LENGTH = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
HARDWARE = (
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.compile"),
    *("trainer.accumulate_grad_batches", "trainer.float32_matmul_precision", "data.root", "data.source.root"),
    *("data.path", "data.source.path"),
)
DISPLAY = ("trainer.log_every_n_steps", "trainer.enable_model_summary", "trainer.profiler")


def run_to_resume(config: DictConfig) -> Path | None:
    """Return the folder of the run that `config.resume` names; None for a new run.

    "auto" is the newest run with this name and configuration, or the one with run_id. Raises ConfigError, which shows
    the differences, if the named run has a different configuration.
    """
    if config.resume is None:
        return None
    runs = runs_folder(config)
    if config.resume != "auto":
        folder = run_path(str(config.resume), config.log_dir).resolve()
        _result(folder)
    elif config.run_id is not None:
        folder = runs / str(config.run_id)
        if not (folder / "config.yaml").exists() or not (folder / "result.json").exists():
            return None
    else:
        return next((run for run in _newest_first(runs, config.seed) if not differences(run, config, LENGTH)), None)
    if changed := differences(folder, config):
        raise ConfigError(
            f"{typed(folder)} has a different configuration ({', '.join(changed)}); a resumed run may only be longer, "
            "log differently or use other hardware. Drop resume= to start a new run."
        )
    return folder


def is_finished(folder: Path, config: DictConfig) -> bool:
    """Return whether the run is completed and `config` does not make it longer."""
    return _result(folder)["status"] == "completed" and not set(LENGTH) & {
        key for key, _, _ in _changes(folder, config)
    }


def why_not_resumed(config: DictConfig) -> str | None:
    """Return why resume=auto starts a new run; None if it does not, or if a run_id names the run."""
    if config.resume != "auto" or config.run_id is not None:
        return None
    for run in _newest_first(runs_folder(config), config.seed):
        record = _result(run)
        if record["status"] == "completed" or bool(record.get("debug")) != bool(config.trainer.get("debug")):
            continue
        if not (changed := differences(run, config, LENGTH)):
            return None
        others = f" and {len(changed) - 3} more" if changed[3:] else ""
        return f"a new run, because {typed(run)} has a different configuration ({', '.join(changed[:3])}{others})"
    return "no stopped run of this command; a new one starts"


def resumed(config: DictConfig, overrides: Sequence[str], compose: Callable[[Sequence[str]], DictConfig]) -> DictConfig:
    """Return the configuration with which to run `config`: if resume names a run, its own, changed by `overrides`.

    The run's config.yaml counts, not what its recorded overrides would compose today. overrides: those just typed.
    compose: composes overrides as the command does.
    """
    if not _names_a_folder(config):
        return config
    folder = run_path(str(config.resume), config.log_dir).resolve()
    stored, new = upgrade_overrides(_result(folder).get("overrides", [])), merged([], overrides)
    plain: Any = OmegaConf.to_container(read_config(folder / "config.yaml"), resolve=True)
    if new:
        try:
            before, after = map(plain_of, (compose(stored), compose(merged(stored, new))))
        except (ConfigError, HydraException):  # recorded overrides of other options, such as a repeated run has
            before, after = map(plain_of, (compose([]), compose(new)))
        _patch(plain, before, after)
        for key in map(key_of, new):  # also if the value is what the recorded overrides compose today
            *parents, last = key.split(".")
            node: Any = after
            for parent in parents:
                node = node.get(parent) if isinstance(node, dict) else None
            if isinstance(node, dict) and last in node and not (CONF / key).is_dir():  # not a group, which was selected
                set_dotted(plain, key, node[last])
    return OmegaConf.create({**plain, "resume": str(folder)})  # its log_dir may be another one


def as_it_began(config: DictConfig) -> DictConfig:
    """Return `config`; if resume=auto continues a run, with the defaults of the time when that run began.

    config: checked. Raises ConfigError as `run_to_resume` does.
    """
    folder = run_to_resume(config) if config.resume == "auto" else None
    return config if folder is None else _with_former_defaults(config, read_config(folder / "config.yaml"))


def _with_former_defaults(config: DictConfig, stored: DictConfig) -> DictConfig:
    """Return `config` with the former default where it has the current one and the stored configuration the former."""
    from vitexp.config.rules import monitored  # pydantic takes a while to import

    stored, checkpoint = stored.copy(), {"monitor": "auto", "mode": "auto"}
    if monitored(stored) == monitored({"task": stored.task, "checkpoint": checkpoint}):
        stored.checkpoint.update(checkpoint)  # as it was written before there was "auto"
    changed = {
        key: former
        for key, (former, current) in changed_defaults().items()
        if OmegaConf.select(stored, key) == former and OmegaConf.select(config, key) == current
    }
    config = config.copy()
    for key, former in changed.items():
        OmegaConf.update(config, key, former)
    return config


def _patch(node: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
    """Change in `node` what differs between `before` and `after`."""
    for key in {**before, **after}:
        if key not in after:
            node.pop(key, None)
        elif key not in before or before[key] != after[key]:
            mine, old, new = node.get(key), before.get(key), after[key]
            if isinstance(mine, dict) and isinstance(old, dict) and isinstance(new, dict):
                _patch(mine, old, new)
            else:
                node[key] = new


def _names_a_folder(config: DictConfig) -> bool:
    return config.resume not in (None, "auto")


def differences(folder: Path, config: DictConfig, also: Sequence[str] = ()) -> list[str]:
    """Describe the changes in `config` that the run in `folder` does not allow. also: more keys that may not change."""
    allowed = set(LENGTH) - set(also)
    return [
        f"{key}={old}, now {new}"
        for key, old, new in _changes(folder, config)
        if not (key in allowed and _longer(key, old, new))
    ]


def _changes(folder: Path, config: DictConfig) -> list[tuple[str, Any, Any]]:
    stored = read_config(folder / "config.yaml")
    before, now = map(_compared, (stored, _with_former_defaults(config, stored)))
    for key, name in (("data.batch_size", "batch_size"), ("trainer.max_epochs", "max_epochs")):
        if before.get(key) == AUTO != now.get(key):
            before[key] = (_result(folder).get("training") or {}).get(name)  # what the run chose
    absent = "absent"  # and without a default
    return [
        (key, before.get(key, absent), now.get(key, absent))
        for key in {**before, **now}
        if before.get(key, absent) != now.get(key, absent)
    ]


def _compared(config: DictConfig) -> dict[str, Any]:
    """Return the options that a resumed run may not change, and its length, with dotted keys."""
    from vitexp.config.rules import monitored  # pydantic takes a while to import

    plain = with_defaults(deciding(config, ignored=(*HARDWARE, *DISPLAY)))
    plain["checkpoint"]["monitor"], plain["checkpoint"]["mode"] = monitored(plain)
    return dict(flatten(plain))


def _longer(key: str, old: Any, new: Any) -> bool:
    if key == "trainer.max_time":
        return old is not None  # not compared: Lightning accepts several formats
    return isinstance(new, int) and (new == -1 or (isinstance(old, int) and old != -1 and new > old))


def _newest_first(task: Path, seed: int) -> Iterator[Path]:
    """Yield the folders of runs with this seed; those with damaged files are skipped with a warning."""
    runs = []
    for file in task.glob("*/result.json"):
        if (result := _undamaged(read_result, file.parent)) is not None and result.get("seed") == seed:
            runs.append((str(result.get("started_at")), file.parent.name, file.parent))
    for *_, folder in sorted(runs, reverse=True):
        if _undamaged(read_config, folder / "config.yaml") is not None:
            yield folder


def _undamaged(read: Callable[[Path], _T], path: Path) -> _T | None:
    """Return what `read` returns; None if there is nothing, and with a warning if it is damaged."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except UserError as error:
        warn_skipped(str(error))
        return None


def _result(folder: Path) -> dict[str, Any]:
    """Return the record of a run. Raises ConfigError if it cannot be resumed from it."""
    name = typed(folder)
    if not (folder / "config.yaml").is_file() or not (folder / "result.json").exists():
        raise ConfigError(
            f"resume={name} is not a run folder with config.yaml and result.json; give one, or resume=auto."
        )
    try:
        return read_result(folder)
    except OSError as error:
        raise ConfigError(
            f"{name} cannot be resumed because its result.json cannot be read: {reason(error)}."
        ) from error
