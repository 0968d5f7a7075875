"""How long an answer takes, and how many images a second go through, by batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vitexp.runs.finished import FinishedRun
from vitexp.system.timing import take_turns

BATCH_SIZES = (1, 8, 32, 128, 512)
_REPEATS = 20
_WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of one batch size: milliseconds a batch, median and quartiles over the repeats, and images a second (median)."""

    batch_size: int
    ms: float
    ms_quartiles: tuple[float, float]
    images_per_s: float


def measure_latency(
    run: FinishedRun, *, batch_sizes: tuple[int, ...] = BATCH_SIZES, repeats: int = _REPEATS
) -> list[Latency]:
    """From prepared uint8 images on the device of the net to probabilities on it, in the precision of the run's test.

    All batch sizes take turns, so that the machine's moods hit them alike.
    """
    size = run.image_size
    images = torch.randint(0, 256, (max(batch_sizes), size, size, 3), dtype=torch.uint8, device=run.device)

    def of(batch_size: int) -> Callable[[], int]:
        batch = images[:batch_size]

        def turn() -> int:
            run.logits(batch).softmax(dim=1)
            return batch_size

        return turn

    turns = {str(batch_size): of(batch_size) for batch_size in batch_sizes}
    for turn in turns.values():
        for _ in range(_WARM_UP):
            turn()
    speeds = take_turns(turns, repeats=repeats, device=run.device)
    latencies = []
    for batch_size in batch_sizes:
        milliseconds = 1000 * batch_size / np.array(speeds[str(batch_size)])
        first, median, third = np.percentile(milliseconds, [25, 50, 75]).tolist()
        latencies.append(
            Latency(
                batch_size=batch_size,
                ms=median,
                ms_quartiles=(first, third),
                images_per_s=1000 * batch_size / median,
            )
        )
    return latencies
