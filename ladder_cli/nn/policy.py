"""Learning from rewards: of a model's own completions of a prompt, the better ones shall become likelier.

The bare backbone is the reference, and its state is of the same pass (`Hidden.reference`), as of preferences.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from ladder_cli.config.choices import EngineKind
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.nn.loss import DEFAULT_CHUNK, counted_positions, token_log_probabilities
from ladder_cli.trunk.base import Batch, Hidden, Summed

SAMPLER_GAP = "sampler_gap"


class GroupRelative:
    """Group relative policy optimisation (Shao et al., 2024), over rows that are completions with an advantage each.

    With log-probabilities p of a token under what is trained, q under the policy that sampled it, and b under the bare
    backbone, each at the temperature of sampling, and r = exp(p - q), a token of a completion with advantage A costs

        -min(r A, clamp(r, 1 - clip, 1 + clip_high) A) + beta (exp(b - p) - (b - p) - 1)

    The loss is the mean over all counted tokens of a step (DAPO, Yu et al., 2025): a token weighs the same in a short
    completion and a long one. The second term is an estimate of the divergence from the backbone that is never
    negative (k3 of Schulman, 2020).

    q is p as of the first pass over a row. `count` begins a step, whose rows are then passed once or several times.

    Where another engine has sampled, by the same weights but with roundings of its own, it tells its log-probability v
    of each token (`Batch.sampled`). The first term then has the weight min(exp(q - v), sampler_cap): truncated
    importance sampling (Yao et al., 2025).

    What it counts are tokens. It tells the means over them of the divergence, of which the clamp took the gradient,
    and, of another engine, of |q - v|.
    """

    columns: tuple[str, ...] = ("labels", "advantages")
    refers = True
    measures: tuple[str, ...] = ("kl", "clipped")

    def __init__(self, config: ObjectiveConfig, chunk: int = DEFAULT_CHUNK) -> None:
        """`chunk`: counted positions whose logits exist at the same time."""
        self._config, self._chunk = config, chunk
        if config.engine is not EngineKind.TRANSFORMERS:
            self.measures = (*self.measures, SAMPLER_GAP)
        self._sampled: dict[tuple[int, ...], Tensor] = {}

    def count(self, batches: Iterable[Batch]) -> int:
        """The counted tokens of a step's batches; what was remembered of the step before is forgotten."""
        self._sampled.clear()
        return sum(int(_counted(batch).sum()) for batch in batches)

    def __call__(self, hidden: Hidden, batch: Batch, divisor: Tensor | int | None = None) -> Summed:
        """The loss of a batch.

        Args:
            hidden: with the reference.
            batch: its `labels` are `[batch, tokens]`, unshifted, -100 where a token does not count; its `advantages`
                `[batch, 1]`. Its `row_ids` name it in a later pass of the same step.
            divisor: of `total` and `measured`, in place of 1.
        """
        counted = _counted(batch)
        if batch.labels is None or batch.advantages is None:
            raise ValueError("completions need labels and advantages")
        if hidden.reference is None:
            raise ValueError("the reference is not there: attach the method with reference=True")
        targets, readout = batch.labels[:, 1:][counted], tempered(hidden.readout, self._config.temperature)
        with torch.no_grad():
            backbone = token_log_probabilities(hidden.reference[:, :-1][counted], targets, readout, self._chunk)
        learned = token_log_probabilities(hidden.state[:, :-1][counted], targets, readout, self._chunk)
        advantages = batch.advantages.to(learned).expand(counted.shape)[counted]
        before = self._as_sampled(batch, learned)
        costs, clipped = clipped_costs(learned, before, advantages, self._config)
        divergences = divergence(backbone, learned)
        told = [divergences.detach().sum(), clipped.sum().to(learned)]
        if SAMPLER_GAP in self.measures:
            weights, gap = sampler_weights(before, _told_by_sampler(batch, counted), self._config.sampler_cap)
            costs, told = weights * costs, [*told, gap.sum()]
        total = (costs + self._config.beta * divergences).sum()
        measured = torch.stack(told)
        if divisor is not None:
            total, measured = total / divisor, measured / divisor
        return Summed(total, counted.sum(), measured)

    def _as_sampled(self, batch: Batch, learned: Tensor) -> Tensor:
        """q: what the first pass of the step gave."""
        if self._config.iterations == 1:
            return learned.detach()
        if not batch.row_ids:
            raise ValueError("rows of several updates need row_ids, by which they are known again")
        return self._sampled.setdefault(batch.row_ids, learned.detach())


def clipped_costs(
    learned: Tensor, sampled: Tensor, advantages: Tensor, config: ObjectiveConfig
) -> tuple[Tensor, Tensor]:
    """What each token costs by its advantage.

    Args:
        learned, sampled: log-probabilities, `[n]`.
        advantages: `[n]`.

    Returns:
        The costs, and of which the clamp decides, so that they have no gradient; `[n]` each.
    """
    ratios = (learned - sampled).exp()
    kept = ratios.clamp(1 - config.clip, 1 + config.clip_high)
    free, bound = ratios * advantages, kept * advantages
    return -torch.minimum(free, bound), (bound < free).detach()


def sampler_weights(before: Tensor, sampler: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """What a token counts for, that another engine has drawn.

    Args:
        before: log-probabilities under the policy that sampled, as it computes itself, `[n]`.
        sampler: the same as the engine computed them.
        cap: of the weights.

    Returns:
        The weights, and how far the two are apart; `[n]` each, without gradient.
    """
    apart = (before - sampler.to(before)).detach()
    return apart.exp().clamp(max=cap), apart.abs()


def divergence(backbone: Tensor, learned: Tensor) -> Tensor:
    """k3: an estimate of the divergence of `learned` from `backbone` for each token, `[n]`, of log-probabilities."""
    difference = backbone - learned
    # exp(x) - 1 - x, without what cancels where x is small.
    return torch.expm1(difference) - difference


def advantages_of(rewards: Sequence[float], divide_by_std: bool) -> list[float]:
    """How much better than its group each completion is; all 0 where all are alike.

    Args:
        rewards: of one group.
        divide_by_std: by the group's deviation (of the sample: n - 1), as Shao et al. have it. Liu et al. (2025) leave
            it out, since it gives prompts that are nearly always, or nearly never, answered rightly more weight.
    """
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    values = torch.tensor(rewards, dtype=torch.float64)
    centred = values - values.mean()
    return (centred / values.std() if divide_by_std else centred).tolist()


def _told_by_sampler(batch: Batch, counted: Tensor) -> Tensor:
    if batch.sampled is None:
        raise ValueError("completions of another engine need its log-probabilities")
    return batch.sampled[:, 1:][counted]


def _counted(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise ValueError("a batch without labels has no loss")
    return counted_positions(batch.labels)


def tempered(readout: Callable[[Tensor], Tensor], temperature: float) -> Callable[[Tensor], Tensor]:
    """Logits of the distribution that is sampled from."""
    return readout if temperature == 1 else partial(_divided, readout, temperature)


def _divided(readout: Callable[[Tensor], Tensor], temperature: float, rows: Tensor) -> Tensor:
    return readout(rows) / temperature
