"""Peak memory of a run against what it must hold: data, model, gradients, optimizer state and activations."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from vitexp.bench.report import Row, Subject, shown
from vitexp.bench.start import checked, train_command
from vitexp.bench.step import train_step
from vitexp.build import build_datamodule, build_net
from vitexp.hardware import choose_device

# Given a file of names, imports the modules and tells the peak memory.
IMPORTS = """
import contextlib, importlib, json, sys
from vitexp.bench.memory import peak_resident_bytes
for name in json.load(open(sys.argv[1]))["modules"]:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
print(peak_resident_bytes())
"""


class PeakMemory(Callback):
    """Writes into the file `path`, after the test: {"peak_bytes": of the device's memory, "modules": all imported}."""

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = pl_module.device
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()
        self.path.write_text(json.dumps({"peak_bytes": peak, "modules": sorted(sys.modules)}))


def peak_resident_bytes() -> int:
    """The most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands ru_maxrss on to child processes: a child of a large process begins with that one's peak
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_memory(config: DictConfig, overrides: Sequence[str]) -> Subject:
    """A short run in a process of its own. On the CPU without what the imports alone take, in another process."""
    parts = _computed(config)
    computed = sum(parts.values())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "peak.json"
        checked(
            train_command(
                overrides,
                f'log_dir="{folder}"',
                f"trainer.max_steps={config.steps}",
                *(f"trainer.limit_{part}_batches={config.steps}" for part in ("train", "val", "test")),
                "+callbacks.peak_memory._target_=vitexp.bench.memory.PeakMemory",
                f'+callbacks.peak_memory.path="{path}"',
            )
        )
        peak = json.loads(path.read_text())["peak_bytes"]
        on_cuda = choose_device(config.trainer.accelerator).type == "cuda"
        imports = 0 if on_cuda else int(checked([sys.executable, "-c", IMPORTS, str(path)]))
    growth = peak - imports
    facts = {f"{name}_bytes": float(value) for name, value in parts.items()}
    return Subject(
        name="memory",
        title=f"Peak memory of a run: {config.model.name} on {config.data.name}, batch {config.data.batch_size}",
        unit="MiB",
        comparison="ratio",
        comparison_title="of what is computed",
        rows=[
            Row(name="computed", rounds=[computed / 2**20], compared=1.0),
            Row(name="run, beyond its imports", rounds=[growth / 2**20], compared=growth / computed),
        ],
        facts={**facts, "peak_bytes": float(peak), "imports_bytes": float(imports)},
        lines=[", ".join(f"{name} {shown(value / 2**20)} MiB" for name, value in parts.items() if value)],
    )


def _computed(config: DictConfig) -> dict[str, int]:
    """Bytes that a run needs, by what for. Makes the cached data too, where they are not there yet."""
    datamodule, _ = build_datamodule(config)
    datamodule.setup()
    images = sum(len(part.labels) for part in (datamodule.train, datamodule.val, datamodule.test))
    step = train_step(config, build_net(config, num_classes=len(datamodule.classes)))
    step()
    return {
        "data": images * 3 * datamodule.image_size**2,
        **step.state_bytes(),
        "activations": step.activation_bytes(),
    }
