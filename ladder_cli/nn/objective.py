"""What is minimised: losses over a micro-batch as sum and count."""

from collections.abc import Callable, Iterable

from torch import Tensor

from ladder_cli.config.choices import ObjectiveKind
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.nn.loss import DEFAULT_CHUNK, completion_cross_entropy, counted_positions
from ladder_cli.nn.policy import GroupRelative
from ladder_cli.nn.preference import Preference
from ladder_cli.trunk.base import Batch, Hidden, Objective, Summed


class NextToken:
    """Cross-entropy of the next token, over the tokens whose label counts (supervised fine-tuning).

    The logits of at most `chunk` positions exist at the same time, forward and backward.
    """

    columns: tuple[str, ...] = ("labels",)
    refers = False
    measures: tuple[str, ...] = ()

    def __init__(self, chunk: int = DEFAULT_CHUNK) -> None:
        """`chunk`: counted positions whose logits exist at the same time."""
        self._chunk = chunk

    def count(self, batches: Iterable[Batch]) -> int:
        """The counted tokens of these batches."""
        return sum(int(counted_positions(_labels(batch)).sum()) for batch in batches)

    def __call__(self, hidden: Hidden, batch: Batch, divisor: Tensor | int | None = None) -> Summed:
        """The loss of a batch.

        Args:
            hidden: its `state` is `[batch, tokens, d]`.
            batch: its `labels` are `[batch, tokens]`, unshifted, -100 where a token does not count.
            divisor: of `total`, in place of 1.
        """
        labels = _labels(batch)
        total = completion_cross_entropy(
            hidden.state, hidden.readout, labels, 1 if divisor is None else divisor, self._chunk
        )
        return Summed(total, counted_positions(labels).sum())


def _labels(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise ValueError("a batch without labels has no loss")
    return batch.labels


# Each is made with its settings and `loss_chunk`, the positions whose logits exist at the same time.
OBJECTIVES: dict[ObjectiveKind, Callable[[ObjectiveConfig, int], Objective]] = {
    ObjectiveKind.SFT: lambda config, chunk: NextToken(chunk),
    ObjectiveKind.DPO: Preference,
    ObjectiveKind.GRPO: GroupRelative,
}


def objective_for(config: ObjectiveConfig, loss_chunk: int = DEFAULT_CHUNK) -> Objective:
    """The objective of a config."""
    return OBJECTIVES[config.name](config, loss_chunk)
