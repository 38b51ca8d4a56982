"""Which runs share a pass over the backbone: decided by content, and by what the memory holds.

`run.together` has compared their options already. Here it is the rows, the order that they come in, the step to go on
from, and whether a method reads taps at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console

from ladder_cli.config.choices import OnMisfit, Together
from ladder_cli.data.prepare import PreparedData, Source, load_source, prepare_data
from ladder_cli.distributed import main_first
from ladder_cli.plan.preflight import Preflight, preflight
from ladder_cli.plan.together import Width, side_by_side
from ladder_cli.train.member import Member
from ladder_cli.trunk.base import TapRequest
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import architecture, backbone_shape, planned_dtype


@dataclass(frozen=True)
class Sharing:
    """Runs that are trained side by side.

    Attributes:
        members: the runs; a run by itself is alone in it.
        data: their rows.
        order_of_seed: the seed that orders them.
        memory: what a step of all of them takes.
    """

    members: Sequence[Member]
    data: PreparedData
    order_of_seed: int
    memory: Preflight


@dataclass(frozen=True)
class _Alike:
    """Runs with one order of the same rows, that go on from the same step."""

    members: list[Member]
    order_of_seed: int


def sharings(members: Sequence[Member], asked: Sequence[Member], console: Console) -> Iterator[Sharing]:
    """Runs whose options let them share, in groups that really can. What goes wrong in one ends that one.

    Args:
        members: settled, with the step that they continue from.
        asked: those and the ones beside them that are over.
    """
    requests = _requests(members)
    for alike in _alike([member for member in members if not member.is_over], asked, requests, console):
        memories: dict[Member, Preflight] = {}
        data = _prepared(alike.members, console)
        for member in _open(alike.members):
            assert data is not None
            with member.alone():
                memory = preflight(member.config, member.job.device, data.longest)
                if member.config.preflight is OnMisfit.REFUSE:
                    memory.refuse()
                memories[member] = memory
        groups = fitting(memories, requests)
        if len(groups) > 1:
            sizes = " + ".join(str(len(group)) for group in groups)
            console.print(
                f"{len(memories)} runs side by side do not fit the memory: they are trained in {len(groups)} groups "
                f"({sizes})",
                soft_wrap=True,
            )
        for group, memory in groups.items():
            assert data is not None
            yield Sharing(group, data, alike.order_of_seed, memory)


def _open(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if not member.is_over]


def _requests(members: Sequence[Member]) -> dict[Member, TapRequest | None]:
    """What each run reads of the backbone; looked at only where there are several."""
    if len(members) == 1:
        return {members[0]: None}
    requests: dict[Member, TapRequest | None] = {}
    for member in members:
        with member.alone(), torch.device("meta"):
            model = member.config.model
            shape = backbone_shape(model, planned_dtype(model, member.job.device))
            requests[member] = member.job.method.shape(LiveTrunk(shape)).request
    return requests


def _alike(
    members: list[Member], asked: Sequence[Member], requests: dict[Member, TapRequest | None], console: Console
) -> list[_Alike]:
    """The runs by rows, order and step; those that read no taps each by itself. In the order of their first ones."""
    if len(members) == 1:
        (member,) = members
        return [_Alike(members, _own_order(member))]
    rows = _Rows()
    readers = []
    for member in members:
        with member.alone():
            if requests[member] is not None:
                rows.load(member)
                readers.append(member)
    fingerprints = {rows.of(member) for member in readers}
    if len(fingerprints) > 1:
        console.print(
            f"the seed draws the rows, so that runs of {len(fingerprints)} seeds share no pass: they are grouped by "
            "seed",
            soft_wrap=True,
        )
    groups: dict[tuple, _Alike] = {}
    for member in members:
        if member.is_over:
            continue
        if member not in readers:
            groups[(member.number,)] = _Alike([member], _own_order(member))
            continue
        order = _order(member, rows, asked)
        key = (rows.of(member), order, member.continued_at)
        groups.setdefault(key, _Alike([], order)).members.append(member)
    return list(groups.values())


class _Rows:
    """The rows of runs that differ in the seed at most, loaded once where the seed does not draw them."""

    def __init__(self) -> None:
        self._sources: dict[int | None, Source] = {}
        self._fingerprints: dict[int, str] = {}

    def load(self, member: Member) -> None:
        """Load them, unless it has been done.

        Raises:
            UserError: for whatever is wrong with model, data or lengths.
        """
        if member.source is None:
            member.source = self._sources.get(None) or self._sources.get(member.config.seed)
        if member.source is None:
            member.source = load_source(member.config)
        seed = member.config.seed if member.source.splits.drawn else None
        self._sources.setdefault(seed, member.source)

    def of(self, member: Member) -> str | None:
        """Their fingerprint; None where they have not been loaded."""
        source = member.source
        if source is None:
            return None
        if id(source) not in self._fingerprints:
            self._fingerprints[id(source)] = source.splits.fingerprint
        return self._fingerprints[id(source)]


def _own_order(member: Member) -> int:
    """The seed whose order a run by itself has: the one that it has had so far."""
    recorded = member.recorded_order
    return recorded if member.continued_at is not None and recorded is not None else member.config.seed


def _order(member: Member, rows: _Rows, asked: Sequence[Member]) -> int:
    """The seed whose order a run has that may be grouped with others: of a new one, that of the first of them, which
    may be done already.
    """
    if member.continued_at is not None or member.config.train.together is not Together.TRUE:
        return _own_order(member)
    first = next(other for other in asked if rows.of(other) == rows.of(member))
    return first.recorded_order if first.recorded_order is not None else first.config.seed


def _prepared(members: Sequence[Member], console: Console) -> PreparedData | None:
    """The rows as tokens; None where that fails, which ends all of the runs."""
    data = None
    for member in members:
        if data is None:
            with member.alone(), main_first():
                data = prepare_data(member.config, member.source)
    if data is not None:
        tell_fewer_rows(members[0].config.data.train_samples, data, console)
    return data


def tell_fewer_rows(asked: int | None, data: PreparedData, console: Console) -> None:
    """Say it where there are fewer training rows than were asked for; what is recorded are those that there are."""
    there = len(data.train)
    if asked is not None and there < asked:
        console.print(
            f"warning: data.train_samples={asked} asks for more training rows than there are: it trains on {there:,} "
            f"({len(data.splits.train) - there:,} more are too long, {len(data.validation):,} are held out)",
            soft_wrap=True,
            highlight=False,
        )


def fitting(
    memories: dict[Member, Preflight], requests: dict[Member, TapRequest | None]
) -> dict[tuple[Member, ...], Preflight]:
    """The runs in as few groups as fit the memory: each into the first group that has room, the largest first.

    Returns:
        The memory of each group, in the order of their first runs. A run that does not fit by itself is alone.
    """
    groups: list[list[Member]] = []
    for member in sorted(memories, key=lambda member: -memories[member].prediction.total):
        for group in groups:
            if _beside([*group, member], memories, requests).fits:
                group.append(member)
                break
        else:
            groups.append([member])
    ordered = sorted((sorted(group, key=_number) for group in groups), key=lambda group: _number(group[0]))
    return {tuple(group): _beside(group, memories, requests) for group in ordered}


def _number(member: Member) -> int:
    return member.number


def _beside(
    group: Sequence[Member], memories: dict[Member, Preflight], requests: dict[Member, TapRequest | None]
) -> Preflight:
    together = [memories[member] for member in group]
    if len(group) == 1:
        return together[0]
    request = TapRequest(frozenset(), final=False)
    for member in group:
        request |= requests[member] or request
    config = architecture(group[0].config.model).get_text_config()
    dtype = planned_dtype(group[0].config.model, group[0].job.device)
    width = Width(int(config.num_hidden_layers), int(config.hidden_size) * dtype.itemsize)
    return side_by_side(together, width.taps(request, together[0].step))
