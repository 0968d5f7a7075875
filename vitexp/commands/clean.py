"""Remove the checkpoints of completed runs, debug runs included: list them, ask, and remove them.

    vitexp clean [yes=true] [name=NAME] [data=NAME] [model=NAME] [status=STATUS] [log_dir=FOLDER]

yes=true       remove without asking; without it, and without a terminal, nothing is removed
name           only runs with this name, run id or NAME/RUN_ID; * and ? match any text, and commas separate
               alternatives, as in the next keys too
data, model    only runs on this data set, with this model
status         completed, debug (default: both) | failed | interrupted | killed: these three can then no longer be
               resumed
log_dir        the folder of the runs (default: logs)

Every command still works on such a run, because its tested weights are in model.safetensors. Only resume=RUN, which
makes a completed run longer, needs checkpoints. Runs in progress and files outside of run folders are never touched.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vitexp.commands.runs import FILTERS, log_folder, rows_of
from vitexp.commands.words import read_words, run_command
from vitexp.config.overrides import command_line
from vitexp.errors import ConfigError, UserError
from vitexp.runs.cleanup import Removable, removable, remove
from vitexp.runs.inventory import matching, runs_in
from vitexp.text import file_size, plain_table, plural

_ENDED = ("completed", "debug")
_STOPPED = ("failed", "interrupted", "killed")


def main(words: Sequence[str]) -> None:
    given = read_words(words, keys=(*FILTERS, "yes", "log_dir"))
    log_dir, yes = log_folder(given.get("log_dir")), given.flag("yes")
    patterns = {"status": ",".join(_ENDED), **{key: given.get(key) for key in FILTERS if given.get(key)}}
    if set(patterns["status"].split(",")) - {*_ENDED, *_STOPPED}:
        raise ConfigError(f"status={patterns['status']} must be one or more of {', '.join((*_ENDED, *_STOPPED))}.")
    found = list[Removable]()
    everything = runs_in(log_dir)
    for run in matching(everything, patterns):
        try:
            found.append(removable(run, log_dir=log_dir))
        except UserError as error:
            print(f"skipped  {run.path}: {error}")
    found = [each for each in found if each.files]
    stopped = [run for run in everything if run.status in _STOPPED and any(run.folder.glob("checkpoints/*.ckpt"))]
    if stopped and not given.get("status"):
        print(
            f"kept     those of {plural(len(stopped), 'unfinished run')}; status=failed,interrupted,killed selects them"
        )
    if not found:
        print(f"there are no checkpoints to remove in {log_dir}")
        return
    total = _show(found)
    if not yes and not _confirmed(total):
        return
    freed = 0
    for each in found:
        try:
            freed += remove(each, log_dir=log_dir, command=command_line("clean", *words))
        except UserError as error:
            print(f"skipped  {each.run.path}: {error}")
    print(f"removed {file_size(freed)}")


def _show(found: Sequence[Removable]) -> str:
    """Print what would be removed, the largest first, one row per run or sweep; return a summary."""
    by_run = {each.run.folder: each for each in found}
    rows = []
    for row in rows_of([each.run for each in found], with_trials=False):
        parts = [by_run[run.folder] for run in row.runs]
        names = sorted({path.name for part in parts for path in part.files if not path.name.startswith(".")})
        rows.append((sum(part.size for part in parts), row.name, row.status, ", ".join(names)))
    cells = [[name, status, files, file_size(size)] for size, name, status, files in sorted(rows, reverse=True)]
    print(plain_table(("run", "status", "checkpoints", "size"), cells, ("left", "left", "left", "right")), end="")
    size, resumable = sum(each.size for each in found), [each for each in found if each.run.status in _STOPPED]
    if resumable:
        print(f"{plural(len(resumable), 'run')} could then no longer be resumed")
    return f"{file_size(size)} of {plural(len(found), 'run')}"


def _confirmed(total: str) -> bool:
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):  # None: it is closed
        print(f"{total}; yes=true removes them")
        return False
    try:
        return input(f"remove {total}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


if __name__ == "__main__":
    run_command(main, __doc__)
