"""How many images there are, against batches and what is counted in them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from vitexp.data.gtsrb_classes import GTSRB_CLASSES


def complaints_of_drawn(config: dict[str, Any]) -> Iterator[str]:
    """Those of the drawn set, whose size is known before it is drawn."""
    data = config["data"]
    if data["source"]["_target_"] != "vitexp.data.signs.Signs":
        return
    each = data["source"].get("train_per_class", 200)
    val = min(max(math.ceil(data["val_fraction"] * each - 0.5), 1), each - 1)  # as vitexp.data.split cuts it
    train = len(GTSRB_CLASSES) * (each - val)
    if data["batch_size"] > train:
        yield (
            f"data.batch_size={data['batch_size']} is larger than the training part of {train:,} images; "
            "choose a smaller one."
        )
    counts = {"val": len(GTSRB_CLASSES) * val, "test": len(GTSRB_CLASSES) * data["source"].get("test_per_class", 50)}
    yield from complaints(config, train=train, **counts)


def complaints(config: dict[str, Any], *, train: int, val: int, test: int) -> Iterator[str]:
    """What asks for less than one batch, or for more than there are, of so many images."""
    trainer = config["trainer"]
    if trainer["fast_dev_run"]:  # Lightning then sets what is checked here
        return
    batch = config["data"]["batch_size"] // trainer["accumulate_grad_batches"]
    batches = {"train": train // batch, "val": math.ceil(val / batch), "test": math.ceil(test / batch)}
    for part, there in batches.items():
        key = f"limit_{part}_batches"
        limit = trainer[key]
        if isinstance(limit, float):
            batches[part] = int(there * limit)
            if limit > 0 and not batches[part]:
                yield (
                    f"trainer.{key}={limit} of {there} batches is less than one; "
                    f"take {math.ceil(100 / there) / 100} or more, or their number."
                )
        else:
            batches[part] = min(there, limit)
    interval, total = trainer["val_check_interval"], batches["train"]
    over = "an epoch; trainer.check_val_every_n_epoch=null counts over epochs"
    if trainer["check_val_every_n_epoch"] is None:
        total *= trainer["max_epochs"]
        over = "the whole training; trainer.limit_val_batches=0 turns validation off"
    if isinstance(interval, int) and interval > total and batches["val"]:
        yield f"trainer.val_check_interval={interval} must not exceed the {total:,} batches of {over}."
