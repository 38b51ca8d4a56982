"""LoRA on the last k layers: what lies below is only read, as a ladder reads, and can be cached like taps."""

from ladder_cli.config.methods import SuffixMethodConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.base import Cost
from ladder_cli.methods.qlora import QLoRAMethod
from ladder_cli.trunk.base import Trunk, TrunkCost


class SuffixMethod(QLoRAMethod):
    """Gradients pass through the last layers alone."""

    config: SuffixMethodConfig

    def _last_layers(self, layers: int) -> int:
        k = self.config.layers if self.config.layers is not None else half(layers)
        if k > layers:
            raise UserError(f"method.layers={k}, but the backbone has {layers} layers: give at most that many.")
        return k

    def picture(self, trunk: Trunk) -> list[str]:
        """What is read, and what learns."""
        layers = len(trunk.parts.layers)
        read = layers - self._last_layers(layers)
        below = [f"layers 1-{read}: read only, no gradient"] if read else []
        return [*below, f"layers {read + 1}-{layers}: LoRA of rank {self.config.rank}"]

    def cost(self, trunk: TrunkCost, reference: bool = False) -> Cost:
        """As `cost_of_suffix` says."""
        k = self._last_layers(trunk.layers)
        return cost_of_suffix(trunk, k, self.config.gradient_checkpointing, reference)


def half(layers: int) -> int:
    """Of L layers, those that learn where nobody says how many."""
    return max(1, layers // 2)


def cost_of_suffix(trunk: TrunkCost, k: int, recomputed: bool, reference: bool) -> Cost:
    """With share = k/L: 2N + 2 share N + 6n, since gradients pass through the last k layers alone; 2 share N more where
    those are recomputed; less what of the pass below them is cached. The paper does not know the method; by its way of
    counting a backward pass twice the forward one it is 2N + 4 share N + 6n.

    Args:
        trunk: of a pass over the layers below.
        k: layers that learn.
        recomputed: in the backward pass.
        reference: it takes the last k layers and the head once more.
    """
    share = k / trunk.layers
    again = 2 * (share * trunk.parameters + trunk.head) if reference else 0.0
    actual = trunk.flops_per_token + (6 if recomputed else 4) * share * trunk.parameters
    return Cost(paper=(2 + 4 * share) * trunk.parameters + again, actual=actual + again)
