"""Build the tables of recipes.md from the records of real runs, and write the results into each experiment.

    python .readme/results.py                       rewrite recipes.md and the headers of conf/experiment/*.yaml
    python .readme/results.py add RUN               first copy the record of a finished run of an experiment
    python .readme/results.py add ablation=NAME ... first copy the records of the sweep with these arguments

Results of `python -m vitexp evaluate` are included: the mean over views (tta=true), and a separate record for other
data. Records are stored in .readme/results/, without host names, as <ablation>.json and as
<experiment>/<model>-<data>-<epochs>-<seed>.json. Experiments that have not been run share one line below the table; an
ablation that was run has its own table, between two markers in recipes.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from omegaconf import OmegaConf

from vitexp.errors import UserError
from vitexp.runs.record import read_result
from vitexp.sweeps.folder import Sweep
from vitexp.sweeps.grid import GIVEN_BY_THE_SWEEP, plan
from vitexp.sweeps.tables.figure import draw
from vitexp.sweeps.tables.formats import to_markdown
from vitexp.sweeps.tables.results import Outcome
from vitexp.sweeps.tables.table import Table, build_table

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / ".readme" / "recipes.md"
RECORDS = ROOT / ".readme" / "results"
EXPERIMENTS = ROOT / "conf" / "experiment"
BEGIN, END = "<!-- {}: written by .readme/results.py -->\n", "<!-- end of {} -->\n"
NAMES = {
    "signs": "drawn signs",
    "gtsrb": "GTSRB",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "cifar10-jpeg": "CIFAR-10 (JPEG)",
    "cifar10-4x70": "four classes of CIFAR-10, 70 images each",
    "cifar10-4-others": "4,000 other images of the four classes",
}

Records = dict[tuple[str, str, int], list[dict[str, Any]]]  # by model, data and epochs; seeds in order


def add(run: Path) -> Path:
    """Copy result.json of a run folder and return the target folder. Raises ValueError if it must not be published."""
    record = _record(run)
    chosen = [each.partition("=")[2] for each in record["overrides"] if each.startswith("experiment=")]
    if len(chosen) != 1:
        raise ValueError(f"{run} is not a run of an experiment")
    records = [record]
    for file in sorted(run.glob("evaluation/on-*/evaluation.json")):
        elsewhere = json.loads(file.read_text(encoding="utf-8"))
        records.append({**record, "data": elsewhere["data"], "metrics": {"test": elsewhere["metrics"]}})
    evaluation = run / "evaluation" / "evaluation.json"
    measured = json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.exists() else {}
    if views := measured.get("test_time_augmentation"):
        record["test_time_augmentation"] = views
    for each in records:
        names = each["model"]["name"], each["data"]["name"], each["epochs"], each["seed"]
        path = RECORDS / chosen[0] / f"{'-'.join(str(name) for name in names)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(each, indent=2) + "\n", encoding="utf-8")
    return RECORDS / chosen[0]


def add_ablation(words: list[str], *, logs: Path) -> Path:
    """Copy result.json of every trial of a sweep. Raises ValueError if one must not be published."""
    name = words[0].removeprefix("ablation=")
    ablation: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "ablation" / f"{name}.yaml"))
    find = partial(Sweep.of(words[0], words[1:]).folder, logs, name=None, earlier=logs / name)
    planned = plan(find, ablation=ablation, arguments=words[1:], earlier=logs / name)
    order = [row.name for row in planned.rows]
    trials = sorted(planned.trials, key=lambda trial: order.index(trial.row))
    rows = [{"row": trial.row, "result": _record(trial.folder)} for trial in trials]
    path = RECORDS / f"{name}.json"
    record = {"command": " ".join(["python sweep.py", *words]), "trials": rows}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def _record(run: Path) -> dict[str, Any]:
    record = read_result(run)
    if record["status"] != "completed":
        raise ValueError(f"{run} is not a completed run")
    if record["environment"]["git_dirty"]:
        raise ValueError(f"{run} was trained with uncommitted code")
    given = tuple(f"{key}=" for key in GIVEN_BY_THE_SWEEP)
    record["overrides"] = [each for each in record["overrides"] if not each.startswith(given)]
    if absolute := [each for each in record["overrides"] if "=/" in each or "=~" in each]:
        raise ValueError(f"{absolute} contain absolute paths; use paths relative to the working directory")
    record["environment"].pop("hostname", None)
    return record


def records_of(experiment: str) -> Records:
    found: Records = defaultdict(list)
    for path in sorted((RECORDS / experiment).glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[record["model"]["name"], record["data"]["name"], record["epochs"]].append(record)
    return dict(sorted(found.items()))


def accuracy(seeds: list[dict[str, Any]]) -> str:
    text = spread([record["metrics"]["test"]["accuracy"] for record in seeds])
    views = [each for record in seeds if (each := record.get("test_time_augmentation"))]
    if len(views) == len(seeds):
        shares = [each["metrics"]["accuracy"] for each in views]
        text += f"; {spread(shares)} as the mean of {len(views[0]['views'])} views"
    return text


def spread(shares: list[float]) -> str:
    values = [100 * share for share in shares]
    if len(values) == 1:
        return f"{values[0]:.2f}%"
    return f"{mean(values):.2f} ± {stdev(values):.2f}% ({len(values)} seeds)"


def training(seeds: list[dict[str, Any]]) -> str:
    """Return epochs, the longest training time and the machines."""
    seconds = max(record["timing"]["fit_s"] for record in seeds)
    machines = sorted({record["environment"]["device"] for record in seeds})
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{seeds[0]['epochs']} epochs, {took}, {' and '.join(machines)}"


def head(text: str, key: str) -> str:
    """Return the text after `# key:` at the top of an experiment, or ""."""
    found = re.search(rf"^# {key}: (.*)$", text, re.MULTILINE)
    return found[1].rstrip(".") if found else ""


def table() -> str:
    """Return the table of the experiments that were run, and a line that names the others."""
    rows = ["| experiment | net | images | test accuracy | training | published |", "|---|---|---|---|---|---|"]
    not_run = []
    for file in sorted(EXPERIMENTS.glob("*.yaml")):
        published = head(file.read_text(encoding="utf-8"), "Published")
        found = records_of(file.stem)
        for (model, data, _), seeds in found.items():
            longer = [each for each in seeds[0]["overrides"] if each.startswith("trainer.max_epochs=")]
            named = " ".join([file.stem, *longer])
            cells = (f"`{named}`", f"`{model}`", NAMES.get(data, data), accuracy(seeds), training(seeds), published)
            rows.append(f"| {' | '.join(cells)} |")
        if not found:
            not_run.append(f"`{file.stem}`")
    if not_run:
        rows += ["", f"Not run yet: {', '.join(not_run)}. The head of each file has its command and published numbers."]
    return "\n".join(rows) + "\n"


def recorded_table(name: str) -> tuple[dict[str, Any], Table]:
    """Return the record of an ablation and its table."""
    recorded = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    outcomes = [
        Outcome(row=each["row"], seed=each["result"]["seed"], folder=Path(), status="completed", result=each["result"])
        for each in recorded["trials"]
    ]
    is_cumulative = bool(OmegaConf.load(ROOT / "conf" / "ablation" / f"{name}.yaml").get("cumulative"))
    return recorded, build_table(outcomes, title=name, is_cumulative=is_cumulative)


def ablation_table(name: str) -> str:
    """Return an ablation's command, machines and table."""
    recorded, table = recorded_table(name)
    machines = sorted({each["result"]["environment"]["device"] for each in recorded["trials"]})
    return f"`{recorded['command']}`, on {' and '.join(machines)}:\n\n{to_markdown(table)}"


def reached(experiment: str) -> str:
    """Return the `# Reached:` line of an experiment file."""
    parts = [
        f"{model} on {NAMES.get(data, data)} {accuracy(seeds)} ({training(seeds)})"
        for (model, data, _), seeds in records_of(experiment).items()
    ]
    return f"# Reached: {'; '.join(parts) or 'not run'}.\n"


def written() -> dict[Path, str]:
    """Return recipes.md and the experiment files as they should be."""
    text = _filled(GUIDE.read_text(encoding="utf-8"), "results", table())
    for file in sorted(RECORDS.glob("*.json")):
        text = _filled(text, file.stem, ablation_table(file.stem))
    texts = {GUIDE: text}
    for file in EXPERIMENTS.glob("*.yaml"):
        text = re.sub(r"^# Reached: .*\n", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        before, defaults, rest = text.partition("defaults:\n")
        texts[file] = before + reached(file.stem) + defaults + rest
    return texts


def _filled(text: str, name: str, content: str) -> str:
    begin, end = BEGIN.format(name), END.format(name)
    if begin not in text or end not in text:
        raise ValueError(f"{GUIDE.name} has no markers for {name}: {begin}{end}")
    before, _, rest = text.partition(begin)
    return before + begin + content + end + rest.partition(end)[2]


if __name__ == "__main__":
    if sys.argv[1:2] == ["add"]:
        words = sys.argv[2:]
        try:
            is_sweep = words[0].startswith("ablation=")
            print(add_ablation(words, logs=Path("logs").resolve()) if is_sweep else add(Path(words[0])))
        except (OSError, ValueError, UserError) as error:
            print(f"results.py: {error}", file=sys.stderr)
            sys.exit(2)
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")
    draw(recorded_table("modern_recipe")[1], GUIDE.with_name("modern_recipe.png"))
