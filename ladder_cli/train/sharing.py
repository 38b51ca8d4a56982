"""Which runs share a pass over the backbone: decided by content, and by what the memory holds.

`run.together` has compared their options already. Here it is the rows, the order that they come in, the step to go on
from, and the memory.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce

from rich.console import Console

from ladder_cli.config.choices import OnMisfit, Together
from ladder_cli.config.compose import as_dict
from ladder_cli.data.prepare import PreparedData, Source
from ladder_cli.distributed import main_first
from ladder_cli.plan.preflight import Preflight, preflight
from ladder_cli.plan.reading import Reading, Shape
from ladder_cli.plan.together import both, side_by_side
from ladder_cli.train.member import Member
from ladder_cli.train.problems import prepared, source_of
from ladder_cli.train.resume import local_weights


@dataclass(frozen=True)
class Sharing:
    """Runs that are trained side by side.

    Attributes:
        members: the runs; a run by itself is alone in it.
        data: their rows.
        order_of_seed: the seed that orders them.
        memory: what a step of all of them takes.
        reading: how the backbone is read for them.
        shape: what of it is read; None of a run by itself, which says so itself.
    """

    members: Sequence[Member]
    data: PreparedData
    order_of_seed: int
    memory: Preflight
    reading: Reading
    shape: Shape | None


@dataclass(frozen=True)
class _Alike:
    """Runs with one order of the same rows, that go on from the same step."""

    order_of_seed: int
    members: list[Member] = field(default_factory=list)

    def left(self) -> list[Member]:
        return [member for member in self.members if not member.is_over]


def sharings(asked: Sequence[Member], console: Console) -> Iterator[Sharing]:
    """Runs whose options let them share, in groups that really can. What goes wrong in one ends that one.

    Args:
        asked: settled, with the step that they continue from; some may be over already.
    """
    for alike in _alike(asked, console):
        data = _prepared(alike, console)
        if data is None:
            continue
        shapes = _shapes(alike)
        shape = reduce(both, shapes.values()) if shapes else None
        reading = _reading(alike, data, shape)
        if reading is None:
            continue
        memories = _memories(alike, data, reading)
        groups = fitting(memories, shapes, reading.host_bytes)
        if len(groups) > 1:
            sizes = " + ".join(str(len(group)) for group in groups)
            console.print(
                f"{len(memories)} runs side by side do not fit the memory: they are trained in {len(groups)} groups "
                f"({sizes})",
                soft_wrap=True,
            )
        for group, memory in groups.items():
            yield Sharing(group, data, alike.order_of_seed, memory, reading, shape)


def _alike(asked: Sequence[Member], console: Console) -> list[_Alike]:
    """The runs by rows, order and step, in the order of their first ones."""
    members = [member for member in asked if not member.is_over]
    if len(members) == 1:
        (member,) = members
        return [_Alike(_own_order(member), [member])]
    rows = _Rows()
    for member in members:
        with member.alone():
            rows.load(member)
    if len({rows.of(member) for member in members} - {None}) > 1:
        console.print(
            "each seed draws rows of its own, so that runs of different seeds share no pass: those of one seed do",
            soft_wrap=True,
        )
    groups: dict[tuple, _Alike] = {}
    for member in members:
        if not member.is_over:
            order = _order(member, rows, asked)
            key = (rows.of(member), order, member.continued_at)
            groups.setdefault(key, _Alike(order)).members.append(member)
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
            member.source = source_of(member.config)
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


def _prepared(alike: _Alike, console: Console) -> PreparedData | None:
    """The rows as tokens; None where that fails, which ends all of the runs."""
    data = None
    for member in alike.members:
        if data is None:
            with member.alone(), main_first():
                data = prepared(member.config, member.source)
                tell_fewer_rows(member.config.data.train_samples, data, console)
        # One that was begun by an earlier version goes on.
        if data is not None and member.continued_at is None:
            with member.alone():
                member.job.check_patience(data.passed)
    return data


def tell_fewer_rows(asked: int | None, data: PreparedData, console: Console) -> None:
    """Say it where there are fewer training rows than were asked for; what is recorded are those that there are."""
    there = data.train.examples
    if asked is not None and there < asked:
        console.print(
            f"warning: data.train_samples={asked} asks for more training rows than there are: it trains on {there:,} "
            f"({len(data.splits.train) - there:,} more are too long, {data.validation.examples:,} are held out)",
            soft_wrap=True,
            highlight=False,
        )


def _shapes(alike: _Alike) -> dict[Member, Shape]:
    """What each of several runs reads of the backbone; empty for a run by itself."""
    if len(alike.members) == 1:
        return {}
    known: dict[str, Shape] = {}
    shapes: dict[Member, Shape] = {}
    for member in alike.left():
        with member.alone():
            kind = _kind(member)
            known[kind] = known[kind] if kind in known else member.job.shape()
            shapes[member] = known[kind]
    return shapes


def _reading(alike: _Alike, data: PreparedData, shape: Shape | None) -> Reading | None:
    """How the backbone is read for all of the runs; None where it cannot be, which ends them."""
    reading = None
    for member in alike.left():
        if reading is None:
            steps = max(member.job.steps(data.passed) for member in alike.left())
            with member.alone():
                reading = member.job.reading(data, local_weights(member.config), shape, steps)
    return reading


def _memories(alike: _Alike, data: PreparedData, reading: Reading) -> dict[Member, Preflight]:
    """What a step of each run takes by itself; a run for which there is no room ends."""
    known: dict[str, Preflight] = {}
    memories: dict[Member, Preflight] = {}
    for member in alike.left():
        with member.alone():
            config, kind = member.config, _kind(member)
            if kind not in known:
                known[kind] = preflight(
                    config, member.job.device, data.longest, reading.host_bytes, reading.absent, member.job.residency
                )
            if config.preflight is OnMisfit.REFUSE:
                known[kind].refuse()
            memories[member] = known[kind]
    return memories


def _kind(member: Member) -> str:
    """What decides the memory of a run among runs that share all else."""
    method, train = as_dict(member.config.method), member.config.train
    del method["learning_rate"]
    return json.dumps([method, train.optimizer, train.loss_chunk, member.config.objective.refers])


def fitting(
    memories: dict[Member, Preflight], shapes: dict[Member, Shape], cached: int = 0
) -> dict[tuple[Member, ...], Preflight]:
    """The runs in as few groups as fit the memory: each into the first group that has room, the largest first.

    Args:
        memories: of each run by itself.
        shapes: what each reads.
        cached: bytes of taps that lie in the host's memory for all of them.

    Returns:
        The memory of each group, in the order of their first runs. A run that does not fit by itself is alone.
    """

    def memory_of(group: Sequence[Member]) -> Preflight:
        return side_by_side(
            [memories[member] for member in group], [shapes[member] for member in group if member in shapes], cached
        )

    groups: list[list[Member]] = []
    for member in sorted(memories, key=lambda member: -memories[member].prediction.total):
        for group in groups:
            if memory_of([*group, member]).fits:
                group.append(member)
                break
        else:
            groups.append([member])
    ordered = sorted((sorted(group, key=_number) for group in groups), key=lambda group: _number(group[0]))
    return {tuple(group): memory_of(group) for group in ordered}


def _number(member: Member) -> int:
    return member.number
