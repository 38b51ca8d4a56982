"""The paper's tables and figures, one command each.

    python scripts/reproduce.py 2                            print the commands of table 2
    python scripts/reproduce.py 2 --run                      run them, then build its table and figures
    python scripts/reproduce.py all --scale small --run      everything at laptop size on the embedded model
    python scripts/reproduce.py memory --run                 figure 3b, predicted; needs no GPU and no weights
    python scripts/reproduce.py 2 --from outputs/my-sweep    build a table from runs that are somewhere else

Writes outputs/reproduce (or outputs/reproduce-small): README.md is the index. A second start runs what is missing.
"""

import argparse
import sys
from pathlib import Path

from ladder_cli.analysis.reproduce import Reproduction
from ladder_cli.console import make_console
from ladder_cli.errors import Interrupted, UserError
from ladder_cli.run_dir import OUTPUTS

MEMORY = "memory"


def main() -> int:
    """Print, run, build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=[*"12345678", MEMORY, "all"])
    parser.add_argument("--run", action="store_true", help="run the commands; without it they are only printed")
    parser.add_argument("--scale", choices=["paper", "small"], default="paper")
    parser.add_argument("--output", type=Path, help="folder; default: outputs/reproduce or outputs/reproduce-small")
    parser.add_argument("--from", dest="others", type=Path, action="append", help="folder of runs to build from")
    args = parser.parse_args()
    small = args.scale == "small"
    work = Reproduction(args.output or OUTPUTS / ("reproduce-small" if small else "reproduce"), small)
    numbers = list(work.tables) if args.table == "all" else [int(args.table)] if args.table != MEMORY else []
    failed: list[str] = []
    try:
        if not args.run and not args.others:
            for number in numbers:
                table = work.tables[number]
                print(f"# Table {number}: {table.title}")
                commands = work.commands(number)
                print("\n".join(commands or [f"# from the runs of table {table.runs}" if commands == () else "# -"]))
            return 0
        if args.run:
            failed = work.run(numbers, args.table in (MEMORY, "all"), Path(__file__).parent)
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


if __name__ == "__main__":
    sys.exit(main())
