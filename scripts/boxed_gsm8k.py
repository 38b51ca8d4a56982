r"""gsm8k's training rows with their answer in \boxed{}, as training data of `reproduce.py --scale real`.

    python scripts/boxed_gsm8k.py MIRROR/gsm8k/train.jsonl outputs/boxed.jsonl

Rows of question and solution, for data=jsonl data.prompt=question data.completion=solution.
"""

import argparse
import sys
from pathlib import Path

import _repository  # noqa: F401  (paper/)

from ladder_cli.errors import UserError
from paper.boxed_rows import write_boxed_rows


def main() -> None:
    """Read, box, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="gsm8k's rows of question and answer")
    parser.add_argument("target", type=Path, help="JSONL to write")
    args = parser.parse_args()
    print(f"{write_boxed_rows(args.source, args.target)} rows in {args.target}")


if __name__ == "__main__":
    try:
        main()
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
