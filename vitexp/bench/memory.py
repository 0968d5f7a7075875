"""Peak memory of a run, compared with what it must hold: data, model, gradients, optimizer state and activations."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from vitexp.bench.loader import ready_data
from vitexp.bench.report import Row, Subject
from vitexp.bench.start import output_of, train_in_process
from vitexp.bench.step import train_step
from vitexp.data.loading import ResidentBatches
from vitexp.errors import UserError
from vitexp.runs.build import build_net
from vitexp.system.hardware import choose_device
from vitexp.text import format_value

# Import the modules that a file lists, and print the peak memory.
IMPORTS = """
import contextlib, importlib, json, sys
from vitexp.bench.memory import peak_resident_bytes
for name in json.load(open(sys.argv[1]))["modules"]:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
print(peak_resident_bytes())
"""


class PeakMemory(Callback):
    """A callback that writes the peak device memory, until training ends and until the run ends, to a file.

    path: the file, {"training_bytes": int, "run_bytes": int, "modules": names of the imported modules}.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        datamodule = cast(Any, trainer).datamodule
        for part in (datamodule.train, datamodule.test):
            part.stored.max()  # reads every page of the memory map, as a whole epoch would

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training = _peak_bytes(pl_module.device)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        peaks = {"training_bytes": self.training, "run_bytes": _peak_bytes(pl_module.device)}
        self.path.write_text(json.dumps({**peaks, "modules": sorted(sys.modules)}), encoding="utf-8")


def _peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # A child process inherits ru_maxrss on Linux, and with it the peak of its parent.
        [line] = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError as error:
        raise UserError("the peak memory of a process cannot be measured on Windows.") from error
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_memory(config: DictConfig, overrides: Sequence[str]) -> Subject:
    """Measure a short run in a separate process; on the CPU, exclude the memory that its imports alone take."""
    parts = _computed(config)
    computed = sum(parts.values())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        short = [f"trainer.limit_{part}_batches={config.steps}" for part in ("train", "val", "test")]
        path = train_in_process(PeakMemory, Path(folder), *overrides, f"trainer.max_steps={config.steps}", *short)
        peaks = json.loads(path.read_text(encoding="utf-8"))
        on_cuda = choose_device(config.trainer.accelerator).type == "cuda"
        imports = 0 if on_cuda else int(output_of([sys.executable, "-c", IMPORTS, str(path)]))
    grown = {name: peaks[f"{name}_bytes"] - imports for name in ("training", "run")}
    facts = {f"{name}_bytes": value for name, value in (*parts.items(), ("imports", imports))}
    return Subject(
        title=f"Peak memory of a run: {config.model.name} on {config.data.name}, batch {config.data.batch_size}",
        unit="MiB",
        comparison="ratio",
        comparison_title="ratio to computed",
        rows=[
            Row(name="computed", rounds=[computed / 2**20], compared=1.0),
            Row(name="until training ends", rounds=[grown["training"] / 2**20], compared=grown["training"] / computed),
            Row(name="whole run", rounds=[grown["run"] / 2**20], compared=grown["run"] / computed),
        ],
        facts=facts,
        lines=[
            "computed: " + ", ".join(f"{name} {format_value(value / 2**20)}" for name, value in parts.items()),
            *([] if on_cuda else [f"not included: imports {format_value(imports / 2**20)}"]),
        ],
    )


def _computed(config: DictConfig) -> dict[str, int]:
    """Return the bytes that a run needs on the device, by purpose. Also prepares and caches the data."""
    datamodule, _ = ready_data(config)
    step = train_step(config, build_net(config, num_classes=len(datamodule.classes)))
    step()
    data = datamodule.stored_bytes
    on_device = step.device.type == "cpu" or isinstance(datamodule.train_dataloader(), ResidentBatches)
    return {"data": data if on_device else 0, **step.state_bytes(), "activations": step.activation_bytes()}
