"""What every method must do.

A method attaches its trained part to a trunk, loads it, and says what it costs. Training knows nothing else of it, and
evaluation needs only `registry.load_adapter`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from ladder_cli.config.methods import MethodConfig
from ladder_cli.nn.loss import DEFAULT_CHUNK
from ladder_cli.trunk.base import Batch, TrainableModule, Trunk, TrunkCost


@dataclass(frozen=True)
class Cost:
    """FLOPs per token of training.

    Attributes:
        paper: what passes through the backbone, as the paper counts it (section 4.2).
        actual: the same as really done.
        per_trained: for each trained parameter: forward, its own gradient, and that of its input.
    """

    paper: float
    actual: float
    per_trained: int = 6

    def flops_per_token(self, trained_parameters: int) -> dict[str, int]:
        """FLOPs per training token, with n trained parameters.

        Returns:
            `paper`: 6(N + n) for QLoRA, 2N + 6n for a ladder (section 4.2). `actual`: QLoRA's frozen weights need no
            weight gradient, so 4N + 6n, or 6N + 6n with gradient checkpointing; a suffix of k of L layers takes
            2N + 2(k/L)N + 6n; a ladder 2N + 6n, less what its pass leaves out. Attention's own products, which grow
            with the context, are in neither.
        """
        own = self.per_trained * trained_parameters
        return {"paper": round(self.paper) + own, "actual": round(self.actual) + own}


class Method(Protocol):
    """One way of fine-tuning."""

    @property
    def config(self) -> MethodConfig:
        """Its settings."""
        ...

    def attach(
        self,
        trunk: Trunk,
        sample: Iterable[Batch] = (),
        loss_chunk: int = DEFAULT_CHUNK,
        proven: bool = True,
        reference: bool = False,
    ) -> TrainableModule:
        """A model to train, where the trunk computes; the backbone belongs to it from now on.

        It gives `model(input_ids, attention_mask, labels, num_items_in_batch).loss` as well as `hidden`, generates,
        and writes its adapter alone on `save_pretrained`.

        Args:
            trunk: frozen.
            sample: training data, one row a batch, for methods whose first weights depend on it.
            loss_chunk: counted tokens whose logits exist at the same time where the model computes its own loss.
            proven: hold the model against `proof.prove`.
            reference: `hidden` hands out the bare backbone's state too, for an objective that reads it.

        Raises:
            UserError: if method and architecture do not go together, naming the architecture.
        """
        ...

    def shape(self, trunk: Trunk, reference: bool = False) -> TrainableModule:
        """What `attach` gives, with other first weights: no weight of the backbone is read, and nothing is proven.

        Args:
            trunk, reference: as of `attach`.

        Raises:
            UserError: if method and architecture do not go together.
        """
        ...

    def layers_needed(self, layers: int) -> int:
        """Of the backbone's L layers those whose weights it runs or reads itself, counted from the last; the others
        need not be loaded where their taps lie in a cache.
        """
        ...

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Overwrite the trained part of `model` by a checkpoint's."""
        ...

    def picture(self, trunk: Trunk) -> list[str]:
        """What `attach` would build, drawn in lines for a terminal; empty if there is no shape to see."""
        ...

    def cost(self, trunk: TrunkCost, reference: bool = False) -> Cost:
        """What training takes.

        Args:
            trunk: of a pass over the backbone, as far as the model's request asks.
            reference: the bare backbone's state, and what its head makes of it, are computed too.
        """
        ...

    def cheaper(self) -> Iterator[tuple[str, "Method"]]:
        """The same method in less memory, cheapest first: the override, and the method that it and those before it
        lead to.
        """
        ...
