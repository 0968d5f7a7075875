"""A sweep of training runs: `python sweep.py ...`; see vitexp/commands/sweep.py."""

from vitexp.commands.sweep import main

if __name__ == "__main__":
    main()
