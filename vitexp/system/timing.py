"""Fair timing: all contestants take turns in one process, so that the machine's moods hit them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def take_turns(
    contestants: Mapping[str, Callable[[], int]], *, repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Images per second of every contestant in every round. A turn returns how many images it worked on.

    Each round begins with another contestant, so that none has always the same one before it.
    """
    names = list(contestants)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(repeats):
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            begun = finished(device)
            images = contestants[name]()
            speeds[name].append(images / (finished(device) - begun))
    return speeds


def finished(device: torch.device) -> float:
    """The time in seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
