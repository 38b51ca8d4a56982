"""Ladder, xLadder and QLoRA with and without checkpointing, step against step: what `make bench` runs.

    python scripts/bench.py                                     the embedded model
    python scripts/bench.py --model smollm2-135m --path DIR      a real one

Writes outputs/bench/bench.json.
"""

import argparse
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from rich.table import Table

from ladder_cli.cli import parse, quiet_libraries
from ladder_cli.config import TrainConfig
from ladder_cli.console import make_console
from ladder_cli.run_dir import OUTPUTS, write_json

REFERENCE = "qlora_checkpointed"
METHODS = {
    "ladder": ["method=ladder"],
    "xladder": ["method=xladder"],
    "qlora": ["method=qlora"],
    REFERENCE: ["method=qlora", "method.gradient_checkpointing=true"],
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--path", help="local folder of the model")
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()
    ConfigStore.instance().store(name="train_schema", node=TrainConfig)
    overrides = [f"model={args.model}", f"model.quantization={args.quantization}"]
    overrides += [f"model.path={args.path}"] if args.path else []
    with initialize_config_module("ladder_cli.conf", version_base="1.3"):
        configs = {
            name: parse(compose("train", [*overrides, *choice]), TrainConfig) for name, choice in METHODS.items()
        }
    model = configs[REFERENCE].model
    quiet_libraries(model)
    from ladder_cli.training.bench import REPEATS, Shape, compare

    shape = Shape(args.rows, args.tokens)
    results = compare(model, {name: config.method for name, config in configs.items()}, shape, REFERENCE)
    table = Table(
        title=f"{model.name}, {args.rows} x {args.tokens} tokens, quantization {args.quantization}, CPU; "
        f"median of {REPEATS} interleaved steps",
        box=None,
        padding=(0, 1),
    )
    for heading in ("method", "step s", "tokens/s", "peak MB", "kept for backward MB", "step / QLoRA checkpointed"):
        table.add_column(heading, justify="right")
    for name, figures in results.items():
        table.add_row(
            name,
            f"{figures['step_seconds']:.3f}",
            f"{figures['tokens_per_second']:,.0f}",
            f"{figures['peak_memory_bytes'] / 1e6:,.0f}",
            f"{figures['saved_activation_bytes'] / 1e6:,.1f}",
            f"{figures[f'ratio_to_{REFERENCE}']:.2f}",
        )
    make_console().print(table)
    path = OUTPUTS / "bench" / "bench.json"
    conditions = {"model": model.name, "quantization": args.quantization, "rows": args.rows, "tokens": args.tokens}
    write_json(path, {"conditions": conditions, "results": results})
    print(f"written to {Path(path)}")


if __name__ == "__main__":
    main()
