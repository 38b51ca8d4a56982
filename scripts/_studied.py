"""What the scripts that compare methods ask of their caller: which model, on which rows."""

import argparse

from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig

_COLUMNS = {"prompt": "question", "completion": "answer"}


def add_studied(parser: argparse.ArgumentParser) -> None:
    """Options that name the model and the rows."""
    parser.add_argument("--model", default="tiny", help="a name in conf/model")
    parser.add_argument("--path", help="local folder of the model")
    parser.add_argument("--rows", help="one's own training rows (JSONL); by default those that the model is trained on")
    for name, column in _COLUMNS.items():
        parser.add_argument(f"--{name}", help=f"their column of the {column}; {column} by default")


def studied(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """The options of `ladder-train` that say what was named.

    Raises:
        SystemExit: for a column of rows that are not given.
    """
    options = [f"model={args.model}", *([f"model.path={args.path}"] if args.path else [])]
    if args.rows:
        columns = (f"data.{name}={getattr(args, name) or column}" for name, column in _COLUMNS.items())
        return [*options, "data=jsonl", f"data.path={args.rows}", *columns]
    for name in _COLUMNS:
        if getattr(args, name) is not None:
            parser.error(f"--{name} names a column of --rows, which is not given.")
    return options


def layers_of(options: list[str]) -> int:
    """L of the model that options name."""
    from ladder_cli.trunk.loading import architecture

    config = composed("train", TrainConfig, [word for word in options if word.startswith("model")])
    return int(architecture(config.model).num_hidden_layers)
