"""What the scripts that compare methods ask of their caller: which model, on which rows."""

import argparse

from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig

# What `bench.study` gives every run.
_OWN = ("output_dir", "resume", "trunk.cache", "trunk.cache_dir", "method", "seed", "train.max_steps")
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


def further(parser: argparse.ArgumentParser, args: argparse.Namespace, own: tuple[str, ...]) -> list[str]:
    """`--options`, none of which the script sets by itself.

    Args:
        own: options of the script, or groups of them (`method.`).

    Raises:
        SystemExit: for one that it sets, and for what is no option.
    """
    for word in args.options:
        key, equals, _ = word.partition("=")
        if not equals:
            parser.error(f"--options: '{word}' is no option, which looks like key=value.")
        if key in (*own, *_OWN) or key.startswith(tuple(each for each in own if each.endswith("."))):
            parser.error(f"--options: {key} is set by this script, run by run.")
    return list(args.options)


def refuse_repeats(parser: argparse.ArgumentParser, args: argparse.Namespace, names: tuple[str, ...]) -> None:
    """Refuse lists that name something twice: it would count as two.

    Raises:
        SystemExit: for the first of them.
    """
    for name in names:
        given = getattr(args, name)
        if len(set(given)) < len(given):
            parser.error(f"--{name}: one of them stands there twice.")


def count(text: str) -> int:
    """A number of something, from 1 on, for argparse.

    Raises:
        ValueError: if it is none.
    """
    if int(text) < 1:
        raise ValueError
    return int(text)


def layers_of(options: list[str]) -> int:
    """L of the model that options name."""
    from ladder_cli.trunk.loading import architecture

    config = composed("train", TrainConfig, [word for word in options if word.startswith("model")])
    return int(architecture(config.model).num_hidden_layers)
