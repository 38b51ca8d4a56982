"""What a row of a training set can be, and which options each kind reads. Imports nothing heavy."""

from collections.abc import Mapping
from types import MappingProxyType

from ladder_cli.config.choices import RowFormat
from ladder_cli.config.schema import DataConfig
from ladder_cli.config.validation import suggest
from ladder_cli.errors import UserError

# Read for every set: which one it is, how large, how rows become tokens.
_ALWAYS = frozenset(
    {
        *("name", "format", "train_samples", "validation_samples", "max_length", "truncation"),
        *("decontaminate", "cache", "date"),
    }
)
# Where rows come from: one's own file takes the place of the hub's three.
_HUB = frozenset({"hub_id", "hub_config", "split"})
_READS: Mapping[RowFormat, frozenset[str]] = MappingProxyType(
    {
        RowFormat.GENERATED: frozenset({"instruction", "packing"}),
        RowFormat.PAIRS: frozenset({"instruction", "packing", "prompt", "completion", "gold"}),
        RowFormat.CHAT: frozenset({"messages", "learn", "packing"}),
        RowFormat.LABEL: frozenset({"instruction", "packing", "prompt", "label", "labels", "group"}),
        RowFormat.PREFERENCE: frozenset({"instruction", "prompt", "chosen", "rejected"}),
    }
)
# Rows of tokens that an example becomes, which stay side by side in one micro-batch.
_ROWS_EACH: Mapping[RowFormat, int] = MappingProxyType({RowFormat.PREFERENCE: 2})


def format_of(data: DataConfig) -> RowFormat:
    """The format of a set's rows: `data.format`; where that is left open, chats if their column is named, else pairs.

    Raises:
        UserError: if the format is left open and columns of both are named.
    """
    if data.format is not None:
        return data.format
    if data.messages is None:
        return RowFormat.PAIRS
    named = [f"data.{name}" for name in ("prompt", "completion") if getattr(data, name) is not None]
    if named:
        raise UserError(
            f"data.messages names a column of chats, and {' and '.join(named)} that of pairs: rows are one or the "
            "other. Leave one out."
        )
    return RowFormat.CHAT


def rows_each(data: DataConfig) -> int:
    """Rows of tokens that an example of this set becomes: of a preference two, the preferred answer and the other."""
    return _ROWS_EACH.get(format_of(data), 1)


def fields_read(data: DataConfig) -> frozenset[str]:
    """The fields of `DataConfig` that this set reads, without the prefix `data.`; any other must not be given.

    A set with a home on the hub reads no file of one's own, a generated set neither; a set with several targets takes
    its completion from the one that is chosen.
    """
    kind = format_of(data)
    reads = _ALWAYS | _READS[kind]
    if kind is RowFormat.GENERATED:
        return reads
    reads |= {"path"} if data.path is not None and data.hub_id is None else _HUB
    if data.hub_id is None:
        reads |= {"path"}
    if kind is RowFormat.PAIRS and data.targets:
        reads = (reads - {"completion"}) | {"target", "targets"}
    return reads


def refuse_unread(data: DataConfig, given: list[str]) -> None:
    """Refuse fields (without the prefix `data.`) that were given and that the set does not read.

    Raises:
        UserError: naming the field, the set, and what reads it.
    """
    reads = fields_read(data)
    for name in given:
        if name in reads:
            continue
        if name == "path":
            advice = (
                f"its rows come from {data.hub_id or 'this package'}; a file of your own is data=jsonl data.path=FILE"
            )
        elif name in ("target", "targets"):
            advice = "only a set that offers several completions (its targets) reads it, as data=s1k does"
        else:
            owners = [kind.value for kind, names in _READS.items() if name in names]
            own = "; a file of your own is data=jsonl data.path=FILE" if data.path is None else ""
            advice = f"rows of format {' and '.join(owners)} read it{own}" if owners else "leave it out"
        raise UserError(
            f"data={data.name} (format {format_of(data).value}) does not read data.{name}: {advice}."
            f"{suggest(name, sorted(reads - {name}))}"
        )
