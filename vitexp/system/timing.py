"""Fair timing: all contestants take turns in one process, so that load spikes affect all equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def time_in_turns(
    contestants: Mapping[str, Callable[[], int]], *, repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Return images per second of every contestant in every round. A turn returns the number of images it processed.

    Each round starts with a different contestant, so that none always follows the same one.
    """
    names = list(contestants)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(repeats):
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            start = finished(device)
            images = contestants[name]()
            speeds[name].append(images / (finished(device) - start))
    return speeds


def finished(device: torch.device) -> float:
    """Wait until the device has finished its work, and return the time in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
