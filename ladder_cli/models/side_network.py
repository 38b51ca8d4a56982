"""The side network: narrow decoder layers of the backbone's own class, fed by taps.

    s_0 = P_0(h_0)
    s_j = Block_j(s_{j-1} + P_j(h_i))   where backbone layer i feeds side layer j
    s_j = Block_j(s_{j-1})              where nothing does
    output = U(s_l), with U zero at the start

(paper section 3 with the unweighted `sum` gate)
"""

import copy
import math
from typing import Any

from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig

from ladder_cli.errors import UserError
from ladder_cli.models.backbone import Anatomy
from ladder_cli.models.connections import Connections

# Attention kernels want head sizes that are multiples of this; narrower heads also carry too little position.
_HEAD_SIZE_STEP = 8


def side_config(
    backbone: PreTrainedConfig, connections: Connections, reduction: int, layer_types: list[str]
) -> PreTrainedConfig:
    """The backbone's config at width d / r, for building its own layer class.

    The head count is kept where the side width allows it (LST), else it is the largest that divides it.

    Args:
        layer_types: attention type of the backbone's and then the side's layers, L + l in all: side layer j has
            index L + j - 1, in the attention module as in the shared cache.

    Raises:
        UserError: if r does not divide the width, or leaves too little of it for one attention head.
    """
    width, rest = divmod(backbone.hidden_size, reduction)
    if rest or width % _HEAD_SIZE_STEP:
        good = [r for r in range(1, 65) if backbone.hidden_size % (r * _HEAD_SIZE_STEP) == 0]
        raise UserError(
            f"method.reduction={reduction} does not fit a backbone of width {backbone.hidden_size}: the side width "
            f"must be a multiple of {_HEAD_SIZE_STEP}. Choose from: {', '.join(map(str, good))}."
        )
    config = copy.deepcopy(backbone)
    config.hidden_size = width
    config.intermediate_size = max(_HEAD_SIZE_STEP, backbone.intermediate_size // reduction)
    config.num_attention_heads = _largest_divisor(width // _HEAD_SIZE_STEP, backbone.num_attention_heads)
    config.num_key_value_heads = _largest_divisor(
        config.num_attention_heads, getattr(backbone, "num_key_value_heads", None) or backbone.num_attention_heads
    )
    config.head_dim = width // config.num_attention_heads
    config.num_hidden_layers = connections.backbone_layers + connections.side_layers
    config.layer_types = layer_types
    config._attn_implementation = backbone._attn_implementation
    return config


def _largest_divisor(number: int, at_most: int) -> int:
    return max(divisor for divisor in range(1, min(number, at_most) + 1) if number % divisor == 0)


class SideNetwork(nn.Module):
    """The trained part of a ladder. Parameters are float32; the caller chooses the compute type by autocast."""

    def __init__(self, anatomy: Anatomy, config: PreTrainedConfig, width: int, connections: Connections) -> None:
        """`config` is the side's (`side_config`), `width` the backbone's d."""
        super().__init__()
        self.connections = connections
        side_width = config.hidden_size
        layer_class = type(anatomy.layers[0])
        first_index = connections.backbone_layers
        self.embedding_projection = nn.Linear(width, side_width, bias=False)
        self.projections = nn.ModuleDict(
            {str(j): nn.Linear(width, side_width, bias=False) for _, j in connections.pairs}
        )
        self.layers = nn.ModuleList(
            layer_class(config, layer_idx=first_index + j) for j in range(connections.side_layers)
        )
        self.rotary = type(anatomy.rotary)(config=config) if anatomy.rotary is not None else None
        self.up = nn.Linear(side_width, width, bias=False)
        self.layer_types: list[str] = config.layer_types[first_index:]
        self.initialise_uniform()

    def initialise_uniform(self) -> None:
        """Weights uniform in +-1/sqrt(fan in), biases zero, norms one, U zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                nn.init.uniform_(module.weight, -bound, bound)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.up.weight)

    def forward(
        self,
        rungs: dict[int, Tensor],
        masks: dict[str, Tensor | None],
        position_ids: Tensor,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """What the side network adds to the last hidden state.

        Args:
            rungs: backbone layer -> `[batch, tokens, d]`, with 0 the embeddings.
            masks: attention mask by layer type, as Transformers makes them.
            position_ids: `[batch, tokens]`.
            past_key_values: the cache shared with the backbone; side layer j lies at index L + j - 1.

        Returns:
            `[batch, tokens, d]`.
        """
        state = self.embedding_projection(rungs[0])
        positions = self.rotary(state, position_ids) if self.rotary is not None else None
        for j, layer in enumerate(self.layers, start=1):
            source = self.connections.source_of(j)
            if source is not None:
                state = state + self.projections[str(j)](rungs[source])
            output = layer(
                state,
                attention_mask=masks[self.layer_types[j - 1]],
                position_ids=position_ids,
                past_key_values=past_key_values,
                position_embeddings=positions,
                **kwargs,
            )
            state = output[0] if isinstance(output, tuple) else output
        return self.up(state)
