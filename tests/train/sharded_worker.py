"""What every process of `test_sharding` does: `torchrun ... -m tests.train.sharded_worker FOLDER`."""

import json
import sys
from pathlib import Path

import torch

from ladder_cli.config.methods import QLoRAMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.config.trunk import StreamingConfig
from ladder_cli.distributed import join
from ladder_cli.methods.registry import method_for
from ladder_cli.ranks import process_index
from ladder_cli.trunk.loading import parameter_count
from ladder_cli.trunk.open import TrunkKind, open_trunk
from ladder_cli.trunk.sharded import is_sharded
from tests.malformed import run_command

# Five rows of validation in batches of two: the processes have unequal shares of three batches.
OPTIONS = (
    *("hardware=cpu", "data.train_samples=48", "data.validation_samples=5", "data.cache=false"),
    *("train.global_batch_size=8", "train.micro_batch_size=2", "train.max_steps=4", "train.evaluations=2"),
    "train.logging_steps=1",
)
# Processes of a sharded backbone run a micro-batch together, and so does the run that they are compared with.
BATCHES = "trunk.passes=batch"
RUNS = {
    "ladder": ["method=ladder", BATCHES],
    # First weights that are read off the backbone, side layers computed twice, and a backbone that runs halfway.
    "cut-off": [
        *("method=ladder", "method.init=pruned_fisher", "method.connections=first", "method.layers=4"),
        *("method.combine=side", "method.recompute=true", "model.head_quantization=int8"),
        BATCHES,
    ],
    "branch": ["method=branch", BATCHES],
    "qlora": ["method=qlora"],
    "checkpointed": ["method=qlora", "method.gradient_checkpointing=true"],
}
# Cut as the bytes that they are; with gradients that pass through them, and without.
QUANTIZED = {
    "ladder-nf4": ["method=ladder", "model.quantization=nf4", BATCHES],
    "fisher-int8": [
        *("method=xladder", "method.init=pruned_fisher", "model.quantization=int8", "model.head_quantization=nf4"),
        BATCHES,
    ],
    "suffix-nf4": ["method=suffix", "method.layers=2", "model.quantization=nf4", BATCHES],
    "suffixed-nf4": [
        *("method=ladder-suffix", "method.layers=2", "method.suffix_layers=2", "method.gradient_checkpointing=true"),
        *("model.quantization=nf4", BATCHES),
    ],
    "checkpointed-nf4": ["method=qlora", "method.gradient_checkpointing=true", "model.quantization=nf4"],
    "qlora-int8": ["method=qlora", "model.quantization=int8"],
}
LONG = ("method=ladder", BATCHES, "train.max_steps=24", "train.evaluations=3")  # the twin of a run that is stopped


def main(folder: Path) -> None:
    for name, options in RUNS.items():
        train(folder / "whole" / name, *options)
        train(folder / "sharded" / name, *options, "hardware.shard_backbone=true")
    for name, options in QUANTIZED.items():
        train(folder / "whole" / name, *options)
        files = f"trunk.layer_files={folder / 'layers'}"
        train(folder / "sharded" / name, *options, "hardware.shard_backbone=true", files)
    train(folder / "whole" / "long", *LONG)
    for kind in ("none", "nf4", "int8"):
        (folder / f"held-{kind}-{process_index()}.json").write_text(json.dumps(held(kind, folder / "layers")))


def train(folder: Path, *options: str) -> None:
    status, _, errors = run_command("train", [f"output_dir={folder}", *OPTIONS, *options])
    assert status == 0, errors


def held(quantization: str, files: Path) -> dict[str, int]:
    """Bytes of the layers' frozen weights, whole and in this process; numbers that are trained, before and after."""
    cpu = torch.device("cpu")
    join(cpu)
    config = ModelConfig(name="tiny", path="builtin:tiny", quantization=quantization)
    trunk = open_trunk(config, cpu, TrunkKind.SHARDED, StreamingConfig(layer_files=str(files)))
    layers = trunk.parts.layers
    whole = sum(weight.nbytes for weight in layers.parameters())
    method = method_for(QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3))
    unsharded = method.attach(open_trunk(config, cpu))
    trained = sum(weight.numel() for weight in unsharded.parameters() if weight.requires_grad)
    assert not is_sharded(unsharded)
    model = method.attach(trunk)
    assert is_sharded(model)
    return {
        "whole": whole,
        "here": sum(weight.to_local().untyped_storage().nbytes() for weight in frozen(layers)),
        "trained_before": trained,
        "trained_after": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "frozen_before": parameter_count(unsharded, trained=False),
        "frozen_after": parameter_count(model, trained=False),
    }


def frozen(layers: torch.nn.Module) -> list:
    return [weight for weight in layers.parameters() if not weight.requires_grad]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
