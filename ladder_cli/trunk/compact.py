"""What can be taken off the card, or made smaller, once a backbone is loaded: embeddings, head, feed-forward layers.

Each changes a loaded model in place and leaves what it computes as it was (the head: up to its quantisation).
"""

from collections.abc import Callable
from typing import Any

import bitsandbytes
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ladder_cli.config.choices import Quantization
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.trunk.parts import anatomy_of

# Rows of the vocabulary whose weights are dequantised at a time: 16,384 x 3,584 in bfloat16 are 117 MB at 7B.
VOCABULARY_BLOCK = 16_384
MakeLinear = Callable[[Tensor], nn.Module]


class QuantizedHead(nn.Module):
    """An output head in blocks of the vocabulary, so that no more than one block is ever dequantised at a time."""

    def __init__(self, weight: Tensor, make_linear: MakeLinear) -> None:
        """`weight`: `[vocabulary, d]`; `make_linear`: a quantised layer without bias for some of its rows."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.blocks = nn.ModuleList(make_linear(rows) for rows in weight.split(VOCABULARY_BLOCK))

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., d]` to logits `[..., vocabulary]`."""
        return torch.cat([block(hidden) for block in self.blocks], dim=-1)


def make_lean(
    model: PreTrainedModel, options: ModelConfig, device: torch.device, make_linear: MakeLinear | None = None
) -> None:
    """Apply what the options ask for.

    Args:
        model: loaded.
        options: `head_quantization`, `embeddings_on_cpu`, `mlp_chunk`.
        device: where the model computes.
        make_linear: see `quantize_head`.

    Raises:
        UserError: if the model is not made so that it can be done.
    """
    if options.head_quantization is not Quantization.NONE:
        quantize_head(model, options.head_quantization, make_linear)
    if options.embeddings_on_cpu:
        keep_embeddings_on_cpu(model, device)
    if options.mlp_chunk is not None:
        chunk_feed_forward(model, options.mlp_chunk)


def quantize_head(model: PreTrainedModel, kind: Quantization, make_linear: MakeLinear | None = None) -> None:
    """Put a quantised copy in place of the output head; tied embeddings keep their own weights.

    Args:
        model: its head is a linear layer without bias.
        kind: `int8` or `nf4`.
        make_linear: what makes a quantised layer of some rows, by default bitsandbytes.

    Raises:
        UserError: if the head has a bias.
    """
    head: Any = model.get_output_embeddings()
    if head.bias is not None:
        raise UserError(
            f"model.head_quantization={kind} is not supported for {model.config.model_type}, whose output head has a "
            "bias: use model.head_quantization=none."
        )
    model.set_output_embeddings(QuantizedHead(head.weight.detach(), make_linear or quantized_linear(kind)))


def quantized_linear(kind: Quantization) -> MakeLinear:
    """Makes a bitsandbytes layer of a weight `[out, in]`, on the weight's device; `kind` is int8 or nf4."""
    build = _QUANTIZED[kind]

    def make(weight: Tensor) -> nn.Module:
        return build(weight).to(weight.device).eval()  # bitsandbytes quantises on this move

    return make


def _int8(weight: Tensor) -> nn.Module:
    rows, columns = weight.shape
    layer: Any = bitsandbytes.nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False)
    layer.weight = bitsandbytes.nn.Int8Params(
        weight.to("cpu", torch.float16), requires_grad=False, has_fp16_weights=False
    )
    return layer


def _nf4(weight: Tensor) -> nn.Module:
    rows, columns = weight.shape
    layer: Any = bitsandbytes.nn.Linear4bit(
        columns, rows, bias=False, compute_dtype=weight.dtype, compress_statistics=True, quant_type="nf4"
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        weight.to("cpu", copy=True), requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    # Gradients pass through the head, and the packed product has none (`parts.keep_differentiable`).
    layer.support_avx512bf16_for_cpu = False
    return layer


_QUANTIZED: dict[Quantization, MakeLinear] = {Quantization.INT8: _int8, Quantization.NF4: _nf4}


def keep_embeddings_on_cpu(model: PreTrainedModel, device: torch.device) -> None:
    """Look tokens up in the host's memory; only the rows that are asked for travel to `device`.

    Raises:
        UserError: if the output head shares the embeddings' weights, which have to be on the card then.
    """
    refuse_shared_embeddings(model)
    embeddings = model.get_input_embeddings()
    embeddings.to("cpu")
    # Who moves the whole model (the trainer does) leaves them where they are.
    embeddings._apply = lambda *_, **__: embeddings  # type: ignore[method-assign]
    embeddings.register_forward_pre_hook(lambda module, args: tuple(ids.to("cpu") for ids in args))
    embeddings.register_forward_hook(lambda module, args, vectors: vectors.to(device))


def refuse_shared_embeddings(model: PreTrainedModel) -> None:
    """Refuse a model whose token embeddings cannot be anywhere but where its output head is.

    Raises:
        UserError: if the two share their weights.
    """
    head: Any = model.get_output_embeddings()
    if getattr(head, "weight", None) is model.get_input_embeddings().weight:
        raise UserError(
            "model.embeddings_on_cpu=true: the output head of this model shares the embeddings' weights and needs "
            "them on the card: leave it out (model.embeddings_on_cpu=false), or give the head its own copy with "
            "model.head_quantization=int8 or nf4."
        )


def chunk_feed_forward(model: PreTrainedModel, tokens: int) -> None:
    """Let the feed-forward part of every layer see at most `tokens` positions at a time.

    Raises:
        UserError: if the layers' feed-forward part is no module of its own.
    """
    for layer in anatomy_of(model).layers:
        mlp = getattr(layer, "mlp", None)
        if not isinstance(mlp, nn.Module):
            raise UserError(
                f"model.mlp_chunk is not supported for {type(layer).__name__}, whose feed-forward part is no module of "
                "its own: leave it out."
            )
        _in_chunks(mlp, tokens)


def _in_chunks(module: nn.Module, tokens: int) -> None:
    whole = module.forward

    def forward(hidden: Tensor) -> Tensor:
        if hidden.shape[1] <= tokens:
            return whole(hidden)
        return torch.cat([whole(piece) for piece in hidden.split(tokens, dim=1)], dim=1)

    module.forward = forward
