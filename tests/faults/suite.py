"""All faults in turn, the table, and `outputs/faults/faults.json`."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from ladder_cli.console import make_console
from ladder_cli.run.directory import OUTPUTS, write_json
from tests.faults import disks, kills, others
from tests.faults.interrupted import Interrupted
from tests.faults.table import Row, printed

KILLS_IN_TRAINING, KILLS_IN_CHECKPOINTS, KILLS_IN_EVALUATION = 32, 10, 16


def faults(folder: Path, share: float) -> dict[str, Callable[[], Iterator[Row]]]:
    """Every fault by name; `share` of the kills are made."""

    def count(kills_wanted: int) -> int:
        return max(1, round(kills_wanted * share))

    half = Interrupted(folder / "half")
    return {
        "kills-training": lambda: kills.training(folder / "kills", count(KILLS_IN_TRAINING)),
        "kills-checkpoints": lambda: kills.checkpoints(folder / "kills", count(KILLS_IN_CHECKPOINTS)),
        "kills-evaluation": lambda: kills.evaluation(folder / "kills", count(KILLS_IN_EVALUATION)),
        "signals": lambda: others.signals(half, folder / "signals"),
        "unwatched": lambda: others.unwatched(half, folder / "unwatched"),
        "disk-full": lambda: disks.full(half, folder / "full"),
        "read-only": lambda: disks.read_only(half),
        "corrupted": lambda: disks.corrupted(half),
        "corrupted-results": lambda: disks.corrupted_results(half, folder / "results"),
        "two-at-once": lambda: others.two_at_once(half, folder / "both"),
        "dead-workers": lambda: others.dead_workers(folder / "workers"),
        "clocks": lambda: others.clocks(half),
        "hub": lambda: others.missing_hub(half, folder / "hub"),
        "malformed": lambda: others.malformed(folder / "malformed"),
    }


def main() -> int:
    """Try them; exit status 1 if anything was lost or damaged."""
    parser = argparse.ArgumentParser(description="Really do it: kills, full disks, corrupted bytes, dead workers, ...")
    parser.add_argument("--only", nargs="*", help="names of faults; all by default")
    parser.add_argument("--share", type=float, default=1.0, help="share of the fifty kills to make")
    args = parser.parse_args()
    # Under nohup, runs leave SIGHUP alone, as they should; here it has to reach them.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    # What the commands set before they import torch, which the server of processes does before them.
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    # Another user than this one must be able to look into it.
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    folder.chmod(0o755)
    console = make_console()
    output = (OUTPUTS / "faults" / "faults.json").absolute()
    rows: list[Row] = []
    known = faults(folder, args.share)
    unknown = set(args.only or ()) - known.keys()
    if unknown:
        parser.error(f"no fault named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in args.only or known:
        for row in known[name]():
            rows.append(row)
            console.print(f"{row.fault}: tried {row.tried}, lost {row.lost}, damaged {row.damaged}", soft_wrap=True)
        write_json(output, {"rows": [asdict(row) for row in rows]})
    console.print(printed(rows))
    console.print(f"written to {output}", soft_wrap=True)
    if any(row.lost or row.damaged for row in rows):
        console.print(f"what happened lies in {folder}", soft_wrap=True)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
