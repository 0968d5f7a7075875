"""What a finished run is worth, in exact numbers, on its own test set or another one of the same classes.

    python -m vitexp evaluate [run=FOLDER] [data=OPTION] [data.KEY=VALUE ...] [key=value ...]

run                FOLDER of the run, or pretrained, a net for GTSRB that comes with vitexp (default: the newest
                   finished run under log_dir, which is logs)
data, data.*       as for train.py: the images to test on (default: those of the run)
corruptions=true   also dark, blurred, noisy, occluded and JPEG images, of corruption_images test images (2000)
tta=true           also test-time augmentation: the mean over shifted views
latency=true       also milliseconds and images a second by batch size
export=onnx,timm   also the net for other programs, checked against torch
out=FOLDER         where the results go (default: FOLDER of the run/evaluation)
device=auto        auto | cpu | gpu | mps

Writes evaluation.json, tables as CSV and Markdown, and figures. The run itself is not changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vitexp.config.plain_errors import plain_errors
from vitexp.config.secrets import refuse_typed_secrets
from vitexp.evaluate.options import parse


def main(arguments: Sequence[str]) -> None:
    if any(argument in ("-h", "--help", "help") for argument in arguments):
        print(__doc__)
        return
    refuse_typed_secrets(list(arguments))
    options = parse(arguments)
    from vitexp.evaluate.evaluation import evaluate  # imports torch: only once the arguments stand

    evaluate(options)


if __name__ == "__main__":
    with plain_errors():
        main(sys.argv[1:])
