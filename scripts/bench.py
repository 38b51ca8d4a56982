"""Ladder, xLadder and QLoRA with and without checkpointing, step against step: what `make bench` runs.

    python scripts/bench.py                                       the embedded model, and 135M and 0.5B on a CPU
    python scripts/bench.py --model smollm2-135m                  one model, with random weights of its shape
    python scripts/bench.py --model smollm2-135m --path DIR       with its own
    python scripts/bench.py --gpu                                 1.5B and 7B on a GPU, under memory caps
    python scripts/bench.py --gpu --streamed                      streamed layers against resident ones, 7B and 70B

Writes outputs/bench/bench.json, or bench-gpu.json.
"""

import argparse
from typing import Any

from rich.table import Table

from ladder_cli.config.compose import composed
from ladder_cli.config.methods import MethodConfig
from ladder_cli.config.schema import ModelConfig, TrainConfig
from ladder_cli.console import make_console
from ladder_cli.run.directory import OUTPUTS, write_json
from ladder_cli.streams import quiet_libraries

REFERENCE = "qlora_checkpointed"
METHODS = {
    "ladder": ["method=ladder"],
    "ladder_compiled": ["method=ladder", "train.compile=true"],
    "xladder": ["method=xladder"],
    "qlora": ["method=qlora"],
    REFERENCE: ["method=qlora", "method.gradient_checkpointing=true"],
}
# Trains whole layers: where memory is capped it would only say that it does not fit.
ON_CPU = {"branch": ["method=branch"]}
# Model, rows, tokens.
CPU_CASES = [("tiny", 16, 128), ("smollm2-135m", 1, 512), ("smollm2-135m", 4, 512), ("qwen2.5-0.5b", 1, 512)]
# Model, quantization, rows, tokens, cap in GB, hardware preset.
GPU_CASES = [
    *((model, kind, rows, 2048, None, "auto")
      for model in ("qwen2.5-1.5b", "qwen2.5-7b") for kind in ("nf4", "int8") for rows in (1, 4)),
    ("qwen2.5-7b", "nf4", 1, 2048, 12.0, "auto"),
    ("qwen2.5-7b", "nf4", 1, 2048, 8.0, "auto"),
    ("qwen2.5-7b", "nf4", 1, 2048, 6.0, "rtx-6gb"),
]  # fmt: skip
DEFAULTS = {"quantization": "none", "dtype": "float32", "rows": 1, "tokens": 512}
# The same steps over resident layers and over streamed ones: model, tokens, where the layers are on a GPU.
STREAMED_CASES = [("qwen2.5-7b", 2048), ("llama-3.1-70b", 2048)]
STREAMED_METHODS = {"xladder-4": ["method=xladder-4"], "ladder": ["method=ladder"]}
HEADINGS = (
    *("method", "step s", "backbone's forward", "tokens/s", "peak MB", "predicted MB", "saved for backward MB"),
    *("step / QLoRA checkpointed", "FLOPs / QLoRA checkpointed"),
)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="this one alone, a name in conf/model")
    parser.add_argument("--path", help="local folder of the model; by default random weights of its published shape")
    parser.add_argument("--quantization", help="none by default")
    parser.add_argument("--dtype", help="float32 by default")
    parser.add_argument("--rows", type=int, help="1 by default")
    parser.add_argument("--tokens", type=int, help="512 by default")
    parser.add_argument("--gpu", action="store_true", help="the cases for a GPU, with random weights")
    parser.add_argument("--streamed", action="store_true", help="streamed layers against resident ones alone")
    args = parser.parse_args()
    _refuse_unread(parser, args)
    for name, value in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    cases: list[dict[str, Any]] = []
    path = OUTPUTS / "bench" / ("bench-gpu.json" if args.gpu else "bench.json")
    if args.gpu:
        todo = [(*case, "bfloat16", None, "cuda") for case in GPU_CASES]
    else:
        sizes = [(args.model, args.rows, args.tokens)] if args.model else CPU_CASES
        todo = [
            (name, args.quantization, rows, tokens, None, "cpu", args.dtype, args.path, "cpu")
            for name, rows, tokens in sizes
        ]
    if args.streamed:
        todo = []
        path = path.with_stem(path.stem + "-streamed")
        sizes = [(args.model, args.tokens)] if args.model else STREAMED_CASES
        for name, tokens in sizes:
            cases += _streamed(name, tokens, "cuda" if args.gpu else "cpu")
            write_json(path, {"cases": cases})
    for case in todo:
        cases.append(_case(*case))
        write_json(path, {"cases": cases})  # as they are ready: a run of all of them is long
    print(f"written to {path}")


def _refuse_unread(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a line about an option that the chosen cases do not read."""
    # Layers are streamed in one form, from random weights of a published shape, for one row.
    why, read = {
        (False, False): ("without --model several models are measured", ("quantization", "dtype")),
        (False, True): ("", (*DEFAULTS, "path")),
        (True, False): ("the streamed cases are measured", ()),
        (True, True): ("layers are streamed as nf4 and bfloat16, one row, random weights", ("tokens",)),
    }[args.streamed, args.model is not None]
    if args.gpu and not args.streamed:
        why, read = "the cases of --gpu are measured", ()
        if args.model is not None:
            parser.error(f"--model is not read: {why}.")
    for name in (*DEFAULTS, "path"):
        if name not in read and getattr(args, name) is not None:
            parser.error(f"--{name} is not read: {why}.")
    if args.streamed and args.model and composed("train", TrainConfig, [f"model={args.model}"]).model.path is not None:
        parser.error(f"--streamed: {args.model} lies in the package, and is no published shape.")


def _case(
    name: str,
    quantization: str,
    rows: int,
    tokens: int,
    cap_gb: float | None,
    hardware: str,
    dtype: str,
    path: str | None,
    device: str,
) -> dict[str, Any]:
    """Measure one model at one shape, and print the table."""
    overrides = [f"model={name}", f"model.quantization={quantization}", f"model.dtype={dtype}", f"hardware={hardware}"]
    overrides += [f"model.path={path}"] if path else []
    configs = {
        label: composed("train", TrainConfig, [*overrides, *choice])
        for label, choice in (METHODS | (ON_CPU if device == "cpu" else {})).items()
    }
    model: ModelConfig = configs[REFERENCE].model
    random = model.path is None  # the embedded model has a path
    quiet_libraries(downloads=model.path is None)
    from ladder_cli.bench.measure import REPEATS, Shape, compare

    methods: dict[str, MethodConfig] = {label: config.method for label, config in configs.items()}
    compiled = [label for label, config in configs.items() if config.train.compile]
    results = compare(model, methods, Shape(rows, tokens), REFERENCE, device, random, cap_gb, compiled)
    conditions = {
        **{"model": model.name, "quantization": quantization, "dtype": dtype, "rows": rows, "tokens": tokens},
        **{"cap_gb": cap_gb, "hardware": hardware, "device": device, "random_weights": random, "repeats": REPEATS},
    }
    _print(results, conditions)
    return {"conditions": conditions, "results": results}


def _streamed(name: str, tokens: int, device: str) -> list[dict[str, Any]]:
    """Each method over resident layers, and over layers in the host's memory (on a CPU: in files)."""
    quiet_libraries(downloads=False)
    from ladder_cli.bench.measure import Shape, compare
    from ladder_cli.config.choices import Residency

    away = {"cuda": Residency.HOST, "cpu": Residency.DISK}[device]
    found = []
    for label, words in STREAMED_METHODS.items():
        overrides = [f"model={name}", "model.path=null", "model.quantization=nf4", "model.dtype=bfloat16"]
        config = composed(
            "train", TrainConfig, [*overrides, "model.head_quantization=nf4", f"hardware={_PRESET[device]}", *words]
        )
        methods = {label: config.method, f"{label}_streamed": config.method}
        streamed = {f"{label}_streamed": away}
        results = compare(config.model, methods, Shape(1, tokens), label, device, True, streamed=streamed)
        ours, theirs = results[f"{label}_streamed"], results[label]
        if "error" not in ours and "error" not in theirs:
            hidden = 1 - (ours["step_seconds"] - theirs["step_seconds"]) / ours["transfer_seconds"]
            ours["transfer_hidden"] = max(0.0, min(1.0, hidden))
            print(
                f"{name}, {label}, 1 x {tokens}: streamed {ours['step_seconds']:.3f} s, resident "
                f"{theirs['step_seconds']:.3f} s; moving alone {ours['transfer_seconds']:.3f} s, of which "
                f"{ours['transfer_hidden']:.0%} hidden{_profiled(ours)}"
            )
        else:
            print(f"{name}, {label}: {ours.get('error') or theirs.get('error')}")
        found.append({"conditions": {"model": name, "tokens": tokens, "device": device}, "results": results})
    return found


def _profiled(ours: dict[str, Any]) -> str:
    """What the profile of a step says, on a GPU."""
    share = ours["transfer_overlap"]
    return "" if share is None else f" (by a profile, {share:.0%} of the copying runs beside kernels)"


_PRESET = {"cuda": "auto", "cpu": "cpu"}


def _print(results: dict[str, dict[str, Any]], conditions: dict[str, Any]) -> None:
    cap = f", at most {conditions['cap_gb']} GB" if conditions["cap_gb"] else ""
    table = Table(
        title=f"{conditions['model']}, {conditions['rows']} x {conditions['tokens']} tokens, {conditions['dtype']}, "
        f"quantization {conditions['quantization']}, {conditions['device']}{cap}; "
        f"median of {conditions['repeats']} interleaved steps",
        box=None,
        padding=(0, 1),
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for name, metrics in results.items():
        if "error" in metrics:
            table.add_row(name, metrics["error"])
            continue
        ratios = [metrics[f"{kind}_to_{REFERENCE}"] for kind in ("ratio", "flops_ratio")]
        table.add_row(
            name,
            f"{metrics['step_seconds']:.3f}",
            f"{metrics['backbone_seconds'] / metrics['step_seconds']:.0%}",
            f"{metrics['tokens_per_second']:,.0f}",
            f"{metrics['peak_memory_bytes'] / 1e6:,.0f}",
            f"{metrics['predicted_memory_bytes'] / 1e6:,.0f}",
            "" if metrics["saved_activation_bytes"] is None else f"{metrics['saved_activation_bytes'] / 1e6:,.1f}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    make_console().print(table)


if __name__ == "__main__":
    main()
