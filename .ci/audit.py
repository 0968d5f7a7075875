"""Fails for a known vulnerability of what is installed beside it; pip-audit knows them, where it has a network."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import distributions
from typing import Any

# Findings without a fixed version that do not concern us: the id, and why.
ACCEPTED: dict[str, str] = {}


def main() -> int:
    installed = {each.metadata["Name"]: each.version.partition("+")[0] for each in distributions()}  # no +cpu, +cu130
    installed.pop("vitexp", None)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(f"{name}=={version}" for name, version in sorted(installed.items())))
        requirements.flush()
        options = ("--disable-pip", "--no-deps", "--format=json", "--progress-spinner=off", "--timeout=15")
        line = [sys.executable, "-m", "pip_audit", *options, "--requirement", requirements.name]
        ended = subprocess.run(line, capture_output=True, text=True, check=False)
    if not ended.stdout.startswith("{"):
        if "Connect" not in ended.stderr and "Timeout" not in ended.stderr:
            print(f"pip-audit failed: {ended.stderr.strip()}")
            return 1
        report: dict[str, Any] = {"dependencies": []}
    else:
        report = json.loads(ended.stdout)
    said, failed = verdict(report, ACCEPTED)
    print(said)
    return int(failed)


def verdict(report: Mapping[str, Any], accepted: Mapping[str, str]) -> tuple[str, bool]:
    """What pip-audit's JSON report says, for people, and whether it is a failure."""
    asked = report["dependencies"]
    audited = [each for each in asked if "skip_reason" not in each]
    if not audited:
        return "pip-audit: no vulnerability service can be reached from here, NOTHING was audited", False
    found = [
        f"{each['name']} {each['version']}: {finding['id']}, {_mended(finding)}"
        for each in audited
        for finding in each["vulns"]
        if accepted.keys().isdisjoint({finding["id"], *finding.get("aliases", ())})
    ]
    unknown = [each["name"] for each in asked if "skip_reason" in each]
    lines = [f"pip-audit: {len(audited)} packages audited, {len(found)} with findings that were not accepted", *found]
    if unknown:
        lines.append(f"not known to the service: {', '.join(unknown)}")
    return "\n".join(lines), bool(found)


def _mended(finding: Mapping[str, Any]) -> str:
    versions = finding["fix_versions"]
    return f"mended in {' or '.join(versions)}" if versions else "not mended yet"


if __name__ == "__main__":
    sys.exit(main())
