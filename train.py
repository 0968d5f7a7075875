"""One training run: `python train.py [key=value ...]`; see vitexp/commands/train.py."""

from vitexp.commands.train import main

if __name__ == "__main__":
    main()
