"""The whole pipeline on the embedded model and task: what `make demo` runs.

Trains the paper's ladder, a copy of the upper four of six layers (branch) and QLoRA on the same rows, for the same
steps and with the same optimizer; evaluates them and the backbone alone, makes a report to look at, and prints one
table from the files that those commands wrote.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from ladder_cli.console import make_console
from ladder_cli.evaluate.report import demo_table

BATCH = 16
STEPS = 600
# Rows are short here, so that a micro-batch together takes less time than its rows one by one.
_READ = ("trunk.passes=batch",)
METHODS = {
    "ladder": _READ,
    "branch": (*_READ, "method.layers=4"),
    "qlora": (),
}


def command(module: str, *arguments: str) -> None:
    """Run one of the two commands and show it."""
    print(f"\n$ ladder-{'train' if module == 'train' else 'eval'} {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", f"ladder_cli.{module}", *arguments], check=True)


def main() -> None:
    """Train, evaluate, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"))
    output = parser.parse_args().output
    # Each step sees new rows. With Muon every method learns more here (docs/decisions/0030-muon.md).
    shared = (f"data.train_samples={STEPS * BATCH}", f"train.micro_batch_size={BATCH}", "train.optimizer=muon")
    for method, options in METHODS.items():
        command("train", f"method={method}", *options, *shared, f"output_dir={output / method}")
    decode = ("decode.max_new_tokens=256", "decode.batch_size=100")
    command("evaluate", "model=tiny", f"output_dir={output / 'backbone'}", *decode)
    command("evaluate", f"run={output}/*", *decode)
    folders = ",".join(str(output / name) for name in ("backbone", *METHODS))
    command("evaluate", f"report={folders}", f"output={output / 'report.html'}")
    print()
    make_console().print(demo_table(output / "backbone", [output / method for method in METHODS], "arithmetic"))


if __name__ == "__main__":
    main()
