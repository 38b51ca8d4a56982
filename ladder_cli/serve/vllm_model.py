"""A ladder as a model of vLLM: the backbone is vLLM's own, and side layers are decoder layers numbered after it.

So paged attention, chunked prefill, prefix caching and continuous batching see one model of L + l layers, whose side
layers have another head size. Imported in vLLM's environment, without what training needs.
"""

from collections.abc import Iterable
from typing import Any

import torch
import vllm
from torch import Tensor, nn
from torch.nn.functional import pad
from vllm.compilation.decorators import support_torch_compile
from vllm.config import CompilationMode, VllmConfig
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import (
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.model_loader.weight_utils import default_weight_loader
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.platforms import current_platform

from ladder_cli.config.choices import Block, Combination, Gate, Projection, TapNorm
from ladder_cli.nn.combine import make_combine
from ladder_cli.nn.gates import make_gate
from ladder_cli.nn.projections import DownProjections
from ladder_cli.serve.served import SIDE_PREFIX
from ladder_cli.serve.vllm_plugin import refuse_other_version

_BACKBONES: dict[str, type[nn.Module]] = {
    "llama": LlamaForCausalLM,
    "mistral": MistralForCausalLM,
    "qwen2": Qwen2ForCausalLM,
    "qwen3": Qwen3ForCausalLM,
}
# Head sizes for which every attention kernel of vLLM is built; a narrower head is padded to the next.
_HEAD_SIZES = (32, 64, 96, 128, 256)
_SLIDING = "sliding_attention"
# The dimension of a weight along which the heads lie.
_BY_HEAD = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}
# Weights that vLLM keeps in one matrix: name in the folder -> (name here, part).
_STACKED: dict[str, tuple[str, str | int]] = {
    ".q_proj.": (".qkv_proj.", "q"),
    ".k_proj.": (".qkv_proj.", "k"),
    ".v_proj.": (".qkv_proj.", "v"),
    ".gate_proj.": (".gate_up_proj.", 0),
    ".up_proj.": (".gate_up_proj.", 1),
}


def in_vllm(module: nn.Module, prefix: str) -> nn.Module:
    """Put vLLM's linear layers in place of torch's, which it packs for its own kernels once the weights are there."""
    for name, part in list(module.named_modules()):
        if type(part) is nn.Linear:
            layer = ReplicatedLinear(
                part.in_features,
                part.out_features,
                bias=part.bias is not None,
                return_bias=False,
                prefix=f"{prefix}.{name}",
            )
            module.set_submodule(name, layer)
    return module


def steps_are_dear(vllm_config: VllmConfig) -> bool:
    """Whether every small step is dispatched by itself, so that its call costs more than its work: eager on a CPU."""
    return current_platform.is_cpu() and vllm_config.compilation_config.mode == CompilationMode.NONE


class SideNorm(RMSNorm):
    """vLLM's norm; where steps are dear in one of its own kernels, which it takes on GPUs alone, in place of eight."""

    def __init__(self, width: int, eps: float, at_once: bool) -> None:
        super().__init__(width, eps=eps)
        self.at_once = at_once

    def forward(self, x: Tensor) -> Tensor:
        """`[tokens, d_s]`."""
        if not self.at_once:
            normed: Tensor = super().forward(x)
            return normed
        normed = torch.empty_like(x)
        torch.ops._C.rms_norm(normed, x, self.weight, self.variance_epsilon)
        return normed


class SideAttention(nn.Module):
    """Grouped-query attention of narrow heads, padded with zeros to a head size that the kernels have.

    The zeros stand in the weights, so that every product comes out padded; but where queries and keys are normed over
    the channels of a head, they are put in after that.
    """

    def __init__(self, vllm_config: VllmConfig, index: int, layer_type: str) -> None:
        super().__init__()
        config: Any = vllm_config.model_config.hf_config
        side = config.ladder["side"]
        self.heads, self.kv_heads, self.size = side["heads"], side["kv_heads"], side["head_size"]
        self.padded = next(size for size in _HEAD_SIZES if size >= self.size)
        self.qk_norm = side["qk_norm"]
        self.stored = self.size if self.qk_norm else self.padded
        width = side["hidden_size"]
        prefix = f"model.layers.{index}.self_attn"
        self.qkv_proj = QKVParallelLinear(
            width, self.stored, self.heads, self.kv_heads, bias=side["qkv_bias"], prefix=f"{prefix}.qkv_proj"
        )
        self.o_proj = RowParallelLinear(self.heads * self.stored, width, bias=side["o_bias"], prefix=f"{prefix}.o_proj")
        if self.qk_norm:
            self.q_norm = RMSNorm(self.size, eps=side["rms_norm_eps"])
            self.k_norm = RMSNorm(self.size, eps=side["rms_norm_eps"])
        # Only the channels that were trained are turned.
        rope = side["rope_parameters"] | ({"rope_dim": self.size} if self.stored != self.size else {})
        self.rotary_emb = get_rope(self.stored, max_position=config.max_position_embeddings, rope_parameters=rope)
        self.attn = Attention(
            self.heads,
            self.padded,
            self.size**-0.5,
            num_kv_heads=self.kv_heads,
            cache_config=vllm_config.cache_config,
            per_layer_sliding_window=side["sliding_window"] if layer_type == _SLIDING else None,
            prefix=f"{prefix}.attn",
        )
        # vLLM calls it through torch's dispatcher, so that it can be compiled around.
        self.attn.use_direct_call |= steps_are_dear(vllm_config)

    def forward(self, positions: Tensor, hidden: Tensor) -> Tensor:
        """`[tokens]` and `[tokens, d_s]` to `[tokens, d_s]`."""
        qkv, _ = self.qkv_proj(hidden)
        width, narrow = self.heads * self.stored, self.kv_heads * self.stored
        query, key, value = qkv.split([width, narrow, narrow], dim=-1)
        if self.qk_norm:
            query = self.q_norm(query.reshape(-1, self.heads, self.size)).reshape(-1, width)
            key = self.k_norm(key.reshape(-1, self.kv_heads, self.size)).reshape(-1, narrow)
        query, key = self.rotary_emb(positions, query, key)
        output = self.attn(self._wide(query), self._wide(key), self._wide(value))
        if self.padded != self.stored:
            output = output.view(-1, self.heads, self.padded)[..., : self.size].reshape(-1, width)
        projected: Tensor = self.o_proj(output)[0]
        return projected

    def _wide(self, states: Tensor) -> Tensor:
        """Heads side by side, `[tokens, heads * size]`, each with zeros behind it: no product changes."""
        if self.padded == self.stored:
            return states
        heads = states.reshape(states.shape[0], -1, self.size)
        return pad(heads, (0, self.padded - self.size)).flatten(1)

    def widened(self, name: str, weight: Tensor) -> Tensor:
        """A weight of the folder as it is stored here: zeros behind the channels of every head."""
        *_, projection, kind = name.split(".")
        if self.stored == self.size or projection not in _BY_HEAD or (projection == "o_proj" and kind == "bias"):
            return weight
        heads = weight.unflatten(_BY_HEAD[projection], (-1, self.size))
        behind = (0, self.stored - self.size)
        # Pads are named from the last dimension on.
        return pad(heads, (0, 0) * (heads.ndim - 2 - _BY_HEAD[projection]) + behind).flatten(
            _BY_HEAD[projection], _BY_HEAD[projection] + 1
        )


class SideFeedForward(nn.Module):
    """The gated feed-forward layer of all served backbones."""

    def __init__(self, config: Any, index: int) -> None:
        super().__init__()
        side = config.ladder["side"]
        width, inner, bias = side["hidden_size"], side["intermediate_size"], side["mlp_bias"]
        prefix = f"model.layers.{index}.mlp"
        self.gate_up_proj = MergedColumnParallelLinear(width, [inner] * 2, bias=bias, prefix=f"{prefix}.gate_up_proj")
        self.down_proj = RowParallelLinear(inner, width, bias=bias, prefix=f"{prefix}.down_proj")
        self.act_fn = SiluAndMul()

    def forward(self, hidden: Tensor) -> Tensor:
        """`[tokens, d_s]`."""
        output: Tensor = self.down_proj(self.act_fn(self.gate_up_proj(hidden)[0]))[0]
        return output


class SideLayer(nn.Module):
    """A decoder layer at the side's width, or its attention alone."""

    def __init__(self, vllm_config: VllmConfig, index: int, layer_type: str) -> None:
        super().__init__()
        config: Any = vllm_config.model_config.hf_config
        side, at_once = config.ladder["side"], steps_are_dear(vllm_config)
        width, epsilon = side["hidden_size"], side["rms_norm_eps"]
        self.self_attn = SideAttention(vllm_config, index, layer_type)
        self.input_layernorm = SideNorm(width, epsilon, at_once)
        self.whole = Block(config.ladder["block"]) is Block.FULL
        if self.whole:
            self.post_attention_layernorm = SideNorm(width, epsilon, at_once)
            self.mlp = SideFeedForward(config, index)

    def forward(self, positions: Tensor, state: Tensor) -> Tensor:
        """`[tokens]` and `[tokens, d_s]` to `[tokens, d_s]`."""
        state = state + self.self_attn(positions, self.input_layernorm(state))
        return state + self.mlp(self.post_attention_layernorm(state)) if self.whole else state


class Side(nn.Module):
    """The side network, under the names that it has in the folder."""

    def __init__(self, vllm_config: VllmConfig, final_norm: nn.Module) -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        ladder, width, narrow = config.ladder, config.hidden_size, config.ladder["side"]["hidden_size"]
        self.source = {j: i for i, j in ladder["pairs"]}
        fed, depth = sorted(self.source), config.num_hidden_layers
        self.down = DownProjections(
            Projection(ladder["projection"]),
            width,
            narrow,
            [0, *fed],
            ladder["projection_rank"],
            TapNorm(ladder["tap_norm"]),
        )
        self.gates = nn.ModuleDict({str(j): make_gate(Gate(ladder["gate"]), narrow) for j in fed})
        self.layers = nn.ModuleList(
            SideLayer(vllm_config, depth + number, layer_type)
            for number, layer_type in enumerate(ladder["side"]["layer_types"])
        )
        self.combine = make_combine(Combination(ladder["combine"]), width, narrow, final_norm)
        for name in ("down", "gates", "combine"):
            in_vllm(getattr(self, name), f"side.{name}")
        # What a rung does to its tap, looked up once.
        self._normed = TapNorm(ladder["tap_norm"]) is not TapNorm.NONE
        self._projections = {j: self.down.of(j) for j in (0, *fed)}
        self._gates = {j: self.gates[str(j)] for j in fed}
        # The backbone layer behind which the side network joins: the last one, or the one below a suffix.
        self.joins_at = depth - ladder["suffix_layers"]
        # A side layer runs as soon as the backbone has reached its tap and those before it have run.
        self.due: dict[int, list[int]] = {}
        reached = 0
        for j in range(1, ladder["side_layers"] + 1):
            reached = max(reached, self.source.get(j, 0))
            self.due.setdefault(reached, []).append(j)

    def projected(self, rung: int, tap: Tensor) -> Tensor:
        """`[tokens, d]` to `[tokens, d_s]`."""
        narrow: Tensor = self._projections[rung](self.down.normed(tap) if self._normed else tap)
        return narrow

    def begin(self, embedded: Tensor) -> Tensor:
        """The state `[tokens, d_s]` before the first side layer; never the embeddings' own memory, which the backbone
        may write to.
        """
        state = self.projected(0, embedded)
        return state.clone() if state is embedded else state

    def advance(self, reached: int, tap: Tensor, state: Tensor, positions: Tensor) -> Tensor:
        """Run the side layers that are due after backbone layer `reached`, whose output `[tokens, d]` is `tap`."""
        for j in self.due.get(reached, ()):
            if j in self.source:
                state = self._gates[j](state, self.projected(j, tap))
            state = self.layers[j - 1](positions, state)
        return state


@support_torch_compile
class LadderBody(nn.Module):
    """Backbone and side network up to the head; what vLLM compiles."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", decoder: nn.Module, side: Side) -> None:
        super().__init__()
        self.decoder, self.side = decoder, side

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """`[tokens]` ids and positions to what the head reads, `[tokens, d]`."""
        decoder: Any = self.decoder
        hidden = inputs_embeds if inputs_embeds is not None else decoder.embed_tokens(input_ids)
        side, residual = self.side, None
        state = side.advance(0, hidden, side.begin(hidden), positions)
        for number, layer in enumerate(decoder.layers, start=1):
            hidden, residual = layer(positions, hidden, residual)
            if number in side.due or number in (side.joins_at, len(decoder.layers)):
                # The next layer, or a suffix, begins from the sum, and need not add again.
                hidden, residual = hidden + residual, None
            if number <= side.joins_at:
                state = side.advance(number, hidden, state, positions)
            if number == side.joins_at:
                hidden = side.combine(hidden, state)
        joined: Tensor = hidden
        return joined if side.combine.normed else decoder.norm(joined)


class LadderForCausalLM(nn.Module):
    """A backbone of vLLM and the side network that was trained beside it."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """As vLLM builds every model.

        Raises:
            ValueError: for a version with which nobody has run it, and for several cards or stages.
        """
        super().__init__()
        refuse_other_version(vllm.__version__)
        parallel = vllm_config.parallel_config
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            if getattr(parallel, name) != 1:
                raise ValueError(f"a ladder is not served with {name}={getattr(parallel, name)}: leave it at 1")
        config = vllm_config.model_config.hf_config
        self.config = config
        self.backbone = _BACKBONES[config.model_type](vllm_config=vllm_config, prefix=prefix)
        decoder: Any = self.backbone.model
        self.side = Side(vllm_config, decoder.norm)
        self.body = LadderBody(vllm_config=vllm_config, prefix=prefix, decoder=decoder, side=self.side)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Token embeddings `[tokens, d]`."""
        backbone: Any = self.backbone
        embedded: Tensor = backbone.embed_input_ids(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """What the head reads, `[tokens, d]`."""
        output: Tensor = self.body(input_ids, positions, intermediate_tensors, inputs_embeds)
        return output

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """`[tokens, vocabulary]`."""
        backbone: Any = self.backbone
        logits: Tensor | None = backbone.compute_logits(hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load some of the weights, or one, by their names in the folder.

        Returns:
            The names here of what was loaded.
        """
        loaded: set[str] = set()

        def backbone_weights() -> Iterable[tuple[str, Tensor]]:
            for name, weight in weights:
                if name.startswith(SIDE_PREFIX):
                    loaded.add(self._load_side(name, weight))
                elif not self._left_out(name):
                    yield name, weight

        backbone: Any = self.backbone
        loaded |= {f"backbone.{name}" for name in backbone.load_weights(backbone_weights())}
        return loaded

    def _load_side(self, name: str, weight: Tensor) -> str:
        parameters = dict(self.side.named_parameters())
        own = name.removeprefix(SIDE_PREFIX)
        layer, found, _ = own.partition(".self_attn.")
        if found:
            attention: Any = self.side.get_submodule(f"{layer}.self_attn")
            weight = attention.widened(own, weight)
        for there, (here, part) in _STACKED.items():
            if there in own:
                own = own.replace(there, here)
                parameter: Any = parameters[own]
                parameter.weight_loader(parameter, weight, part)
                return f"side.{own}"
        parameter = parameters[own]
        getattr(parameter, "weight_loader", default_weight_loader)(parameter, weight)
        return f"side.{own}"

    def _left_out(self, name: str) -> bool:
        """Whether a weight is of a backbone layer that is not run."""
        parts = name.split(".")
        number = parts[2] if parts[:2] == ["model", "layers"] else ""
        return number.isdigit() and int(number) >= self.config.num_hidden_layers
