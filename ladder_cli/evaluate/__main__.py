"""`python -m ladder_cli.evaluate`, which torchrun and accelerate start: the command itself is in cli/evaluate.py."""

from ladder_cli.cli.evaluate import main

if __name__ == "__main__":
    main()
