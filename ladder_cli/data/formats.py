"""Which options of a training set its rows are read by; any other must not be given. Imports nothing heavy."""

from ladder_cli.config import DataConfig
from ladder_cli.data import classification, columns, s1k
from ladder_cli.data.registry import LOADERS, Loader, load_arithmetic
from ladder_cli.errors import UserError

# Read for every set: which one it is, how large, how rows become tokens.
_ALWAYS = frozenset(
    {
        *("name", "train_samples", "validation_samples", "max_length", "truncation", "packing", "decontaminate"),
        *("cache", "instruction"),
    }
)
_HUB = frozenset({"hub_id", "hub_config"})
# By loader; what takes the place of something else is told by `fields_read`.
_READS: dict[Loader, frozenset[str]] = {
    load_arithmetic: frozenset[str](),
    s1k.load: _HUB | {"target"},
    classification.load: _HUB | {"split"},
    columns.load: _HUB | {"split", "path", "prompt", "completion", "messages"},
}
_ADVICE = {
    "path": "a file of your own is data=jsonl data.path=FILE",
    "target": "data=s1k reads it",
    **dict.fromkeys(("prompt", "completion", "messages"), "data=jsonl reads it, for a file of your own (data.path)"),
}


def fields_read(data: DataConfig) -> frozenset[str]:
    """The fields of `DataConfig` that this set reads, without the prefix `data.`."""
    loader = LOADERS.get(data.name, columns.load)
    reads = _ALWAYS | _READS[loader]
    if loader is columns.load and data.path is not None:
        reads -= _HUB | {"split"}
    if loader is columns.load and data.messages is not None:
        reads -= {"prompt", "completion"}
    return reads


def refuse_unread(data: DataConfig, given: list[str]) -> None:
    """Refuse fields (without the prefix `data.`) that were given and that the set does not read.

    Raises:
        UserError: naming the field, the set, and what reads it.
    """
    reads = fields_read(data)
    for name in given:
        if name not in reads:
            because = " with data.path" if name in _HUB | {"split"} and data.path is not None else ""
            because = " with data.messages" if name in ("prompt", "completion") and data.messages else because
            advice = "leave one out" if because else _ADVICE.get(name, "leave it out")
            raise UserError(f"data={data.name}{because} does not read data.{name}: {advice}.")
