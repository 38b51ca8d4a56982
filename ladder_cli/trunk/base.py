"""The frozen backbone as everything above sees it: a batch goes in, taps come out, and no gradient ever enters."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

BLANK = -1  # the row id of a row that only fills a batch up; none of its tokens count


@dataclass(frozen=True)
class Batch:
    """One micro-batch of rows.

    Attributes:
        input_ids: `[batch, tokens]`.
        labels: `[batch, tokens]`, unshifted, -100 where a token does not count; None where there is nothing to learn.
        attention_mask: `[batch, tokens]`, 0 is padding; None with `position_ids`, or where nothing is padded.
        position_ids: `[batch, tokens]`, which begin again at 0 with each packed example; None: one example a row.
        row_ids: the number of each row within its split, not unique over splits; `BLANK` for one that only fills up;
            empty outside of training and validation.
        advantages: `[batch, 1]`, of rows that are rewarded: how much better each is than others; else None.
        sampled: `[batch, tokens]`, of completions whose engine tells it: the log-probability with which each counted
            token was drawn, 0 elsewhere; else None.
    """

    input_ids: Tensor
    labels: Tensor | None = None
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    row_ids: tuple[int, ...] = ()
    advantages: Tensor | None = None
    sampled: Tensor | None = None

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a backbone's own `forward` is given: everything but the labels."""
        names = ("input_ids", "attention_mask", "position_ids")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TapRequest:
    """Which layer outputs of a backbone are read.

    Attributes:
        layers: numbers from 1 to L; 0 is the input of the first layer.
        final: the last layer's output is read too, before the final norm.
    """

    layers: frozenset[int]
    final: bool = True

    def __or__(self, other: "TapRequest") -> "TapRequest":
        """What serves both."""
        return TapRequest(self.layers | other.layers, self.final or other.final)


WHOLE = TapRequest(frozenset(), final=True)  # the whole pass, of which the last state alone is read


@dataclass
class Taps:
    """What a backbone hands out for one batch.

    Attributes:
        rungs: backbone layer -> its output `[batch, tokens, d]`; 0 is the input of the first layer.
        final: output of the last layer, before the final norm, `[batch, tokens, d]`; None if nobody reads it.
        embed: recomputes rung 0, bit for bit, so that the backward pass need not keep it; None where it cannot be.
    """

    rungs: dict[int, Tensor]
    final: Tensor | None
    embed: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class TrunkCost:
    """What a pass over a backbone takes, for a plan to add up.

    Attributes:
        parameters: N, of the whole backbone.
        layers: L.
        resident_bytes: of weights that stay on the computing device.
        moved_bytes: of weights that travel to it in every pass.
        flops_per_token: of one forward pass as far as the request asks.
        head: parameters of the output head.
    """

    parameters: int
    layers: int
    resident_bytes: int
    moved_bytes: int
    flops_per_token: float
    head: int = 0


class Trunk(Protocol):
    """A frozen backbone, wherever its layers are."""

    name: str  # hub repository or folder where it can be found again
    revision: str | None  # on the hub
    identity: str | None  # of the weights, not of a path; None until somebody has hashed them

    @property
    def parts(self) -> Any:
        """Its parts by name (`trunk.parts.Anatomy`)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type that it computes in."""
        ...

    def taps(self, request: TapRequest, batch: Batch, cache: Cache | None = None, /, **more: Any) -> Taps:
        """One pass without gradients, no further than the request asks.

        Args:
            request: which outputs.
            batch: rows; `batch.row_ids` is there for trunks that cache.
            cache: of keys and values, filled by the pass.
            more: further arguments of the backbone's own `forward`, which no batch can say (ready masks,
                `inputs_embeds`, what engines hand on to the layers).
        """
        ...

    def identify(self) -> str:
        """`identity`, hashed if nobody has done so.

        Raises:
            UserError: if the place that it names has no weights to be read.
        """
        ...

    def cost(self, request: TapRequest) -> TrunkCost:
        """What such a pass takes."""
        ...

    def whole(self) -> PreTrainedModel:
        """The backbone as a model, for methods that read its weights or run its layers themselves.

        Raises:
            UserError: where the layers are not all here.
        """
        ...

    def view(self) -> "Trunk":
        """Another trunk over the same weights, into whose layers a method may put its parts while this one stays bare.

        Raises:
            UserError: where the layers are not all here.
        """
        ...

    def hold(self, layers: Iterable[int]) -> None:
        """Keep the weights of these layers where it computes: gradients will pass through them.

        Args:
            layers: counted from 1.
        """
        ...

    def settle(self, model: nn.Module) -> None:
        """Bring everything where it computes, once first weights have been read off the whole backbone.

        Args:
            model: what was attached, with the backbone inside.
        """
        ...


@dataclass(frozen=True)
class Hidden:
    """What a loss reads.

    Attributes:
        state: `[batch, tokens, d]`, what `readout` takes.
        readout: `[n, d]` to logits `[n, vocabulary]`; holds no trained parameter.
        reference: the bare backbone's state, of the same pass, with the same readout; None where it was not run.
    """

    state: Tensor
    readout: Callable[[Tensor], Tensor]
    reference: Tensor | None = None


class Trainable(Protocol):
    """What a method attached to a trunk: a model of which a part is trained."""

    @property
    def request(self) -> TapRequest | None:
        """What it reads; None: gradients pass through the backbone, so that it runs the layers itself."""
        ...

    def hidden(self, batch: Batch, taps: Taps | None = None) -> Hidden:
        """The state before the head.

        Args:
            batch: rows.
            taps: of this batch, at least those of `request`; None lets it ask its own trunk for them.
        """
        ...


class TrainableModule(nn.Module, ABC):
    """A `Trainable` that is a PyTorch module: what methods attach."""

    @property
    @abstractmethod
    def request(self) -> TapRequest | None:
        """See `Trainable`."""

    @abstractmethod
    def hidden(self, batch: Batch, taps: Taps | None = None) -> Hidden:
        """See `Trainable`."""

    @property
    @abstractmethod
    def bare_backbone(self) -> PreTrainedModel:
        """The frozen model under what is trained."""

    @property
    @abstractmethod
    def starts_as_the_backbone(self) -> bool:
        """Whether the logits are the backbone's before anything was learned; a proof then asks for it."""

    @abstractmethod
    def backbone_logits(self, **inputs: Any) -> Tensor:
        """What the backbone gives by itself, `[batch, tokens, vocabulary]`, for inputs of its `forward`."""


@dataclass(frozen=True)
class Summed:
    """A loss over one micro-batch as sum and count, so that any accumulation and any number of ranks divide alike.

    Attributes:
        measured: what else is told of it, `[n]` sums over the same count, by the names of `Objective.measures`; None
            where there is nothing.
    """

    total: Tensor
    count: Tensor
    measured: Tensor | None = None


class Objective(Protocol):
    """What is minimised."""

    columns: tuple[str, ...]  # of a batch that it reads beside the inputs
    refers: bool  # it reads `Hidden.reference`
    measures: tuple[str, ...]  # names of what it tells beside the loss

    def count(self, batches: Iterable[Batch]) -> int:
        """What the sums over these batches are divided by, known before any of them is run."""
        ...

    def __call__(self, hidden: Hidden, batch: Batch, divisor: Tensor | int | None = None) -> Summed:
        """The loss of a batch; `divisor`, where given, has divided `total` and `measured` already."""
        ...
