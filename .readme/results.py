"""Builds README's table of results from the records of real runs, and writes into each experiment what it reached.

    python .readme/results.py            rewrites README.md and the heads of conf/experiment/*.yaml
    python .readme/results.py add RUN    before that, copies the record of a finished run, without its machine's name

Records lie in .readme/results/ as <experiment>/<model>-<data>-<seed>.json. An experiment belongs to the table whether
it was run or not.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / ".readme" / "results"
EXPERIMENTS = ROOT / "conf" / "experiment"
BEGIN, END = "<!-- results: written by .readme/results.py -->\n", "<!-- end of results -->\n"
NAMES = {"gtsrb": "GTSRB", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "cifar10-jpeg": "CIFAR-10 (JPEG)"}

Records = dict[tuple[str, str], list[dict[str, Any]]]  # by model and data, in the order of seeds


def add(run: Path) -> Path:
    """Copy result.json of a run folder. Raises ValueError where it is no record to show."""
    record = json.loads((run / "result.json").read_text())
    chosen = [each.partition("=")[2] for each in record["overrides"] if each.startswith("experiment=")]
    if record["status"] != "completed" or len(chosen) != 1:
        raise ValueError(f"{run} is no completed run of an experiment")
    if record["environment"]["git_dirty"]:
        raise ValueError(f"{run} was trained by code that is in no commit")
    if absolute := [each for each in record["overrides"] if "=/" in each or "=~" in each]:
        raise ValueError(f"{absolute} name places of one machine; run it with paths below the working directory")
    del record["environment"]["hostname"]
    path = RECORDS / chosen[0] / f"{record['model']['name']}-{record['data']['name']}-{record['seed']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def records(experiment: str) -> Records:
    found: Records = defaultdict(list)
    for path in sorted((RECORDS / experiment).glob("*.json")):
        record = json.loads(path.read_text())
        found[record["model"]["name"], record["data"]["name"]].append(record)
    return found


def accuracy(seeds: list[dict[str, Any]]) -> str:
    values = [100 * record["metrics"]["test"]["accuracy"] for record in seeds]
    if len(values) == 1:
        return f"{values[0]:.2f} %"
    return f"{mean(values):.2f} ± {stdev(values):.2f} % ({len(values)} seeds)"


def training(seeds: list[dict[str, Any]]) -> str:
    """The longest training and the machines."""
    seconds = max(record["timing"]["fit_s"] for record in seeds)
    machines = sorted({record["environment"]["device"] for record in seeds})
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{seeds[0]['epochs']} epochs, {took}, {' and '.join(machines)}"


def head(text: str, key: str) -> str:
    """What a comment at the top of an experiment says after `key`, "" where it says nothing."""
    found = re.search(rf"^# {key}: (.*)$", text, re.MULTILINE)
    return found[1].rstrip(".") if found else ""


def table() -> str:
    rows = ["| experiment | net | images | test accuracy | training | published |", "|---|---|---|---|---|---|"]
    for file in sorted(EXPERIMENTS.glob("*.yaml")):
        published = head(file.read_text(), "Published")
        found = records(file.stem)
        for (model, data), seeds in found.items():
            cells = (f"`{file.stem}`", f"`{model}`", NAMES.get(data, data), accuracy(seeds), training(seeds), published)
            rows.append(f"| {' | '.join(cells)} |")
        if not found:
            rows.append(f"| `{file.stem}` | | | not run | | {published} |")
    return "\n".join(rows) + "\n"


def reached(experiment: str) -> str:
    """The line in the head of an experiment file."""
    parts = [
        f"{model} on {NAMES.get(data, data)} {accuracy(seeds)} ({training(seeds)})"
        for (model, data), seeds in records(experiment).items()
    ]
    return f"# Reached: {'; '.join(parts) or 'not run'}.\n"


def written() -> dict[Path, str]:
    """README.md and the experiments as they should be."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    texts = {readme: before + BEGIN + table() + END + rest.partition(END)[2]}
    for file in EXPERIMENTS.glob("*.yaml"):
        text = re.sub(r"^# Reached: .*\n", "", file.read_text(), flags=re.MULTILINE)
        before, defaults, rest = text.partition("defaults:\n")
        texts[file] = before + reached(file.stem) + defaults + rest
    return texts


if __name__ == "__main__":
    if sys.argv[1:2] == ["add"]:
        print(add(Path(sys.argv[2])))
    for path, text in written().items():
        path.write_text(text)
