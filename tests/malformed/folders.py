"""Run directories and adapters that were cut, mixed up, or made by somebody who means no good."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.malformed import Case

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Change = Callable[[Path], None]


def _spoiled(method: str, name: str, change: Change) -> Case:
    """`ladder-eval` on a copy of a run whose files were changed, checksums taken away as a stranger would."""

    def arguments(folder: Path, runs: Path) -> list[str]:
        run = folder / "run"
        shutil.copytree(runs / method, run)
        (run / "adapter" / "SHA256SUMS").unlink()
        change(run)
        return [f"run={run}", "limit=1", "decode.max_new_tokens=1", "hardware=cpu"]

    return Case(f"{method} run, {name}", "evaluate", arguments)


def _bytes(path: str, content: bytes) -> Change:
    return lambda run: (run / path).write_bytes(content) and None  # type: ignore[func-returns-value]


def _cut(path: str, share: float) -> Change:
    def change(run: Path) -> None:
        content = (run / path).read_bytes()
        (run / path).write_bytes(content[: int(len(content) * share)])

    return change


def _config(**values: Any) -> Change:
    def change(run: Path) -> None:
        path = run / "adapter" / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def _backbone(**values: Any) -> Change:
    def change(run: Path) -> None:
        path = run / "adapter" / CONFIG
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"backbone": config["backbone"] | values}))

    return change


def _weights(change_all: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def change(run: Path) -> None:
        path = run / "adapter" / WEIGHTS
        save_file({name: w.contiguous() for name, w in change_all(load_file(path)).items()}, path)

    return change


def _shuffled(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = sorted(weights)
    return dict(zip(names, (weights[name] for name in [*names[1:], names[0]]), strict=True))


def _first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict], dict]:
    def change_all(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(name for name in sorted(weights) if weights[name].dim() == 2)
        return weights | {name: change(weights[name])}

    return change_all


def _header(size: int, header: bytes = b"{}") -> bytes:
    return struct.pack("<Q", size) + header


def _tensors(**entries: Any) -> bytes:
    header = json.dumps(entries).encode()
    return _header(len(header), header)


_RAW_WEIGHTS = {
    "empty weights": b"",
    "seven bytes of weights": b"\x00" * 7,
    "header of 2^63 bytes": _header(2**63),
    "header of 2^64 - 1 bytes": _header(2**64 - 1),
    "header of 100 GB": _header(10**11),
    "header that is no JSON": _header(4, b"oops"),
    "header that is a list": _header(2, b"[]"),
    "header without tensors": _header(2),
    "header of deep nesting": _header(100_000, b"[" * 100_000),
    "a tensor of 2^60 elements": _tensors(w={"dtype": "F32", "shape": [2**30, 2**30], "data_offsets": [0, 4]}),
    "a tensor with negative offsets": _tensors(w={"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}),
    "a tensor past the end": _tensors(w={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
    "an unknown dtype": _tensors(w={"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}) + b"\x00" * 4,
    "a pickle for weights": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.",
}
_BOTH: dict[str, Change] = {
    **{name: _bytes(f"adapter/{WEIGHTS}", content) for name, content in _RAW_WEIGHTS.items()},
    "half of the weights": _cut(f"adapter/{WEIGHTS}", 0.5),
    "all but a byte of the weights": _cut(f"adapter/{WEIGHTS}", 0.99999),
    "half of the config": _cut(f"adapter/{CONFIG}", 0.5),
    "weights shuffled among names": _weights(_shuffled),
    "a weight transposed": _weights(_first(lambda w: torch.cat([w, w]).t())),
    "a weight flattened": _weights(_first(torch.flatten)),
    "a weight without rows": _weights(_first(lambda w: w[:0])),
    "a weight in float16": _weights(_first(torch.Tensor.half)),
    "a weight in float64": _weights(_first(torch.Tensor.double)),
    "a weight of integers": _weights(_first(torch.Tensor.long)),
    "a weight that is NaN": _weights(_first(lambda w: w * float("nan"))),
    "a weight missing": _weights(lambda all_of_them: dict(sorted(all_of_them.items())[1:])),
    "a weight too many": _weights(lambda all_of_them: all_of_them | {"extra": torch.zeros(3)}),
    "no weights": lambda run: (run / "adapter" / WEIGHTS).unlink(),
    "no adapter config": lambda run: (run / "adapter" / CONFIG).unlink(),
    "adapter config is a list": _bytes(f"adapter/{CONFIG}", b"[]"),
    "adapter config is deep": _bytes(f"adapter/{CONFIG}", b"[" * 100_000),
    "adapter config is not UTF-8": _bytes(f"adapter/{CONFIG}", b"\xff\xfe{}"),
    "pickled weights in place of safetensors": lambda run: (
        (run / "adapter" / WEIGHTS).rename(run / "adapter" / "adapter_model.bin") and None
    ),  # type: ignore[func-returns-value]
}
_LADDER: dict[str, Change] = {
    "a billion side layers": _config(side_layers=10**9),
    "1,000 side layers": _config(side_layers=1000, reduction=1, pairs=[]),
    "negative side layers": _config(side_layers=-1),
    "side layers in words": _config(side_layers="six"),
    "reduction of zero": _config(reduction=0),
    "reduction of a half": _config(reduction=0.5),
    "another reduction": _config(reduction=4),
    "projection rank of 10^12": _config(projection="low_rank", projection_rank=10**12),
    "pairs out of range": _config(pairs=[[99, 1]]),
    "pairs in words": _config(pairs="all"),
    "no pairs": _config(pairs=None),
    "unknown gate": _config(gate="__import__('os')"),
    "another gate": _config(gate="vector"),
    "no backbone": _config(backbone=None),
    "backbone of unknown type": _backbone(model_type="no-such-model"),
    "backbone with its own code": _backbone(model_type="no-such-model", auto_map={"AutoConfig": "evil.Config"}),
    "another backbone": _backbone(hidden_size=256),
    "backbone of text for numbers": _backbone(num_hidden_layers="many"),
    "backbone a billion wide": _backbone(hidden_size=10**9),
    "adapter of unknown type": _config(adapter_type="ladders"),
}
_QLORA: dict[str, Change] = {
    "another kind of adapter": _config(peft_type="IA3"),
    "unknown kind of adapter": _config(peft_type="EVIL"),
    "kind of adapter is a list": _config(peft_type=["LORA"]),
    "rank of zero": _config(r=0),
    "rank of a million": _config(r=10**6),
    "rank in words": _config(r="sixteen"),
    "another rank": _config(r=8),
    "layers by regular expression": _config(target_modules="(a+)+$"),
    "layers that are not there": _config(target_modules=["no_such_layer"]),
    "layers are numbers": _config(target_modules=[1, 2]),
    "modules of its own": _config(megatron_config={"a": 1}, megatron_core="os"),
    "DoRA": _config(use_dora=True),
    "other ranks by pattern": _config(rank_pattern={"(a+)+$": 4}),
    "a field of a later peft": _config(brand_new="yes"),
}
_RUN: dict[str, Change] = {
    "empty config": _bytes("config.yaml", b""),
    "config is a list": _bytes("config.yaml", b"- 1\n- 2\n"),
    "config is no YAML": _bytes("config.yaml", b"a: [1, 2\nb: }"),
    "config with a tag": _bytes("config.yaml", b"a: !!python/object/apply:os.system ['true']\n"),
    "config that reads the environment": _bytes("config.yaml", b"model:\n  hub_id: ${oc.env:HOME}\n"),
    "config of aliases": _bytes(
        "config.yaml", b"a: &a [x]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120))
    ),
    "config with an unknown option": lambda run: (
        (run / "config.yaml").write_text((run / "config.yaml").read_text() + "extra: 1\n") and None
    ),  # type: ignore[func-returns-value]
    "config is not UTF-8": _bytes("config.yaml", b"\xff\xfea: 1"),
    "prompt is a list": _bytes("adapter/prompt.json", b"[]"),
    "prompt without instruction": _bytes("adapter/prompt.json", b"{}"),
    "no prompt": lambda run: (run / "adapter" / "prompt.json").unlink(),
}


def _changed_afterwards(runs: Path, folder: Path) -> list[str]:
    """One byte in the middle of the weights is another one: only the checksum can tell."""
    run = folder / "run"
    shutil.copytree(runs / "ladder", run)
    content = bytearray((run / "adapter" / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (run / "adapter" / WEIGHTS).write_bytes(content)
    return [f"run={run}", "limit=1", "hardware=cpu"]


def _restarted(name: str, change: Change) -> Case:
    """`ladder-train` in a run directory whose own record was spoiled."""

    def arguments(folder: Path, runs: Path) -> list[str]:
        from tests.malformed import TINY_RUN

        shutil.copytree(runs / "ladder", folder / "run")
        change(folder / "run")
        return [f"output_dir={folder / 'run'}", *TINY_RUN]

    return Case(f"restart, {name}", "train", arguments)


CASES = [
    *(_spoiled(method, name, change) for method in ("ladder", "qlora") for name, change in _BOTH.items()),
    *(_spoiled("ladder", name, change) for name, change in (_LADDER | _RUN).items()),
    *(_spoiled("qlora", name, change) for name, change in _QLORA.items()),
    Case("ladder run, one bit flipped", "evaluate", lambda folder, runs: _changed_afterwards(runs, folder)),
    _restarted("run.json cut", _cut("run.json", 0.5)),
    _restarted("run.json is a list", _bytes("run.json", b"[]")),
    _restarted("run.json is deep", _bytes("run.json", b"[" * 100_000)),
    _restarted("no run.json", lambda run: (run / "run.json").unlink()),
    _restarted("config cut", _cut("config.yaml", 0.3)),
    _restarted("no config", lambda run: (run / "config.yaml").unlink()),
]
