"""A frozen backbone and its side network as one Transformers model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

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

from ladder_cli.nn import adapter
from ladder_cli.nn.cloning import initialise_cloned
from ladder_cli.nn.connections import Connections
from ladder_cli.nn.importance import Batch, by_fisher, by_magnitude
from ladder_cli.nn.ladder_config import LadderConfig, plain_config, read_ladder_config
from ladder_cli.nn.loss import DEFAULT_CHUNK, completion_cross_entropy
from ladder_cli.nn.memory_parts import BACKBONE, memory_part
from ladder_cli.nn.named_sides import NamedSides
from ladder_cli.nn.pruning import initialise_pruned
from ladder_cli.nn.side_network import SideNetwork
from ladder_cli.trunk.live_taps import LiveTaps
from ladder_cli.trunk.loading import identity
from ladder_cli.trunk.parts import anatomy_of, keep_differentiable, refused_by_name


# Transformers' own peft methods have these names too; ours take their place.
class LadderModel(NamedSides, PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A causal language model whose only trained part is the side network.

    Works with `Trainer`, with `generate` (cached, batched, left-padded, sampling, beams), and saves the adapter
    alone. An untrained ladder gives the backbone's logits bit for bit (unless `combine="side"`). Several named side
    networks can stand beside one backbone, one of them active (`load_adapter`, `set_adapter`, `disable_adapter`).

    A ladder cannot be merged into its backbone: it is a second network beside it, not a change of its weights.
    """

    config_class = LadderConfig
    main_input_name = "input_ids"
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LadderConfig, backbone: PreTrainedModel) -> None:
        """Put an untrained side network beside `backbone`, which is frozen from now on."""
        super().__init__(config)
        self.backbone = backbone.requires_grad_(False)
        self.loss_chunk = DEFAULT_CHUNK
        self._anatomy = anatomy_of(backbone)
        if self._anatomy.project_out is not None:
            keep_differentiable(self._anatomy.project_out)
        self._bare_taps = LiveTaps(self._anatomy, ())
        self._start_sides(config)
        self.generation_config = GenerationConfig.from_dict(backbone.generation_config.to_dict())
        self.post_init()

    @property
    def base_model(self) -> nn.Module:
        """Everything up to the head, as Transformers' and TRL's code expects it: gives `last_hidden_state`."""
        return _Headless(self)

    @classmethod
    def on(
        cls,
        backbone: PreTrainedModel,
        connections: Connections,
        reduction: int = 16,
        name: str = "",
        sample: Iterable[Batch] = (),
        **shape: Any,
    ) -> "LadderModel":
        """An untrained ladder on a loaded backbone.

        Args:
            backbone: any decoder-only model that `anatomy_of` knows.
            connections: from `connections.connect(...)`.
            reduction: r.
            name: where the backbone can be found again; by default the place it was loaded from.
            sample: batches of training data (`input_ids`, `attention_mask`, `labels`), for `init="pruned_fisher"`.
            shape: further fields of `LadderConfig`: gate, combine, init, ...

        Raises:
            UserError: if the shape does not fit the backbone.
        """
        anatomy_of(backbone)  # what cannot be tapped says so before its config is asked for anything
        with refused_by_name(backbone, "no side layer can be built of its own"):
            config = LadderConfig(
                backbone=plain_config(backbone.config),
                backbone_name=name or backbone.config._name_or_path,
                pairs=[list(pair) for pair in connections.pairs],
                side_layers=connections.side_layers,
                reduction=reduction,
                **shape,
            )
            model = cls(config, backbone)
        if model._anatomy.device.type == "meta":
            return model  # shapes without values
        if config.init == "cloned":
            initialise_cloned(model.side, model._anatomy)
        elif config.init != "uniform":
            fisher = config.init == "pruned_fisher"
            importance = by_fisher(backbone, model._anatomy, sample) if fisher else by_magnitude(model._anatomy)
            initialise_pruned(model.side, model._anatomy, importance)
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | Path, backbone: PreTrainedModel | None = None, **load_options: Any
    ) -> "LadderModel":
        """Load an adapter that `save_pretrained` wrote, onto `backbone` or onto the one it names.

        Args:
            folder: holds `adapter_config.json` and `adapter_model.safetensors`.
            backbone: an already loaded backbone; None loads the recorded one through `AutoModelForCausalLM`.
            load_options: passed on to that load (quantization_config, dtype, device_map, ...).

        Raises:
            UserError: if the folder holds no ladder, or one that was trained on another backbone.
        """
        config = read_ladder_config(folder)
        if backbone is None:
            backbone = adapter.load_recorded_backbone(config.backbone_name, config.backbone_revision, load_options)
        adapter.check_backbone(folder, identity(config.backbone_config()), identity(backbone.config))
        model = cls(config, backbone)
        model.load_adapter_weights(folder)
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **_: Any) -> None:  # type: ignore[override]
        """Write the adapter alone: its config and the side network's weights (float32)."""
        if is_main_process:
            values = {"adapter_type": "ladder", **plain_config(self.config)}
            adapter.write(save_directory, values, self.side.state_dict())

    def init_weights(self) -> None:
        """Nothing to do: the backbone came with its weights and the side network made its own."""

    def train(self, mode: bool = True) -> "LadderModel":
        """Training mode for the side network; the backbone stays in evaluation mode (no dropout)."""
        super().train(mode)
        self.backbone.eval()
        return self

    def _set_gradient_checkpointing(self, enable: bool = True, *_: Any, **__: Any) -> None:
        """What Transformers' `activation_checkpointing_enable` means here: side layers are recomputed."""
        for side in self.sides.values():
            cast(SideNetwork, side).recompute = enable

    def enable_input_require_grads(self) -> None:
        """Nothing to do: gradients never reach the embeddings."""

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether side layers are recomputed in the backward pass."""
        return self.side.recompute

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
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds, **kwargs}
        hidden = self._hidden(position_ids=position_ids, past_key_values=past_key_values, **inputs)
        if labels is not None:
            loss = completion_cross_entropy(hidden, self._logits, labels, num_items_in_batch, self.loss_chunk)
            return CausalLMOutputWithPast(loss=loss, past_key_values=past_key_values)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self._logits(hidden[:, kept])
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

    def features(self, **inputs: Any) -> Tensor:
        """What the head reads, `[batch, tokens, d]`, for the inputs of `forward` (without labels)."""
        return self._features(self._hidden(**inputs))

    def _features(self, hidden: Tensor) -> Tensor:
        return self._anatomy.features(hidden, normed=bool(self.side.combine.normed) and not self._disabled)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._anatomy.head_logits(self._features(hidden))

    def _hidden(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The hidden state after backbone and side network, `[batch, tokens, d]`."""
        tokens = input_ids if input_ids is not None else inputs_embeds
        if tokens is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("give either input_ids or inputs_embeds")
        kwargs["past_key_values"], kwargs["use_cache"] = past_key_values, past_key_values is not None
        # The backbone is given the positions that the caller gave: OPT works them out of the mask.
        inputs = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "position_ids": position_ids}
        if self._disabled:
            with torch.no_grad():
                bare = self._bare_taps.taps(attention_mask=attention_mask, **inputs, **kwargs).final
            assert bare is not None
            return bare
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(tokens.shape[1], device=tokens.device) + seen).unsqueeze(0)
        # Before the backbone runs: it advances the cache that masks are measured against.
        masks = self._masks(tokens, attention_mask, past_key_values, position_ids)
        with memory_part(BACKBONE):
            taps = self.tap_source.taps(attention_mask=attention_mask, **inputs, **kwargs)
        return self.side(taps, masks, position_ids, **kwargs)

    def _masks(
        self, tokens: Tensor, attention_mask: Any, cache: Cache | None, position_ids: Tensor
    ) -> dict[str, Tensor | None]:
        """Attention masks of the side layers by layer type, the same as the backbone makes for its own."""
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
