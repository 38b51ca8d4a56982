"""Prints what a dry run shows of the data: lengths, rendered examples, overlap with benchmarks."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from ladder_cli.data.benchmarks import all_questions
from ladder_cli.data.encoding import IGNORED_LABEL, Row
from ladder_cli.data.overlap import overlap
from ladder_cli.data.prepare import PreparedData
from ladder_cli.streams import printable

_BINS, _BAR = 10, 40
_SHOWN = 3
_COUNTED, _GOLD = "counted tokens marked", "the right answer marked; completions are sampled"
_OF_A_PAIR = ("chosen", "rejected")


def histogram(lengths: Sequence[int]) -> list[str]:
    """Draw how many rows have how many tokens, as lines of a bar chart."""
    if not lengths:
        return []
    smallest, largest = min(lengths), max(lengths)
    width = max(1, -(-(largest - smallest + 1) // _BINS))
    counts = [0] * _BINS
    for length in lengths:
        counts[(length - smallest) // width] += 1
    most = max(counts)
    return [
        f"{smallest + k * width:>7,} to {smallest + (k + 1) * width - 1:>7,} tokens  "
        f"{'█' * round(_BAR * count / most):<{_BAR}} {count:,} rows"
        for k, count in enumerate(counts)
        if smallest + k * width <= largest
    ]


def overlaps(data: PreparedData, data_dir: str | None) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Find the questions of both splits that benchmarks ask too.

    Returns:
        For each benchmark the numbers and rows of such questions; and the benchmarks that cannot be read here.
    """
    questions, unreachable = all_questions(data_dir)
    found = {}
    for name, asked in questions.items():
        shared = overlap([*data.splits.train, *data.splits.validation], asked)
        found[name] = {"exact": len(shared.exact), "normalised": len(shared.normalised), "rows": shared.normalised}
    return found, unreachable


def print_preview(
    data: PreparedData,
    found: dict[str, dict[str, Any]],
    unreachable: list[str],
    console: Console,
    sampled: bool = False,
) -> None:
    """Print the histogram, three examples (of a preference both answers) and the overlaps.

    Args:
        sampled: completions are sampled, so that what stands marked in a row is its right answer.
    """
    marked = _GOLD if sampled else _COUNTED
    console.print("tokens of the training rows", style="bold")
    for line in histogram(data.train.lengths):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    console.print()
    for number in range(min(_SHOWN, data.train.examples)):
        console.print(f"example {number + 1} ({marked}; without colours: between » and «)", style="bold")
        print_example(data, number, console)
    console.print("questions that a benchmark asks too (training and validation)", style="bold")
    for name, shared in found.items():
        rows = f"  rows {', '.join(shared['rows'][:10])}" if shared["rows"] else ""
        console.print(f"  {name:<14} {shared['normalised']} ({shared['exact']} to the letter){rows}", soft_wrap=True)
    if unreachable:
        missing = ", ".join(unreachable)
        console.print(f"  not checked, for want of a mirror (data_dir=DIR): {missing}", soft_wrap=True)
    if any(shared["normalised"] for shared in found.values()):
        console.print("  data.decontaminate=true leaves them out", soft_wrap=True)


def print_example(data: PreparedData, number: int, console: Console) -> None:
    """Print the rows of a training example; of a preference the preferred answer first."""
    each = data.train.rows_each
    for row in range(number * each, (number + 1) * each):
        if each == len(_OF_A_PAIR):
            console.print(f"{_OF_A_PAIR[row % each]}:", style="dim")
        console.print(marked_example(data.train[row], data.tokenizer), soft_wrap=True)
        console.print()


def marked_example(row: Row, tokenizer: PreTrainedTokenizerBase) -> Text:
    """Return a row as text; the tokens that count for the loss are coloured and stand between » and «.

    What a terminal would obey is shown instead (`streams.printable`).
    """
    text, end = Text(), 0
    for counted, labels in groupby(label != IGNORED_LABEL for label in row["labels"]):
        start, end = end, end + len(list(labels))
        piece = printable(_text_of(row["input_ids"], start, end, tokenizer))
        if counted:
            text.append("»", style="bold").append(piece, style="bold green").append("«", style="bold")
        else:
            text.append(piece, style="dim")
    return text


def _text_of(ids: list[int], start: int, end: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the tokens from `start` to `end`, where they stand.

    A character may be made of several tokens, and some tokenizers drop the space before the first token of a text: so
    it is what these tokens add to the text of those before them.
    """
    before, through = (str(tokenizer.decode(ids[:stop], clean_up_tokenization_spaces=False)) for stop in (start, end))
    if through.startswith(before):
        return through[len(before) :]
    # The cut goes through a character.
    return str(tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False))
