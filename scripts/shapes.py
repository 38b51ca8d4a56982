"""Prints what every method trains, saves for backward and needs at its peak, at published shapes. Needs no weights.

python scripts/shapes.py            the tables of docs/shapes.md and docs/memory.md
"""

import time

import torch
from transformers import AutoModelForCausalLM

from ladder_cli.bench.counts import predicted_activation_bytes
from ladder_cli.config.catalogue import choices
from ladder_cli.config.compose import composed
from ladder_cli.config.schema import ModelConfig, TrainConfig
from ladder_cli.methods.registry import method_for
from ladder_cli.plan.memory import Step, predict_memory
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import architecture, parameter_count

SHAPES = ("qwen2.5-math-1.5b", "qwen2.5-7b")
ROWS, TOKENS = 1, 2048
SETTINGS = {
    "ladder": [],
    "ladder, not recomputed": ["method.recompute=false"],
    "xladder": ["method=xladder"],
    "xladder-4": ["method=xladder-4"],
    "xladder-4, not recomputed": ["method=xladder-4", "method.recompute=false"],
    "qlora": ["method=qlora"],
    "qlora, checkpointed": ["method=qlora", "method.gradient_checkpointing=true"],
}
PEAKS = {
    "ladder": [],
    "ladder, hardware=rtx-6gb": ["hardware=rtx-6gb"],
    "xladder": ["method=xladder"],
    "xladder-4": ["method=xladder-4"],
    "qlora": ["method=qlora"],
    "qlora, checkpointed": ["method=qlora", "method.gradient_checkpointing=true"],
    "qlora, checkpointed, hardware=rtx-6gb": [
        *("method=qlora", "method.gradient_checkpointing=true", "hardware=rtx-6gb"),
    ],
    "branch, 4 layers": ["method=branch", "method.layers=4"],
    "suffix": ["method=suffix"],
    "suffix, not checkpointed": ["method=suffix", "method.gradient_checkpointing=false"],
    "suffix, 7 layers": ["method=suffix", "method.layers=7"],
    "suffix, hardware=rtx-6gb": ["method=suffix", "hardware=rtx-6gb"],
    "ladder-suffix": ["method=ladder-suffix"],
    "ladder-suffix, not checkpointed": ["method=ladder-suffix", "method.gradient_checkpointing=false"],
    "ladder-suffix, 7 layers, hardware=rtx-6gb": ["method=ladder-suffix", "method.suffix_layers=7", "hardware=rtx-6gb"],
}
# One after the other, each with those above it.
LEAN = {
    "none of them": [
        *("method.recompute=false", "model.embeddings_on_cpu=false", "train.optimizer=adamw"),
        f"train.loss_chunk={ROWS * TOKENS}",
    ],
    "train.loss_chunk=512": ["train.loss_chunk=512"],
    "train.optimizer=adamw_8bit": ["train.optimizer=adamw_8bit"],
    "method.recompute=true": ["method.recompute=true"],
    "model.embeddings_on_cpu=true": ["model.embeddings_on_cpu=true"],
    "train.loss_chunk=128": ["train.loss_chunk=128"],
    "method.int8_taps=true": ["method.int8_taps=true"],
    "model.head_quantization=nf4": ["model.head_quantization=nf4"],
}


def config_of(*overrides: str) -> TrainConfig:
    """A composed and checked config."""
    return composed("train", TrainConfig, list(overrides))


def meta_trunk(model: ModelConfig) -> LiveTrunk:
    """A frozen backbone of that shape; to be called under the meta device."""
    return LiveTrunk(AutoModelForCausalLM.from_config(architecture(model), dtype=torch.bfloat16))


def parameters(preset: str, model: str) -> int:
    """Trained parameters of a method preset on a shape."""
    config = config_of(f"method={preset}", f"model={model}")
    with torch.device("meta"):
        trained = method_for(config.method).shape(meta_trunk(config.model))
    return parameter_count(trained, trained=True)


def kept(model: str, overrides: list[str]) -> int:
    """Return the bytes saved for the backward pass."""
    config = config_of(f"model={model}", *overrides)
    return predicted_activation_bytes(lambda: method_for(config.method).shape(meta_trunk(config.model)), ROWS, TOKENS)


def peak(model: str, overrides: list[str]) -> tuple[float, float]:
    """GiB at the peak of a step on a GPU, and processor seconds that the prediction took."""
    config = config_of(f"model={model}", "train.micro_batch_size=1", *overrides)
    optimizer = config.train.optimizer.on("cuda")
    step = Step(ROWS, TOKENS, accumulation=2, optimizer=optimizer, loss_chunk=config.train.loss_chunk)
    started = time.process_time()
    total = predict_memory(config.model, method_for(config.method), torch.bfloat16, step).total
    return total / 2**30, time.process_time() - started


def print_peaks() -> None:
    """The table of docs/memory.md."""
    print(f"\n| {ROWS} x {TOKENS} tokens, nf4, 8-bit AdamW | qwen2.5-7b, GiB | llama-3.1-70b, GiB | seconds for 70B |")
    print("|---|---:|---:|---:|")
    for name, overrides in PEAKS.items():
        small, _ = peak("qwen2.5-7b", overrides)
        large, seconds = peak("llama-3.1-70b", overrides)
        print(f"| {name} | {small:.2f} | {large:.1f} | {seconds:.0f} |", flush=True)


def print_lean(model: str) -> None:
    """Print bytes saved for backward and the peak of a step, as one setting after the other is added."""
    print(f"\n| {model}, {ROWS} x {TOKENS} tokens, nf4 | saved for backward, GiB | peak, GiB |\n|---|---:|---:|")
    overrides: list[str] = []
    for name, setting in LEAN.items():
        changed = {override.partition("=")[0] for override in setting}
        overrides = [override for override in overrides if override.partition("=")[0] not in changed] + setting
        print(f"| {name} | {kept(model, overrides) / 2**30:.2f} | {peak(model, overrides)[0]:.2f} |")


def main() -> None:
    """Print all tables as Markdown."""
    print(f"| method | {' | '.join(SHAPES)} |\n|---|{'---:|' * len(SHAPES)}")
    for preset in choices("method"):
        print(f"| {preset} | {' | '.join(f'{parameters(preset, model):,}' for model in SHAPES)} |")
    print(f"\n| {ROWS} x {TOKENS} tokens, bfloat16, SDPA | {' | '.join(f'{m}, GiB' for m in SHAPES)} |")
    print(f"|---|{'---:|' * len(SHAPES)}")
    for name, overrides in SETTINGS.items():
        print(f"| {name} | {' | '.join(f'{kept(model, overrides) / 2**30:.2f}' for model in SHAPES)} |")
    print_peaks()
    print_lean("qwen2.5-7b")


if __name__ == "__main__":
    main()
