"""Inference time by batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vitexp.runs.finished import FinishedRun
from vitexp.system.timing import time_in_turns

BATCH_SIZES = (1, 8, 32, 128, 512)
_REPEATS = 20
_WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds per batch, median and quartiles over the repeats, and images per second at the median."""

    batch_size: int
    ms: float
    ms_quartiles: tuple[float, float]
    images_per_s: float


def measure_latency(
    run: FinishedRun, *, batch_sizes: tuple[int, ...] = BATCH_SIZES, repeats: int = _REPEATS
) -> list[Latency]:
    """Measure the time from uint8 images to probabilities, both on the device, in the precision of the run's test.

    The batch sizes take turns, so that load spikes affect all equally.
    """
    size = run.image_size
    images = torch.randint(0, 256, (max(batch_sizes), size, size, 3), dtype=torch.uint8, device=run.device)

    def turn_of(batch_size: int) -> Callable[[], int]:
        def turn() -> int:
            run.logits(images[:batch_size]).softmax(dim=1)
            return batch_size

        return turn

    turns = {str(batch_size): turn_of(batch_size) for batch_size in batch_sizes}
    for turn in turns.values():
        for _ in range(_WARM_UP):
            turn()
    speeds = time_in_turns(turns, repeats=repeats, device=run.device)
    latencies = []
    for batch_size in batch_sizes:
        milliseconds = 1000 * batch_size / np.array(speeds[str(batch_size)])
        first, ms, third = np.percentile(milliseconds, [25, 50, 75]).tolist()
        latencies.append(
            Latency(batch_size=batch_size, ms=ms, ms_quartiles=(first, third), images_per_s=1000 * batch_size / ms)
        )
    return latencies
