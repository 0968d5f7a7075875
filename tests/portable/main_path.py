"""Import every module of vitexp, then train, evaluate, predict, list, clean and sweep."""

import importlib
import multiprocessing
import os
import pkgutil
import runpy
import sys
from pathlib import Path

import vitexp


def vitexp_command(*words: str) -> None:
    sys.argv = ["vitexp", *words]
    try:
        runpy.run_module("vitexp", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    logs, images, tiny = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    for module in pkgutil.walk_packages(vitexp.__path__, "vitexp."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    signals, lock = sys.modules["vitexp.system.signals"], sys.modules["vitexp.system.lock"]
    assert {number.name for number in signals.SIGNALS} == {"SIGINT", "SIGTERM"}
    assert lock.sys.platform == "win32" and not hasattr(lock.os, "fork")
    os.chdir(logs)
    workers = ("augment=albumentations", "data.num_workers=1", "callbacks=none")
    vitexp_command("train", *tiny, *workers, "logger=csv", f"log_dir={logs}")
    [run] = logs.glob("*/*/")
    with lock.hold(run / ".lock", wait=False):
        pass
    vitexp_command("evaluate", f"run={run}", "device=cpu")
    vitexp_command("predict", f"run={run}", f"images={images}", "device=cpu")
    vitexp_command("runs", f"log_dir={logs}")
    vitexp_command("clean", f"log_dir={logs}", "yes=true")
    vitexp_command("sweep", "engine=local", "name=swept", *tiny, "logger=csv", "callbacks=none", f"log_dir={logs}")
