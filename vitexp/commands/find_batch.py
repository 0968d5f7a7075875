"""Find the largest batch that fits into memory, and the fastest one.

    vitexp find-batch [key=value ...]

for example  data=gtsrb model=vit_base trainer=gpu

Tries powers of two on one device, up to the number of training images; each must also fit with an
eighth more images, as a reserve. Speed is that of forward and backward passes alone. Creates no run.
The keys are those of a training run: python train.py --help.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from vitexp.commands.words import composed, run_command
from vitexp.system.terminal import plain_console
from vitexp.text import format_value


def main(words: Sequence[str]) -> None:
    _, config = composed("find-batch", words)
    from vitexp.runs.rehearsal import fitting_batches

    found = fitting_batches(config)
    table = Table()
    table.add_column("batch size", justify="right")
    table.add_column("images/s", justify="right")
    for size, speed in found:
        table.add_row(str(size), format_value(speed))
    plain_console().print(table)
    largest, (fastest, speed) = found[-1][0], max(found, key=lambda pair: pair[1])
    print(f"data.batch_size={largest}   the largest tried that fits")
    print(f"data.batch_size={fastest}   the fastest: {format_value(speed)} images/s")
    if config.trainer.devices != 1 or config.trainer.num_nodes != 1 or config.trainer.accumulate_grad_batches != 1:
        print("These are images at a time on one device; data.batch_size counts all devices and accumulated batches.")
    print("The best learning rate depends on the batch size; find-lr with the same keys finds one.")


if __name__ == "__main__":
    run_command(main, __doc__)
