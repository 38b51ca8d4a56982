r"""Puts the answers of gsm8k's training rows into `\boxed{}`, as the evaluator reads answers.

gsm8k ends a solution in `#### 5` and writes the results of its sums as `<<48/2=24>>24`. A model that learns the
raw rows answers in a form that no benchmark here reads.
"""

import json
import re
from pathlib import Path

from ladder_cli.data.row_files import read_file
from ladder_cli.data.sources import text_column
from ladder_cli.errors import UserError
from ladder_cli.run.files import write_text

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_MARK = "####"


def boxed_solution(answer: str) -> str:
    r"""Return a solution of gsm8k whose last line is `The answer is \boxed{N}.`, without the notes for a calculator.

    Thousands are written without commas.

    Raises:
        UserError: if no answer stands after `####`.
    """
    steps, _, value = _CALCULATOR.sub("", answer).rpartition(_MARK)
    value = value.strip().replace(",", "")
    if not steps.strip() or not value:
        raise UserError(f"no solution that ends in '{_MARK} ANSWER'.")
    return f"{steps.strip()}\nThe answer is \\boxed{{{value}}}."


def write_boxed_rows(source: Path, target: Path) -> int:
    """Write rows of `question` and `solution` (JSONL), made from gsm8k's `question` and `answer`.

    Returns:
        The number of rows.

    Raises:
        UserError: if the source cannot be read, naming the row.
    """
    lines = []
    for number, row in enumerate(read_file(source), start=1):
        where = f"{source}, row {number}"
        question, answer = (text_column(row, column, where) for column in ("question", "answer"))
        try:
            solution = boxed_solution(answer)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        lines.append(json.dumps({"question": question, "solution": solution}) + "\n")
    write_text(target, "".join(lines))
    return len(lines)
