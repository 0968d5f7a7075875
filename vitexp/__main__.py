"""The command line: `vitexp COMMAND [key=value ...]`, the same as `python -m vitexp COMMAND`."""

from __future__ import annotations

import runpy
import sys

from vitexp.errors import nearest

COMMANDS = {
    "train": "train, test and record one run",
    "sweep": "run an ablation, a grid or a search, and print its table",
    "find-lr": "find a learning rate by a range test",
    "find-batch": "find the batch sizes that fit into memory, and the fastest",
    "predict": "predict the classes of a folder of images",
    "evaluate": "measure a finished run in depth, or on other images",
    "explain": "draw every explanation of a finished run",
    "app": "explore a finished run in the browser",
    "runs": "list the runs on this disk",
    "clean": "remove the checkpoints of completed runs",
    "bench": "measure training speed on this machine",
    "signs": "draw a sheet of the synthetic traffic signs",
}


def main() -> None:
    """Run the command named by the first argument, as the main module."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("", "-h", "--help", "help"):
        print(f"{__doc__}\n")
        print("\n".join(f"  {command:<11} {meaning}" for command, meaning in COMMANDS.items()))
        print("\n`vitexp COMMAND --help` lists the keys of a command.")
        return
    if name not in COMMANDS:
        print(f"vitexp: unknown command {name!r}; {nearest(name, list(COMMANDS))}", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    sys.path.insert(0, "")  # as with `python -m`: configurations can name classes in the working directory
    # As the main module, so that Lightning starts the other processes of a distributed run with this command.
    runpy.run_module(f"vitexp.commands.{name.replace('-', '_')}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
