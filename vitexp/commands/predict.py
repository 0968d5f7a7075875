"""Predict the classes of the images in a folder; no labels are needed.

    vitexp predict images=FOLDER [run=RUN] [out=FILE] [device=auto]

images     folder of images of any size, also in subfolders, or one file; they are prepared exactly as in training;
           files that are not images of a known format are named, not read
run        a finished run: its folder, or NAME/RUN_ID as `vitexp runs` lists it; or "pretrained": the bundled GTSRB
           network (default: the newest in logs/)
out        CSV file to write, or to replace: file, class, probability, then the classes of ranks 2 to 5 (default:
           predictions.csv, unless it exists)
device     auto | cpu | gpu | mps
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vitexp.commands.words import DEVICES, opened, read_words, run_command
from vitexp.errors import ConfigError
from vitexp.runs.find import requested_run
from vitexp.runs.image_folder import images_in
from vitexp.system.disk import refuse_unwritable


def main(words: Sequence[str]) -> None:
    given = read_words(words, keys=("images", "run", "out", "device"))
    if not given.get("images"):
        raise ConfigError("images=FOLDER is missing; name the folder of the images to predict.")
    images, out = Path(given.get("images")).expanduser(), Path(given.get("out", "predictions.csv")).expanduser()
    if not images.exists():
        raise ConfigError(f"images={images} is not a folder or a file.")
    images_in(images)
    device, folder = given.choice("device", DEVICES), requested_run(given.get("run"))
    if out.exists() and not given.get("out"):
        raise ConfigError(f"{out} exists; out={out} replaces it, and another name keeps it.")
    refuse_unwritable(out)
    opened(folder, width=13)
    # These import torch, so only once the command line is valid.
    from vitexp.data.imagefile import ENDINGS, HEIC_ENDINGS, INSTALL_HEIC
    from vitexp.data.source import printable
    from vitexp.runs.finished import load_run
    from vitexp.runs.predictions import predict_folder
    from vitexp.system.hardware import choose_device
    from vitexp.text import plural, shortened

    predictions, unread = predict_folder(load_run(folder, device=choose_device(device, key="device")), images, out)
    counts = Counter(each.name for each in predictions).most_common()
    print(f"predicted    {shortened([f'{count:,} {printable(name)}' for name, count in counts])}")
    print(f"predictions  {plural(len(predictions), 'image')}: {out}")
    for path in unread:
        reason = f"is not one of {', '.join(ENDINGS)}"
        if path.is_dir():
            reason = "is a link to a folder"
        elif path.suffix.lower() in ENDINGS:
            reason = "cannot be decoded"
        elif path.suffix.lower() in HEIC_ENDINGS:
            reason = f"needs one more package: {INSTALL_HEIC}"
        print(f"not read     {printable(path)} {reason}")


if __name__ == "__main__":
    run_command(main, __doc__)
