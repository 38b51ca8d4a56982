"""What several runs take that are trained side by side on one pass: memory, FLOPs, and the page that says so."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from rich.console import Console
from rich.table import Table

from ladder_cli.console import show
from ladder_cli.plan.allocation import TAPS
from ladder_cli.plan.memory import CACHE, WEIGHTS, MemoryPrediction
from ladder_cli.plan.page import Plan
from ladder_cli.plan.preflight import Preflight
from ladder_cli.plan.reading import Shape


def both(first: Shape, second: Shape) -> Shape:
    """What two runs read of one backbone."""
    assert first.request is not None
    assert second.request is not None
    return replace(first, request=first.request | second.request, needed=max(first.needed, second.needed))


def side_by_side(memories: Sequence[Preflight], shapes: Sequence[Shape], cached: int = 0) -> Preflight:
    """The peak of a step of several runs: the weights once, what stays of every run, the taps that all of them read,
    and what passes of the run that takes most for a moment, since one computes after the other.

    Args:
        memories: of each run by itself; one alone is given back as it is.
        shapes: what each reads.
        cached: bytes of taps that lie in the host's memory for all of them.
    """
    if len(memories) == 1:
        return memories[0]
    step, predictions = memories[0].step, [memory.prediction for memory in memories]
    shape = reduce(both, shapes)
    assert shape.request is not None
    # The first layer's input is handed out in any case.
    rungs = {0, *shape.request.layers, *([shape.layers] if shape.request.final else [])}
    taps = len(rungs) * shape.width * shape.dtype.itemsize * step.rows * step.tokens
    weights = max(prediction.parts.get(WEIGHTS, 0) for prediction in predictions)
    parts = Counter({WEIGHTS: weights, TAPS: taps, CACHE: cached if step.on_host else 0})
    for prediction in predictions:
        parts.update(prediction.stays)
    parts.update(max((prediction.passes for prediction in predictions), key=lambda passes: sum(passes.values())))
    host = max(prediction.host for prediction in predictions) + (0 if step.on_host else cached)
    return replace(memories[0], prediction=MemoryPrediction(dict(parts), host), remedies=())


def print_together(plans: Sequence[Plan], names: Sequence[str], shared_pass: int, console: Console) -> None:
    """The page of a group: what its runs share, then the runs.

    Args:
        plans: of the runs, whose `memory` is that of the group.
        names: of the runs, short.
        shared_pass: FLOPs per token of the pass that serves all of them.
    """
    first = plans[0]
    if len(plans) == 1:
        first.print(console)
        return
    alone = sum(plan.flops_per_token["actual"] for plan in plans)
    done = shared_pass + sum(plan.flops_per_token["actual"] - plan.pass_per_token for plan in plans)
    first.print_shared(
        console,
        ("trained", f"{len(plans)} runs side by side on one pass over the backbone"),
        (
            "FLOPs per token",
            f"{done:.3g} done for all, of which {shared_pass:.3g} are the pass; one after the other {alone:.3g}",
        ),
    )
    table = Table("run", "method", "trained", "learning rate", "steps", box=None, padding=(0, 2))
    for name, plan in zip(names, plans, strict=True):
        steps = f"{plan.steps:,}" if plan.steps is not None else ""
        table.add_row(name, plan.method, f"{plan.trainable_parameters:,}", f"{plan.learning_rate:g}", steps)
    show(table, console)
    console.print()
