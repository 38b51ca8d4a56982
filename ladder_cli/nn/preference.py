"""Learning from preferences: of two answers to a prompt, the one that was preferred shall become the likelier one.

The bare backbone is the reference. Its state is of the same pass (`Hidden.reference`), so that nothing is loaded,
passed or kept a second time for it.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ladder_cli.config.choices import PreferenceLoss
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.nn.loss import DEFAULT_CHUNK, counted_positions, token_log_probabilities
from ladder_cli.trunk.base import Batch, Hidden, Summed


class Preference:
    """Direct preference optimisation (Rafailov et al., 2023), or IPO (Azar et al., 2023), over pairs of rows.

    Row 2k of a batch is the preferred answer of pair k with its prompt, row 2k + 1 the other one. With the log-ratio r
    of an answer, the sum over its counted tokens of log p(token) - log p_reference(token), and d = r of the preferred
    one - r of the other:

        sigmoid   -(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d)    e: label_smoothing
        ipo       (d - 1 / (2 beta))^2, where each r is divided by its tokens, as the authors do (so TRL)

    What it counts are pairs. It tells the means over them of the implicit rewards beta r, their difference, and in how
    many pairs that is positive.
    """

    columns: tuple[str, ...] = ("labels",)
    refers = True
    measures: tuple[str, ...] = ("reward_margin", "reward_accuracy", "reward_chosen", "reward_rejected")

    def __init__(self, config: ObjectiveConfig, chunk: int = DEFAULT_CHUNK) -> None:
        """`chunk`: counted positions whose logits exist at the same time."""
        self._config, self._chunk = config, chunk

    def count(self, batches: Iterable[Batch]) -> int:
        """The pairs of these batches; rows that only fill up are none."""
        return sum(int(_present(_counted(batch)).sum()) for batch in batches)

    def __call__(self, hidden: Hidden, batch: Batch, divisor: Tensor | int | None = None) -> Summed:
        """The loss of a batch.

        Args:
            hidden: with the reference.
            batch: its `labels` are `[2 x pairs, tokens]`, unshifted, -100 where a token does not count.
            divisor: of `total` and `measured`, in place of 1.
        """
        counted = _counted(batch)
        assert batch.labels is not None
        targets = batch.labels[:, 1:][counted]
        if hidden.reference is None:
            raise ValueError("the reference is not there: attach the method with reference=True")
        with torch.no_grad():
            kept = token_log_probabilities(hidden.reference[:, :-1][counted], targets, hidden.readout, self._chunk)
        learned = token_log_probabilities(hidden.state[:, :-1][counted], targets, hidden.readout, self._chunk)
        # Token by token first: of long answers the sums are large, and their difference small.
        ratios = torch.zeros(counted.shape, dtype=learned.dtype, device=learned.device)
        ratios = ratios.masked_scatter(counted, learned - kept).sum(1)
        present = _present(counted)
        losses = LOSSES[self._config.loss](ratios, counted.sum(1), self._config)
        total = torch.where(present, losses, 0.0).sum()
        measured = _measured(ratios.detach() * self._config.beta)
        if divisor is not None:
            total, measured = total / divisor, measured / divisor
        return Summed(total, present.sum(), measured)


def _sigmoid(ratios: Tensor, lengths: Tensor, config: ObjectiveConfig) -> Tensor:
    margins = config.beta * (ratios[::2] - ratios[1::2])
    smoothed = config.label_smoothing
    if smoothed == 0:
        return -logsigmoid(margins)
    return -(1 - smoothed) * logsigmoid(margins) - smoothed * logsigmoid(-margins)


def _ipo(ratios: Tensor, lengths: Tensor, config: ObjectiveConfig) -> Tensor:
    means = ratios / lengths.clamp(min=1)
    return (means[::2] - means[1::2] - 1 / (2 * config.beta)).square()


# (log-ratio of each row, counted tokens of each row, settings) -> loss of each pair.
LOSSES: dict[PreferenceLoss, Callable[[Tensor, Tensor, ObjectiveConfig], Tensor]] = {
    PreferenceLoss.SIGMOID: _sigmoid,
    PreferenceLoss.IPO: _ipo,
}


def _counted(batch: Batch) -> Tensor:
    if batch.labels is None or len(batch.labels) % 2:
        raise ValueError("pairs need labels, and two rows each")
    return counted_positions(batch.labels)


def _present(counted: Tensor) -> Tensor:
    """`[pairs]`: there is something to learn of both rows."""
    found = counted.any(1)
    return found[::2] & found[1::2]


def _measured(rewards: Tensor) -> Tensor:
    """The sums over the pairs, by `Preference.measures`; rows that only fill up have no reward."""
    chosen, rejected = rewards[::2], rewards[1::2]
    return torch.stack([(chosen - rejected).sum(), (chosen > rejected).sum().to(rewards), chosen.sum(), rejected.sum()])
