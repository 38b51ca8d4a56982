"""The paper's tables and figures, one command each.

    python scripts/reproduce.py 2                            print the commands of table 2
    python scripts/reproduce.py 2 --run                      run them, then build its table and figures
    python scripts/reproduce.py all --scale small --run      everything at small size on the embedded model
    python scripts/reproduce.py 1 --scale real --model-path DIR --data-dir DIR --run     on a real model: 1, 3, 6
    python scripts/reproduce.py memory --run                 figures 3a and 3b, predicted; needs no GPU and no weights
    python scripts/reproduce.py laws                         the paper's table 1 checked against itself
    python scripts/reproduce.py claims                       every claim, as far as the runs at hand judge it
    python scripts/reproduce.py costs                        hours of every table on the paper's card
    python scripts/reproduce.py 2 --from outputs/my-sweep    build a table from runs that are somewhere else

Writes outputs/reproduce (or outputs/reproduce-small, outputs/reproduce-real): README.md is the index. A second start
runs what is missing.
"""

import argparse
import sys
from pathlib import Path

import _repository  # noqa: F401  (paper/)

from ladder_cli.console import make_console
from ladder_cli.errors import Interrupted, UserError
from ladder_cli.run.directory import OUTPUTS
from paper.reported import PAPER, REAL, SMALL
from paper.reproduce import Reproduction, Scale

MEMORY, LAWS, CLAIMS, COSTS, ALL = "memory", "laws", "claims", "costs", "all"
FOLDERS = {PAPER: "reproduce", SMALL: "reproduce-small", REAL: "reproduce-real"}


def main() -> int:
    """Print, run, build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=[*"12345678", MEMORY, LAWS, CLAIMS, COSTS, ALL])
    parser.add_argument("--run", action="store_true", help="run the commands; without it they are only printed")
    parser.add_argument("--scale", choices=[PAPER, SMALL, REAL], default=PAPER)
    parser.add_argument("--model-path", type=Path, help="folder of SmolLM2-135M-Instruct, for --scale real")
    parser.add_argument("--data-dir", type=Path, help="mirror that holds gsm8k and cola, for --scale real")
    parser.add_argument("--output", type=Path, help="folder; default: outputs/reproduce, -small or -real")
    parser.add_argument("--from", dest="others", type=Path, action="append", help="folder of runs to build from")
    args = parser.parse_args()
    failed: list[str] = []
    try:
        work = Reproduction(
            args.output or OUTPUTS / FOLDERS[args.scale], Scale(args.scale, args.model_path, args.data_dir)
        )
        if args.table in (LAWS, CLAIMS, COSTS):
            if args.run:
                raise UserError(f"--run has nothing to run: '{args.table}' is made of what is there already.")
            if args.others and args.table != CLAIMS:
                raise UserError(f"--from is not read: '{args.table}' needs no runs.")
            show(work, args.table, args.others)
            return 0
        numbers = list(work.tables) if args.table == ALL else [int(args.table)] if args.table != MEMORY else []
        if not args.run and not args.others:
            print_commands(work, numbers)
            return 0
        if args.run:
            failed = work.run(numbers, args.table in (MEMORY, ALL), Path(__file__).parent)
        for tables in work.report(args.others, numbers).values() if numbers else ():
            for table in tables:
                make_console().print(table.terminal(), *table.notes, "", sep="\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"\ninterrupted: {str(error) or 'the same command continues.'}", file=sys.stderr)
        return 130
    print(f"\n{work.folder / 'README.md'}")
    for command in failed:
        print(f"did not succeed: {command}", file=sys.stderr)
    return 1 if failed else 0


def print_commands(work: Reproduction, numbers: list[int]) -> None:
    """The commands of some tables."""
    for number in numbers:
        table = work.tables[number]
        print(f"# Table {number}: {table.title}")
        if table.runs_of:
            print(f"# from the runs of table {table.runs}:")
        commands = work.commands(number)
        print("\n".join(["# not at this size"] if commands is None else commands))


def show(work: Reproduction, what: str, others: list[Path] | None) -> None:
    """What needs no runs of its own."""
    if what == LAWS:
        print("\n".join(f"- {line}" for line in work.laws()), f"\n{work.folder / LAWS / 'figure-laws.png'}", sep="\n")
        return
    if what == CLAIMS:
        table = work.claims(others)
    else:
        from paper.costs import costs_table

        table = costs_table(work.tables)
    make_console().print(table.terminal(), *table.notes, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
