"""LoRA through peft, on all layers (QLoRA) or on the last ones (suffix), with the same chunked loss as the ladder."""

from typing import Any, cast

import torch
from peft import LoraConfig, PeftModelForCausalLM
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from ladder_cli.errors import UserError
from ladder_cli.nn.loss import completion_cross_entropy
from ladder_cli.nn.low_rank import on_all_layers, on_last_layers, quiet_peft, recompute_layers, without_dropout
from ladder_cli.nn.runtime import Runtime
from ladder_cli.trunk.base import Batch, Hidden, TapRequest, Taps, TrainableModule, Trunk
from ladder_cli.trunk.live import trunk_over
from ladder_cli.trunk.parts import Anatomy, anatomy_of, keep_differentiable
from ladder_cli.trunk.upper import run_above


class LowRankModel(TrainableModule, PeftModelForCausalLM):
    """A peft model that trains as a ladder does: same precision, same loss, adapters alone on disk.

    Everything else is peft's. Adapter weights stay float32 and compute in the backbone's type, by autocast, in
    training, evaluation and generation alike.

    Where adapters are in the last layers alone, training begins from a tap of the layer below them (`method=suffix`).
    """

    def __init__(
        self,
        backbone: PreTrainedModel | Trunk,
        config: LoraConfig,
        runtime: Runtime | None = None,
        reads: int | None = None,
    ) -> None:
        """Put untrained adapters into `backbone`.

        Args:
            backbone: a loaded model, or the trunk over it.
            config: of the adapters.
            runtime: how it runs.
            reads: of the layers without adapters, which no gradient enters, the last; 0: there are none. None:
                gradients pass through the backbone.

        Raises:
            ValueError: from peft, if none of the layers that the config names is there.
        """
        model = backbone if isinstance(backbone, PreTrainedModel) else backbone.whole()
        anatomy = anatomy_of(model)
        with quiet_peft():
            super().__init__(model, config)
        self.runtime = runtime or Runtime()
        self._anatomy: Anatomy = anatomy
        self._reads = reads
        if reads is not None:
            self.trunk = trunk_over(backbone)

    @property
    def bare_backbone(self) -> PreTrainedModel:
        """The model with the adapters in it, which may be switched off."""
        backbone: Any = self.get_base_model()
        return cast(PreTrainedModel, backbone)

    @property
    def starts_as_the_backbone(self) -> bool:
        """True: the second matrix of each pair starts at zero."""
        return True

    def backbone_logits(self, **inputs: Any) -> Tensor:
        """With the adapters switched off."""
        with self.disable_adapter():
            logits: Tensor = self(**inputs).logits
        return logits

    @property
    def request(self) -> TapRequest | None:
        """The one tap that a suffix begins from; None: gradients pass through the backbone."""
        return TapRequest(frozenset({self._reads} - {0}), final=False) if self._reads is not None else None

    def hidden(self, batch: Batch, taps: Taps | None = None) -> Hidden:
        """What a loss reads.

        Args:
            batch: rows.
            taps: at least those of `request`; None runs the trunk. Where `request` is None they are of no use.
        """
        if self._reads is not None and taps is None:
            taps = self.trunk.taps(cast(TapRequest, self.request), batch)
        with self._anatomy.autocast():
            reference = self._reference(batch, taps) if self.runtime.reference else None
            state = self._last_state(batch, taps)
        return Hidden(state, self._readout, reference)

    def _last_state(self, batch: Batch, taps: Taps | None) -> Tensor:
        """Behind the final norm, `[batch, tokens, d]`."""
        if self._reads is None:
            state: Tensor = self._anatomy.decoder(**batch.inputs, use_cache=False).last_hidden_state
            return state
        assert taps is not None
        return run_above(self._anatomy, self._reads, taps.rungs[self._reads], batch.inputs)

    @torch.no_grad()
    def _reference(self, batch: Batch, taps: Taps | None) -> Tensor:
        """The bare backbone's: its layers once more, above the tap where there is one, without adapters or dropout."""
        with without_dropout(self.bare_backbone), self.disable_adapter():
            return self._last_state(batch, taps)

    def train(self, mode: bool = True) -> "LowRankModel":
        """Training mode; what is only read stays in evaluation mode (no dropout), as under a ladder."""
        super().train(mode)
        if getattr(self, "_reads", None) is not None:
            self.bare_backbone.eval()
            for layer in self._anatomy.layers[self._reads :]:
                layer.train(mode)
        return self

    def _readout(self, features: Tensor) -> Tensor:
        """`[..., d]` to logits `[..., vocabulary]`."""
        with self._anatomy.autocast():
            return self._anatomy.head_logits(features)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Logits, or with `labels` the loss alone (`completion_cross_entropy`); the rest as of peft's `forward`."""
        with self._anatomy.autocast():
            if labels is None:
                return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
            for name in ("return_dict", "output_attentions", "output_hidden_states"):
                kwargs.pop(name, None)
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **kwargs, "use_cache": False}
            state = self._anatomy.decoder(**inputs).last_hidden_state
            chunk = self.runtime.loss_chunk
            loss = completion_cross_entropy(state, self._readout, labels, num_items_in_batch, chunk)
            return CausalLMOutputWithPast(loss=loss)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """peft's, in the same precision."""
        with self._anatomy.autocast():
            return super().generate(*args, **kwargs)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Peft's. Embeddings are never trained; left to find out by itself, peft asks the hub at every checkpoint."""
        super().save_pretrained(*args, **{"save_embedding_layers": False, **kwargs})


def attach(
    backbone: PreTrainedModel | Trunk,
    rank: int,
    alpha: int,
    dropout: float,
    gradient_checkpointing: bool,
    last_layers: int | None = None,
    runtime: Runtime | None = None,
) -> LowRankModel:
    """Low-rank adapters on the linear layers of a frozen backbone (Dettmers et al., 2023).

    Args:
        backbone: frozen; a loaded model, or the trunk over it.
        rank, alpha, dropout: of the adapters.
        gradient_checkpointing: layers that gradients pass through are recomputed in the backward pass.
        last_layers: decoder layers that get adapters, counted from the last; the layers below are read through a tap
            and keep nothing for the backward pass. None: every linear layer but the head, and gradients everywhere.
        runtime: how it runs.

    Experts are no linear layers but stacked parameters: of gpt-oss the attention alone is adapted.

    Raises:
        UserError: where peft would adapt stacked experts (Mixtral, Qwen3-MoE).
    """
    whole = backbone if isinstance(backbone, PreTrainedModel) else backbone.whole()
    keep_differentiable(whole)
    if last_layers is None:
        if gradient_checkpointing:
            recompute_layers(whole)
        return _with_adapters(whole, on_all_layers(whole, rank, alpha, dropout), runtime)
    reads = len(anatomy_of(whole).layers) - last_layers
    if not isinstance(backbone, PreTrainedModel):
        backbone.hold(range(reads + 1, reads + last_layers + 1))
    model = _with_adapters(backbone, on_last_layers(whole, last_layers, rank, alpha, dropout), runtime, reads)
    if gradient_checkpointing:
        recompute_layers(whole, from_embeddings=False)
    return model


def _with_adapters(
    backbone: PreTrainedModel | Trunk, config: LoraConfig, runtime: Runtime | None, reads: int | None = None
) -> LowRankModel:
    model = LowRankModel(backbone, config, runtime, reads)
    if getattr(model.peft_config["default"], "target_parameters", None):
        raise UserError(
            f"method=qlora is not supported for {model.bare_backbone.config.model_type}: peft adapts its stacked "
            "experts by other means than low-rank matrices on linear layers, and such adapters are not read here. Use "
            "method=ladder."
        )
    return model
