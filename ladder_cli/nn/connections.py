"""Which backbone layer feeds which side layer (paper section 3): as explicit data, and drawn for the terminal.

Layers count from 1 on both sides, as in the paper; backbone "layer 0" is the embedding output and always feeds the
start of the side network, so it never appears here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ladder_cli.config.choices import Pattern, parse_choice
from ladder_cli.errors import UserError

# `draw` shows longer runs of layers that feed nothing as one line.
_SHORT_RUN = 3


@dataclass(frozen=True)
class Connections:
    """A validated set of pairs (backbone layer i -> side layer j), in ascending order of j.

    Attributes:
        backbone_layers: L.
        side_layers: l.
        pairs: of numbers from 1.
        suffix_layers: k, of the backbone's last layers, below which the side network joins the backbone.

    Raises:
        UserError: if a layer is out of range, a side layer is fed twice, the taps run backwards, or one lies above the
            place where the side network joins.
    """

    backbone_layers: int
    side_layers: int
    pairs: tuple[tuple[int, int], ...]
    suffix_layers: int = 0

    def __post_init__(self) -> None:
        shown = ", ".join(f"{i}->{j}" for i, j in self.pairs)
        where = f"in the map {shown} (backbone has {self.backbone_layers} layers, side network {self.side_layers})"
        if not 0 <= self.suffix_layers < self.backbone_layers:
            raise UserError(
                f"method.suffix_layers={self.suffix_layers} leaves no layer to read of a backbone of "
                f"{self.backbone_layers}: give at most {self.backbone_layers - 1}, or method=suffix, which has no side "
                "network."
            )
        if not self.pairs:
            raise UserError("method.connections is empty: a side network without taps never sees the backbone.")
        for i, j in self.pairs:
            if not 1 <= i <= self.backbone_layers:
                raise UserError(f"method.connections: there is no backbone layer {i} {where}.")
            if i > self.joins_at:
                raise UserError(
                    f"method.connections: backbone layer {i} is above the side network's way back into the backbone, "
                    f"which is behind layer {self.joins_at} (method.suffix_layers={self.suffix_layers}) {where}: tap "
                    f"layers up to {self.joins_at}."
                )
            if not 1 <= j <= self.side_layers:
                raise UserError(f"method.connections: there is no side layer {j} {where}; method.layers sets how many.")
        taps, fed = zip(*self.pairs, strict=True)
        if len(set(fed)) < len(fed):
            raise UserError(f"method.connections: a side layer is fed twice {where}.")
        if list(fed) != sorted(fed) or list(taps) != sorted(taps):
            raise UserError(
                f"method.connections: taps run backwards {where}; a backbone is read once, in one direction, so "
                "both numbers of the pairs must rise."
            )

    @property
    def joins_at(self) -> int:
        """Return the backbone layer behind which the side network joins the backbone."""
        return self.backbone_layers - self.suffix_layers

    @property
    def taps(self) -> tuple[int, ...]:
        """Return the tapped backbone layers, each once, ascending."""
        return tuple(sorted({i for i, _ in self.pairs}))

    def source_of(self, side_layer: int) -> int | None:
        """Return the backbone layer that feeds `side_layer`, or None."""
        return next((i for i, j in self.pairs if j == side_layer), None)


def connect(
    backbone_layers: int,
    pattern: str | list[list[int]],
    layers: int | None = None,
    delta: int | None = None,
    suffix_layers: int = 0,
) -> Connections:
    """Build the connections of a named pattern, or check an explicit list of pairs.

    * `aligned`: i -> i for all layers (LST, QST, the paper's Ladder).
    * `first`: i -> i for the first `layers` (Ladder@k).
    * `last`: the last `delta` backbone layers feed the first `delta` of `layers` side layers (xLadder).
    * `branch`: the layer below the last `layers` feeds side layer 1 and nothing feeds the rest, so that the side
      network runs beside the backbone's last layers.
    * `even`: `layers` taps spread evenly over the backbone, the last one on its last layer.

    Args:
        backbone_layers: L.
        pattern: one of the names above, or pairs `[backbone layer, side layer]`.
        layers: l, the side layers; None takes L (`branch`: a third of L), or for a list the largest side layer in it.
        delta: connected layers of `last`; None takes half of the side layers, at most L.
        suffix_layers: k; a pattern is laid over the L - k layers below them, as if there were no others.

    Raises:
        UserError: if there is no such pattern, or it cannot be laid over this backbone.
    """
    if not isinstance(pattern, str):
        pairs = tuple((int(i), int(j)) for i, j in pattern)
        return Connections(backbone_layers, layers or max((j for _, j in pairs), default=1), pairs, suffix_layers)
    below = backbone_layers - suffix_layers
    if below < 1:
        return Connections(backbone_layers, layers or 1, ((1, 1),), suffix_layers)  # which says so
    laid = _PATTERNS[parse_choice("method.connections", pattern, Pattern)](below, layers, delta)
    return Connections(backbone_layers, laid.side_layers, laid.pairs, suffix_layers)


def _branch(backbone_layers: int, layers: int | None, delta: int | None) -> Connections:
    side_layers = layers or max(1, backbone_layers // 3)
    if side_layers >= backbone_layers:
        raise UserError(
            f"method.connections=branch leaves no backbone layer to branch off from: method.layers={side_layers} "
            f"must be below the backbone's {backbone_layers}."
        )
    return Connections(backbone_layers, side_layers, ((backbone_layers - side_layers, 1),))


def _aligned(backbone_layers: int, layers: int | None, delta: int | None) -> Connections:
    side_layers = layers or backbone_layers
    if side_layers != backbone_layers:
        raise UserError(
            f"method.connections=aligned needs as many side layers as layers can be tapped ({backbone_layers}), not "
            f"method.layers={layers}: use connections=first or even for fewer."
        )
    return _in_order(backbone_layers, side_layers, range(1, side_layers + 1))


def _first(backbone_layers: int, layers: int | None, delta: int | None) -> Connections:
    side_layers = layers or backbone_layers
    return _in_order(backbone_layers, side_layers, range(1, side_layers + 1))


def _last(backbone_layers: int, layers: int | None, delta: int | None) -> Connections:
    side_layers = layers or backbone_layers
    connected = delta or min(max(side_layers // 2, 1), backbone_layers)
    return _in_order(backbone_layers, side_layers, range(backbone_layers - connected + 1, backbone_layers + 1))


def _even(backbone_layers: int, layers: int | None, delta: int | None) -> Connections:
    side_layers = layers or backbone_layers
    sources = [max(1, round(j * backbone_layers / side_layers)) for j in range(1, side_layers + 1)]
    return _in_order(backbone_layers, side_layers, sources)


def _in_order(backbone_layers: int, side_layers: int, sources: Sequence[int]) -> Connections:
    """The first source feeds side layer 1, the next one side layer 2, and so on."""
    return Connections(backbone_layers, side_layers, tuple((i, j) for j, i in enumerate(sources, start=1)))


_PATTERNS: dict[Pattern, Callable[[int, int | None, int | None], Connections]] = {
    Pattern.ALIGNED: _aligned,
    Pattern.FIRST: _first,
    Pattern.LAST: _last,
    Pattern.EVEN: _even,
    Pattern.BRANCH: _branch,
}


def copied_layers(connections: Connections) -> list[int]:
    """Return for each side layer the backbone layer that it copies (`init=cloned`).

    That is the layer after its tap; without a tap, the layer after the last copy.

    Raises:
        UserError: if the backbone has no such layer.
    """
    layers, layer = [], 0
    for j in range(1, connections.side_layers + 1):
        tap = connections.source_of(j)
        layer = (tap if tap is not None else layer) + 1
        if layer > connections.backbone_layers:
            raise UserError(
                f"method.init=cloned: side layer {j} would copy backbone layer {layer}, and there are "
                f"{connections.backbone_layers}; use method.connections=branch."
            )
        layers.append(layer)
    return layers


def draw(connections: Connections, reads_final: bool = True) -> list[str]:
    """Draw the connections as lines of text, in the order of computation: backbone left, side network right.

    Args:
        connections: which layer feeds which.
        reads_final: whether the backbone's last state is read; if not, its layers after the last tap are idle.
    """
    lines = ["backbone        side network", _row("h0", "s0", fed=True)]
    sources = {j: i for i, j in connections.pairs}
    backbone_layer = 0
    for j in range(1, connections.side_layers + 1):
        source = sources.get(j)
        if source is not None:
            lines += _alone(backbone_layer + 1, source - 1)
            backbone_layer = max(backbone_layer, source)
        lines.append(_row(str(source) if source is not None else "", str(j), fed=source is not None))
    if connections.suffix_layers:
        lines += _alone(backbone_layer + 1, connections.joins_at)
        lines.append(f"{connections.joins_at:>6} ●◀──────● U(s)")
        lines.append(f"{f'{connections.joins_at + 1}-{connections.backbone_layers}':>6} │ LoRA      -> head")
    elif reads_final:
        lines += _alone(backbone_layer + 1, connections.backbone_layers)
        lines.append(f"{'h_L':>6} ●───────● U(s)  -> head")
    else:
        lines.append(f"{'':>16} s     -> head")
    return lines


def _row(left: str, right: str, fed: bool) -> str:
    if fed:
        return f"{left:>6} ●───────▶ {right}"
    return f"{left:>6} {'│' if left else ' '}         {right}"


def _alone(first: int, last: int) -> list[str]:
    """Draw backbone layers that feed nothing."""
    if last - first + 1 > _SHORT_RUN:
        return [f"{f'{first}-{last}':>6} │"]
    return [f"{layer:>6} │" for layer in range(first, last + 1)]
