"""What several runs take that are trained side by side on one pass: memory, FLOPs, and the page that says so."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from ladder_cli.console import show
from ladder_cli.plan.allocation import TAPS
from ladder_cli.plan.memory import WEIGHTS, MemoryPrediction, Step
from ladder_cli.plan.page import Plan
from ladder_cli.plan.preflight import Preflight
from ladder_cli.trunk.base import TapRequest


@dataclass(frozen=True)
class Width:
    """What a tap of one token is made of.

    Attributes:
        layers: L.
        token_bytes: of one layer's output for one token.
    """

    layers: int
    token_bytes: int

    def taps(self, request: TapRequest, step: Step) -> int:
        """Bytes of what a pass over a micro-batch hands out, the first layer's input included."""
        rungs = {0, *request.layers, *([self.layers] if request.final else [])}
        return len(rungs) * self.token_bytes * step.rows * step.tokens


def side_by_side(memories: Sequence[Preflight], taps: int) -> Preflight:
    """The peak of a step of several runs: the weights once, what stays of every run, the taps that all of them read,
    and what passes of the run that takes most for a moment, since one computes after the other.

    Args:
        memories: of each run by itself; one alone is given back as it is.
        taps: bytes of what the pass hands out for all of them.
    """
    if len(memories) == 1:
        return memories[0]
    predictions = [memory.prediction for memory in memories]
    weights = max(prediction.parts.get(WEIGHTS, 0) for prediction in predictions)
    parts = Counter({WEIGHTS: weights, TAPS: taps})
    for prediction in predictions:
        parts.update(prediction.stays)
    parts.update(max((prediction.passes for prediction in predictions), key=lambda passes: sum(passes.values())))
    host = max(prediction.host for prediction in predictions)
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
