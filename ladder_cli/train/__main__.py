"""`python -m ladder_cli.train`, which torchrun and accelerate start: the command itself is in cli/train.py."""

from ladder_cli.cli.train import main

if __name__ == "__main__":
    main()
