"""Fail if an installed package has a known vulnerability; pass if pip-audit cannot reach its database."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import distributions
from typing import Any

# Findings without a fixed version that do not affect vitexp: the id, and why.
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
    summary, failed = verdict(report, ACCEPTED)
    print(summary)
    return int(failed)


def verdict(report: Mapping[str, Any], accepted: Mapping[str, str]) -> tuple[str, bool]:
    """Summarize pip-audit's JSON report; return the text and whether it is a failure."""
    packages = report["dependencies"]
    audited = [each for each in packages if "skip_reason" not in each]
    if not audited:
        return "pip-audit: no vulnerability service can be reached; NOTHING was audited", False
    found = [
        f"{each['name']} {each['version']}: {finding['id']}, {_fix(finding)}"
        for each in audited
        for finding in each["vulns"]
        if accepted.keys().isdisjoint({finding["id"], *finding.get("aliases", ())})
    ]
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    lines = [f"pip-audit: {len(audited)} packages audited, unaccepted findings: {len(found)}", *found]
    if unknown:
        lines.append(f"unknown to the service: {', '.join(unknown)}")
    return "\n".join(lines), bool(found)


def _fix(finding: Mapping[str, Any]) -> str:
    versions = finding["fix_versions"]
    return f"fixed in {' or '.join(versions)}" if versions else "no fix yet"


if __name__ == "__main__":
    sys.exit(main())
