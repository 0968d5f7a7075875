"""Every explanation of a finished run: `python -m vitexp.explain run=FOLDER`; see vitexp/explanations/command.py."""

from vitexp.explanations.command import main

if __name__ == "__main__":
    main()
