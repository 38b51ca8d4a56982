"""A frozen backbone and its side network as one Transformers model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    Cache,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.masking_utils import create_masks_for_generate
from transformers.modeling_outputs import CausalLMOutputWithPast

from ladder_cli.models import adapter
from ladder_cli.models.backbone import anatomy_of, identity
from ladder_cli.models.connections import Connections
from ladder_cli.models.loss import DEFAULT_CHUNK, completion_cross_entropy
from ladder_cli.models.side_network import SideNetwork, side_config
from ladder_cli.models.taps import LiveTaps, TapSource

FULL_ATTENTION = "full_attention"
# What `generate` and the trainer read from a model's config, taken over from the backbone.
_INHERITED = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "sliding_window",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


class LadderConfig(PreTrainedConfig):
    """The shape of a ladder and the identity of the backbone that it stands on.

    Attributes:
        backbone: the backbone's own config as a dict (with its `model_type`).
        backbone_name: hub repository or folder it was loaded from; where `from_pretrained` looks by default.
        backbone_revision: revision on the hub.
        pairs: connections `[backbone layer, side layer]`, counted from 1.
        side_layers: l.
        reduction: r; the side width is d / r.
        gate, combine, init: see docs/ladder.md.
    """

    model_type = "ladder"

    backbone: dict | None = None
    backbone_name: str = ""
    backbone_revision: str | None = None
    pairs: list | None = None
    side_layers: int = 0
    reduction: int = 16
    gate: str = "sum"
    combine: str = "residual"
    init: str = "uniform"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.backbone is not None:
            backbone = self.backbone_config()
            for name in _INHERITED:
                setattr(self, name, getattr(backbone, name, None))
            # One cache serves both: L backbone layers, then l side layers.
            self.num_hidden_layers = backbone.num_hidden_layers + self.side_layers
            self.layer_types = self._layer_types(backbone)
        super().__post_init__(**kwargs)

    def backbone_config(self) -> PreTrainedConfig:
        """The backbone's config as an object."""
        values = dict(self.backbone or {})
        return AutoConfig.for_model(values.pop("model_type"), **values)

    def connections(self) -> Connections:
        """The validated connections."""
        layers = self.backbone_config().num_hidden_layers
        return Connections(layers, self.side_layers, tuple((i, j) for i, j in self.pairs or []))

    def _layer_types(self, backbone: PreTrainedConfig) -> list[str]:
        """The backbone's attention types, then for each side layer that of the layer which last fed it."""
        own = getattr(backbone, "layer_types", None)
        if own is None:
            windowed = getattr(backbone, "sliding_window", None) is not None
            own = ["sliding_attention" if windowed else FULL_ATTENTION] * backbone.num_hidden_layers
        sources = {j: i for i, j in self.pairs or []}
        side, source = [], 1
        for j in range(1, self.side_layers + 1):
            source = sources.get(j, source)
            side.append(own[source - 1])
        return [*own, *side]


class LadderModel(PreTrainedModel, GenerationMixin):
    """A causal language model whose only trained part is the side network.

    Works with `Trainer`, with `generate` (cached, batched, left-padded, sampling, beams), and saves the adapter
    alone. An untrained ladder gives the backbone's logits bit for bit. A ladder cannot be merged into its backbone:
    it is a second network beside it, not a change of its weights.
    """

    config_class = LadderConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = False
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
        connections = config.connections()
        shape = side_config(backbone.config, connections, config.reduction, list(config.layer_types))
        self.side = SideNetwork(self._anatomy, shape, backbone.config.hidden_size, connections)
        self.side.to(device=self._anatomy.device, dtype=torch.float32)
        self.tap_source: TapSource = LiveTaps(self._anatomy, connections.taps)
        self.generation_config = GenerationConfig.from_dict(backbone.generation_config.to_dict())
        self.post_init()

    @classmethod
    def on(
        cls, backbone: PreTrainedModel, connections: Connections, reduction: int = 16, name: str = "", **shape: Any
    ) -> "LadderModel":
        """An untrained ladder on a loaded backbone.

        Args:
            backbone: any decoder-only model that `anatomy_of` knows.
            connections: from `connections.connect(...)`.
            reduction: r.
            name: where the backbone can be found again; by default the place it was loaded from.
            shape: further fields of `LadderConfig`.
        """
        config = LadderConfig(
            backbone=_plain_config(backbone.config),
            backbone_name=name or backbone.config._name_or_path,
            pairs=[list(pair) for pair in connections.pairs],
            side_layers=connections.side_layers,
            reduction=reduction,
            **shape,
        )
        return cls(config, backbone)

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
        values = adapter.read_config(folder, expected="ladder")
        config = LadderConfig(**values)
        if backbone is None:
            backbone = adapter.load_recorded_backbone(config.backbone_name, config.backbone_revision, load_options)
        adapter.check_backbone(folder, identity(config.backbone_config()), identity(backbone.config))
        model = cls(config, backbone)
        model.load_adapter_weights(folder)
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **_: Any) -> None:  # type: ignore[override]
        """Write the adapter alone: its config and the side network's weights (float32)."""
        if is_main_process:
            values = {"adapter_type": "ladder", **_plain_config(self.config)}
            adapter.write(save_directory, values, self.side.state_dict())

    def load_adapter_weights(self, folder: str | Path) -> None:
        """Overwrite the side network's weights by those in `folder`, which must fit exactly.

        Raises:
            UserError: if a weight is missing, left over, or of another shape.
        """
        adapter.load_into(self.side, folder)

    def init_weights(self) -> None:
        """Nothing to do: the backbone came with its weights and the side network made its own."""

    def train(self, mode: bool = True) -> "LadderModel":
        """Training mode for the side network; the backbone stays in evaluation mode (no dropout)."""
        super().train(mode)
        self.backbone.eval()
        return self

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
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        tokens = input_ids if input_ids is not None else inputs_embeds
        assert tokens is not None
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(tokens.shape[1], device=tokens.device) + seen).unsqueeze(0)
        # Before the backbone runs: it advances the cache that masks are measured against.
        masks = self._masks(tokens, attention_mask, past_key_values, position_ids)
        shared = {"position_ids": position_ids, "past_key_values": past_key_values, "use_cache": bool(use_cache)}
        taps = self.tap_source.taps(
            input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask, **shared, **kwargs
        )
        with self._anatomy.autocast():
            hidden = taps.final + self.side(taps.rungs, masks, **shared, **kwargs)
            if labels is not None:
                loss = completion_cross_entropy(
                    hidden, self._anatomy.readout, labels, num_items_in_batch, self.loss_chunk
                )
                return CausalLMOutputWithPast(loss=loss, past_key_values=past_key_values)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self._anatomy.readout(hidden[:, kept])
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

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


def _plain_config(config: PreTrainedConfig) -> dict[str, Any]:
    """A config as JSON values, without marks of how and from where it was loaded."""
    values = config.to_diff_dict() if isinstance(config, LadderConfig) else config.to_dict()
    for name in ("quantization_config", "dtype", "_name_or_path", "transformers_version"):
        values.pop(name, None)
    return values
