"""Find a learning rate: train while it rises, and see where the loss falls fastest (Smith 2017).

    vitexp find-lr [steps=200] [key=value ...]

for example  data=gtsrb model=vit_small optim=muon

Trains for a few steps, draws the loss into LOG_DIR/NAME/find-lr.png, and leaves no run. steps: optimizer
steps from 1e-5 to 10. The other keys are those of a training run: python train.py --help.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitexp.commands.words import composed, run_command
from vitexp.system.disk import typed as typed_path

_FEW_PASSES = 3  # over the training images, after which the loss falls at rates that are too low for new images


def main(words: Sequence[str]) -> None:
    typed, config = composed("find-lr", words, keys=("steps",))
    steps = typed.integer("steps", 200, least=20)
    from vitexp.explain.figures import learning_rate_range
    from vitexp.runs.rehearsal import range_test

    found = range_test(config, steps=steps)
    path = Path(config.log_dir).expanduser() / config.name / "find-lr.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = learning_rate_range(
        rates=found.rates, losses=found.losses, smoothed=found.smoothed, suggested=found.suggested
    )
    figure.savefig(path)
    highest = found.rates[found.smoothed.argmin()]
    print(f"optim.lr={found.suggested:.2g}   the loss falls fastest here, and rises above {highest:.2g}")
    if found.passes > _FEW_PASSES:
        print(
            f"In {len(found.losses)} steps, each training image was seen {found.passes:.0f} times, so the loss also "
            "falls because images repeat: compare with other steps=."
        )
    print(f"figure  {typed_path(path)}")


if __name__ == "__main__":
    run_command(main, __doc__)
