"""A fast stand-in for train.py: write result.json and end as requested, without importing torch.

    python fake_trainer.py FOLDER [seconds=S] [meet=N] [end=...] [until=N]

end: completed (default) | failed (records it) | crash (exit 1, no record) | kill (SIGKILL) | refuse (exit 2) | hang |
silent (exit 0, no record) | deaf (hangs and ignores signals). until=N: ends this way in the first N attempts, then
completes. meet=N: waits until N trials of the sweep have started. Every start appends a line to FOLDER/starts, and one
after the trial was completed a line to FOLDER/repeats. The record holds "span": start, end and GPUs.
"""

import glob
import json
import os
import signal
import sys
import time

folder = sys.argv[1]
options = dict(argument.split("=") for argument in sys.argv[2:])
begun = time.time()


def write(status, error=None, accuracy=None):
    record = {"schema": 1, "run_id": "fake", "name": "fake", "status": status, "error": error, "seed": 0}
    record["overrides"], record["config_hash"] = sys.argv[2:], os.path.basename(folder)
    record["metrics"] = None if accuracy is None else {split: {"accuracy": accuracy} for split in ("val", "test")}
    record["threads"] = os.environ.get("OMP_NUM_THREADS")
    record["span"] = [begun, time.time(), os.environ.get("CUDA_VISIBLE_DEVICES", "")]
    with open(f"{folder}/.result", "w") as file:
        json.dump(record, file)
    os.replace(f"{folder}/.result", f"{folder}/result.json")


def append(name, text):
    with open(f"{folder}/{name}", "a") as file:
        file.write(text + "\n")


def sleep(seconds):
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        write("interrupted", "stopped from the keyboard")
        sys.exit(130)


os.makedirs(folder, exist_ok=True)
if os.path.exists(f"{folder}/result.json"):
    with open(f"{folder}/result.json") as file:
        if json.load(file)["status"] == "completed":
            append("repeats", f"{os.getpid()}")
append("starts", f"{os.getpid()}")
with open(f"{folder}/starts") as file:
    attempt = len(file.readlines())
end = options.get("end", "completed")
if "until" in options and attempt > int(options["until"]):
    end = "completed"
if end == "refuse":
    print("vitexp: there is no key 'x'.")
    sys.exit(2)
if end == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
write("running")
print("the work begins", flush=True)
while len(glob.glob(f"{folder}/../*/starts")) < int(options.get("meet", 0)):
    sleep(0.02)
sleep(float(options.get("seconds", 0)))
print("last words", flush=True)
if end in ("hang", "deaf"):
    sleep(3600)
elif end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif end == "crash":
    sys.exit(1)
elif end == "failed":
    write("failed", "its own words")
    sys.exit(1)
elif end == "completed":
    write("completed", accuracy=float(options.get("accuracy", 0.5)))
