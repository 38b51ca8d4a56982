"""Writes human solutions as completions: each solution of a mirror of MATH, with its own last box as the gold.

    python scripts/human_solutions.py DIR/math/train.jsonl solutions.jsonl
    ladder-eval completions=solutions.jsonl output_dir=graded

Every one should be judged correct, because people wrote both. Those that are not show where reading answers fails.
Solutions without a box are left out and counted.
"""

import json
import sys
from pathlib import Path

from ladder_cli.data.sources import read_file
from ladder_cli.evaluate.answers.verdict import boxes


def main(source: str, target: str) -> None:
    """Write the rows of `completions=`."""
    written, left_out = [], []
    for number, row in enumerate(read_file(Path(source)), start=1):
        found = [box for box in boxes(row["solution"]) if box.strip()]
        if found:
            written.append({"id": str(number), "gold": found[-1], "completion": row["solution"]})
        else:
            left_out.append(str(number))
    Path(target).write_text("".join(json.dumps(row) + "\n" for row in written))
    print(f"{target}: {len(written)} solutions; without a box: {len(left_out)} (rows {', '.join(left_out) or 'none'})")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} DIR/math/train.jsonl OUT.jsonl")
    main(*sys.argv[1:])
