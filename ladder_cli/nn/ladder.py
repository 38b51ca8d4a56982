"""A frozen backbone and its side network as one Transformers model."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Cache,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.masking_utils import create_masks_for_generate
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from ladder_cli.config.choices import Combination, Init
from ladder_cli.config.methods import STARTS_AS_THE_BACKBONE
from ladder_cli.nn import adapter
from ladder_cli.nn.connections import Connections
from ladder_cli.nn.first_weights import FIRST_WEIGHTS
from ladder_cli.nn.ladder_config import LadderConfig, plain_config, read_ladder_config
from ladder_cli.nn.loss import completion_cross_entropy
from ladder_cli.nn.named_sides import NamedSides
from ladder_cli.nn.runtime import Runtime
from ladder_cli.nn.suffix import Suffix
from ladder_cli.trunk.base import Batch, Hidden, Taps, TrainableModule, Trunk
from ladder_cli.trunk.live import trunk_over
from ladder_cli.trunk.loading import identity
from ladder_cli.trunk.parts import Anatomy, keep_differentiable, refused_by_name


# Transformers' own peft methods have these names too; ours take their place.
class LadderModel(NamedSides, TrainableModule, PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A causal language model whose only trained part is the side network, and with `suffix_layers` the adapters in as
    many of the backbone's last layers, which begin where the side network has joined (`nn.suffix`).

    Works with `Trainer`, with `generate` (cached, batched, left-padded, sampling, beams), and saves the adapter
    alone. An untrained ladder gives the backbone's logits bit for bit (unless `combine="side"`). Several named side
    networks can stand beside one backbone, one of them active (`load_adapter`, `set_adapter`, `disable_adapter`).

    A ladder cannot be merged into its backbone: it is a second network beside it, not a change of its weights. But one
    whose layers take the place of the backbone's last (`LadderConfig.takes_place_of`) is exported as a model like it.
    """

    config_class = LadderConfig
    main_input_name = "input_ids"
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LadderConfig, backbone: PreTrainedModel | Trunk, runtime: Runtime | None = None) -> None:
        """Put an untrained side network beside `backbone`, which is frozen from now on.

        Args:
            config: the ladder's shape.
            backbone: a loaded model, or the trunk that is over it already.
            runtime: how it runs; holds for side networks that are added later as well.
        """
        super().__init__(config)
        self.trunk = trunk_over(backbone)
        self.backbone = self.trunk.whole()
        self._anatomy = self.trunk.parts
        if self._anatomy.project_out is not None:
            keep_differentiable(self._anatomy.project_out)
        self.suffix = Suffix.of(config, self.trunk, runtime or Runtime())
        self._start_sides(config, runtime or Runtime())
        self.generation_config = GenerationConfig.from_dict(self.backbone.generation_config.to_dict())
        self.post_init()

    @property
    def base_model(self) -> nn.Module:
        """Everything up to the head, as Transformers' and TRL's code expects it: gives `last_hidden_state`."""
        return _Headless(self)

    @classmethod
    def shaped(
        cls,
        backbone: PreTrainedModel | Trunk,
        connections: Connections,
        reduction: int = 16,
        name: str = "",
        runtime: Runtime | None = None,
        **shape: Any,
    ) -> "LadderModel":
        """A ladder whose side network has random weights alone: no weight of the backbone is read.

        Args and errors are those of `on`.
        """
        trunk = trunk_over(backbone)
        model = trunk.whole()
        with refused_by_name(model, "no side layer can be built of its own"):
            config = LadderConfig(
                backbone=plain_config(model.config),
                backbone_name=name or trunk.name,
                pairs=[list(pair) for pair in connections.pairs],
                side_layers=connections.side_layers,
                reduction=reduction,
                **shape,
            )
            return cls(config, trunk, runtime)

    @classmethod
    def on(
        cls,
        backbone: PreTrainedModel | Trunk,
        connections: Connections,
        reduction: int = 16,
        name: str = "",
        sample: Iterable[Batch] = (),
        runtime: Runtime | None = None,
        **shape: Any,
    ) -> "LadderModel":
        """An untrained ladder on a loaded backbone, with the first weights that its config names.

        Args:
            backbone: any decoder-only model that `anatomy_of` knows, or the trunk over it.
            connections: from `connections.connect(...)`.
            reduction: r.
            name: where the backbone can be found again; by default the place it was loaded from.
            sample: batches of training data, one row each, for `init="pruned_fisher"`.
            runtime: how it runs.
            shape: further fields of `LadderConfig`: gate, combine, init, ...

        Raises:
            UserError: if the shape does not fit the backbone.
        """
        model = cls.shaped(backbone, connections, reduction, name, runtime, **shape)
        FIRST_WEIGHTS[Init(model.config.init)](model.side, model.backbone, model._anatomy, sample)
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder: str | Path | adapter.AdapterFolder,
        backbone: PreTrainedModel | Trunk | None = None,
        runtime: Runtime | None = None,
        **load_options: Any,
    ) -> "LadderModel":
        """Load an adapter that `save_pretrained` wrote, onto `backbone` or onto the one it names.

        Args:
            folder: holds `adapter_config.json` and `adapter_model.safetensors`.
            backbone: an already loaded backbone or the trunk over it; None loads the recorded one through
                `AutoModelForCausalLM`.
            runtime: how it runs.
            load_options: passed on to that load (quantization_config, dtype, device_map, ...).

        Raises:
            UserError: if the folder holds no ladder, or one that was trained on another backbone.
        """
        folder = adapter.AdapterFolder.open(folder)
        config = read_ladder_config(folder)
        if backbone is None:
            backbone = adapter.load_recorded_backbone(config.backbone_name, config.backbone_revision, load_options)
        trunk = trunk_over(backbone)
        adapter.check_backbone(folder, identity(config.backbone_config()), identity(trunk.whole().config))
        model = cls(config, trunk, runtime)
        model.load_adapter_weights(folder)
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **_: Any) -> None:  # type: ignore[override]
        """Write the adapter alone: its config and the weights of side network and suffix (float32)."""
        if is_main_process:
            values = {"adapter_type": adapter.LADDER, **plain_config(self.config)}
            adapter.write(save_directory, values, self.adapter_weights())

    @property
    def bare_backbone(self) -> PreTrainedModel:
        """The frozen model beside the side network."""
        return self.backbone

    @property
    def starts_as_the_backbone(self) -> bool:
        """Whether an untrained ladder of this combination and these first weights is the backbone, bit for bit."""
        return STARTS_AS_THE_BACKBONE[Combination(self.config.combine)](Init(self.config.init))

    def backbone_logits(self, **inputs: Any) -> Tensor:
        """The backbone's own `forward`, without what was put into its layers."""
        with self.suffix.off() if self.suffix is not None else nullcontext():
            logits: Tensor = self.backbone(**inputs).logits
        return logits

    def init_weights(self) -> None:
        """Nothing to do: the backbone came with its weights and the side network made its own."""

    def train(self, mode: bool = True) -> "LadderModel":
        """Training mode for what learns; of the backbone, what is only read stays in evaluation mode (no dropout)."""
        super().train(mode)
        self.backbone.eval()
        if self.suffix is not None:
            self.suffix.train(mode)
        return self

    def _set_gradient_checkpointing(self, enable: bool = True, *_: Any, **__: Any) -> None:
        """What Transformers' `activation_checkpointing_enable` means here: side layers are recomputed."""
        self.runtime = replace(self.runtime, recompute=enable)

    def enable_input_require_grads(self) -> None:
        """Nothing to do: gradients never reach the embeddings."""

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether side layers are recomputed in the backward pass."""
        return self.runtime.recompute

    def get_input_embeddings(self) -> torch.nn.Module:
        """The backbone's."""
        return self.backbone.get_input_embeddings()

    def get_output_embeddings(self) -> torch.nn.Module:
        """The backbone's head."""
        return self.backbone.get_output_embeddings()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, or with `labels` the loss alone.

        Args:
            input_ids: `[batch, tokens]`.
            attention_mask: `[batch, seen tokens]` (0 is padding), or what Transformers' mask functions make.
            position_ids: `[batch, tokens]`; None counts from the cache's length.
            past_key_values: one cache for backbone and side network.
            inputs_embeds: `[batch, tokens, d]` instead of `input_ids`.
            labels: `[batch, tokens]`, unshifted, -100 where a token does not count. With labels, no logits are
                made beyond one chunk, and `logits` is None.
            use_cache: fill and return a cache; by default not.
            logits_to_keep: last positions (or indices) whose logits are wanted; 0 means all.
            num_items_in_batch: divisor of the loss; None divides by this batch's counted tokens.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        given = {"attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        state = self._state(input_ids, position_ids, past_key_values, **given, **kwargs)
        if labels is not None:
            chunk = self.runtime.loss_chunk
            loss = completion_cross_entropy(state, self._readout(), labels, num_items_in_batch, chunk)
            return CausalLMOutputWithPast(loss=loss, past_key_values=past_key_values)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return CausalLMOutputWithPast(logits=self._readout()(state[:, kept]), past_key_values=past_key_values)

    def hidden(self, batch: Batch, taps: Taps | None = None) -> Hidden:
        """What a loss reads, for a batch of rows without a cache.

        The backbone's own state is handed out where the pass went to its end: whoever does not read it should let go
        of it, and of the taps, before the loss takes its memory.

        Args:
            batch: rows.
            taps: at least those of `request`; None runs the trunk.
        """
        positions = self._positions(batch.input_ids, batch.position_ids, None)
        masks = self._masks(batch.input_ids, batch.attention_mask, None, positions)
        if taps is None:
            taps = self.trunk.taps(self.request, batch)
        above = self._above
        state = self._joined(taps if above is None else above.entry(taps), masks, positions, use_cache=False)
        if above is not None:
            state = above.above(state, batch.inputs)
        return Hidden(state, self._readout(), self._reference(batch, taps))

    def features(self, input_ids: Tensor | None = None, **inputs: Any) -> Tensor:
        """What the head reads, `[batch, tokens, d]`, for the inputs of `forward` (without labels)."""
        return self._features(self._state(input_ids, **inputs))

    @property
    def _above(self) -> Suffix | None:
        """What runs behind the side network; None: nothing, or adapters are disabled."""
        return None if self._disabled else self.suffix

    @property
    def _normed(self) -> bool:
        """Whether the state before the head has had a final norm already."""
        return bool(self.side.combine.normed) and not self._disabled

    @property
    def _features(self) -> Callable[[Tensor], Tensor]:
        """From the state to what the head reads."""
        return partial(self._anatomy.features, normed=self._normed) if self._above is None else _as_it_is

    def _readout(self) -> Callable[[Tensor], Tensor]:
        # A suffix computes in the backbone's type, and in architectures whose norms do not, so does the head.
        return partial(_logits, self._anatomy, self._features, self._above is not None)

    @torch.no_grad()
    def _reference(self, batch: Batch, taps: Taps) -> Tensor | None:
        """The bare backbone's state for the same readout. A suffix has to run for it once more, and does where it is
        asked for.
        """
        if self.suffix is not None:
            return self.suffix.bare(taps, batch.inputs) if self._runtime.reference else None
        final, norm = taps.final, self._anatomy.final_norm
        return norm(final) if final is not None and norm is not None and self._normed else final

    def _state(
        self,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Any = None,
        inputs_embeds: Tensor | None = None,
        **more: Any,
    ) -> Tensor:
        """The hidden state after backbone and side network, `[batch, tokens, d]`, for the inputs of `forward`."""
        tokens = input_ids if input_ids is not None else inputs_embeds
        if tokens is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("give either input_ids or inputs_embeds")
        positions = self._positions(tokens, position_ids, past_key_values)
        # Before the backbone runs: it advances the cache that masks are measured against.
        masks = self._masks(tokens, attention_mask, past_key_values, positions)
        ready = isinstance(attention_mask, dict)
        # The backbone is given the positions that the caller gave: OPT works them out of the mask.
        batch = Batch(tokens, None, None if ready else attention_mask, position_ids)
        unsaid: dict[str, Any] = {"attention_mask": attention_mask} if ready else {}  # what no batch can say
        if inputs_embeds is not None:
            unsaid |= {"input_ids": None, "inputs_embeds": inputs_embeds}
        cached: dict[str, Any] = {"past_key_values": past_key_values, "use_cache": past_key_values is not None}
        if self._above is not None:
            join = partial(self._joined, masks=masks, position_ids=positions, **more, **cached)
            inputs = batch.inputs | unsaid | more | cached
            return self._above.through(join, frozenset(self.side.connections.taps), inputs)
        taps = self.trunk.taps(self.request, batch, past_key_values, **unsaid, **more)
        return self._joined(taps, masks, positions, **more, **cached)

    def _joined(self, taps: Taps, masks: dict[str, Tensor | None], position_ids: Tensor, **more: Any) -> Tensor:
        """The state of backbone and side network together; the backbone's alone where adapters are disabled."""
        if not self._disabled:
            return self.side(taps, masks, position_ids, **more)
        assert taps.final is not None
        return taps.final

    @staticmethod
    def _positions(tokens: Tensor, position_ids: Tensor | None, cache: Cache | None) -> Tensor:
        """`[batch or 1, tokens]`: those given, or counted from the cache's length."""
        if position_ids is not None:
            return position_ids
        seen = cache.get_seq_length() if cache is not None else 0
        return (torch.arange(tokens.shape[1], device=tokens.device) + seen).unsqueeze(0)

    def _masks(
        self, tokens: Tensor, attention_mask: Any, cache: Cache | None, position_ids: Tensor
    ) -> dict[str, Tensor | None]:
        """Attention masks of the side layers by layer type, the same as the backbone makes for its own."""
        if self._disabled:
            return {}
        if isinstance(attention_mask, dict):
            return attention_mask
        masks = create_masks_for_generate(
            config=self.config,
            inputs_embeds=torch.empty((*tokens.shape[:2], 0), dtype=self._anatomy.dtype, device=tokens.device),
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=position_ids,
        )
        return masks if isinstance(masks, dict) else dict.fromkeys(set(self.config.layer_types), masks)


def _logits(anatomy: Anatomy, features: Callable[[Tensor], Tensor], in_its_type: bool, state: Tensor) -> Tensor:
    """`[..., d]` to logits `[..., vocabulary]`."""
    with anatomy.autocast() if in_its_type else nullcontext():
        return anatomy.head_logits(features(state))


def _as_it_is(state: Tensor) -> Tensor:
    return state


class _Headless(nn.Module):
    """A ladder up to its head."""

    def __init__(self, ladder: LadderModel) -> None:
        super().__init__()
        # Not a submodule: the ladder is the owner of all parameters.
        self.__dict__["ladder"] = ladder

    def forward(self, past_key_values: Cache | None = None, use_cache: bool | None = None, **inputs: Any) -> Any:
        """The inputs of the ladder's `forward`, without labels."""
        ladder: LadderModel = self.__dict__["ladder"]
        hidden = ladder.features(past_key_values=past_key_values, **inputs)
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=past_key_values)
