"""A small picture of which backbone layer feeds which side layer, for the terminal."""

from ladder_cli.nn.connections import Connections

# Runs of more layers than this with nothing to see are drawn as one line.
_SHORT_RUN = 3


def draw(connections: Connections, reads_final: bool = True) -> list[str]:
    """Lines to print, in the order of computation: the backbone's layers left, the side network's right.

    Args:
        connections: which layer feeds which.
        reads_final: whether the backbone's last state joins at the end; if not, its layers after the last tap idle.
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
    if reads_final:
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
    """Backbone layers that feed nothing."""
    if last - first + 1 > _SHORT_RUN:
        return [f"{f'{first}-{last}':>6} │"]
    return [f"{layer:>6} │" for layer in range(first, last + 1)]
