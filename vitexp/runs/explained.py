"""The explainer of a finished run, alone or to stand beside another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitexp.errors import ConfigError
from vitexp.explain.explainer import Explainer
from vitexp.runs.finished import FinishedRun, load_run
from vitexp.runs.test_set import open_test_set


def load_explainer(
    folder: Path | str, data: Sequence[str] = (), *, beside: Explainer[FinishedRun] | None = None
) -> Explainer[FinishedRun]:
    """data: where the data set of the first run lies now, as typed (data.root=..., data.download=true).

    beside: the first run; what was typed holds for this one too where it was trained on the same data set. Raises
    ConfigError where their classes differ, UserError where the run, or the data that were typed, cannot be loaded.
    """
    run = load_run(folder)
    if beside and run.classes != beside.run.classes:
        raise ConfigError(
            f"{run.folder} has other classes than {beside.run.folder}; two runs are compared on the same ones."
        )
    same_data = not beside or run.config.data.name == beside.run.config.data.name
    return Explainer[FinishedRun](open_test_set(run, data)[0] if data and same_data else run)
