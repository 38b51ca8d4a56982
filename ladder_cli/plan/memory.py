"""Peak memory of a training step before any weight is read: the step itself, run on fake tensors.

Storages are counted as they live and die (`plan.allocation`), quantised weights at their real size
(`plan.fake_backbone`). It takes seconds for a 70B model and needs neither a GPU nor a download.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ladder_cli.config.choices import Optimizer, Passes, Quantization, Residency
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.methods.base import Method
from ladder_cli.plan.allocation import BACKWARD, TAPS, AllocationCount
from ladder_cli.plan.counting import (
    CountingRows,
    CountingTrunk,
    StoredTaps,
    counted_objective,
    fake_loss,
    mark_passes,
)
from ladder_cli.plan.fake_backbone import (
    fold_experts,
    materialise_fake,
    one_document_a_row,
    quantize_shapes,
    quantized_shape,
)
from ladder_cli.plan.sampling import SAMPLING, sampling_bytes
from ladder_cli.plan.sharded_layers import share_layers
from ladder_cli.plan.streamed_layers import ShapeTrunk, stream_layers
from ladder_cli.trunk.base import Batch, TrainableModule
from ladder_cli.trunk.compact import make_lean, refuse_shared_embeddings
from ladder_cli.trunk.loading import architecture, backbone_shape, has_sdpa
from ladder_cli.trunk.parts import refused_by_name

WEIGHTS, TRAINED, GRADIENTS, OPTIMIZER, CACHE = "weights", "trained", "gradients", "optimizer", "cache"
# bitsandbytes' 8-bit Adam: two bytes a parameter and two float32 scales for 256 of them; small tensors stay float32.
_EIGHT_BIT_BLOCK, _EIGHT_BIT_SMALLEST = 256, 4096


@dataclass(frozen=True)
class Step:
    """What one optimizer step does.

    Attributes:
        rows, tokens: shape of a micro-batch; every token counts for the loss, the most there can be.
        accumulation: micro-batches whose gradients are summed.
        optimizer: `adamw`, `adamw_8bit` or `paged_adamw_8bit`.
        loss_chunk: counted tokens whose logits exist at the same time.
        shards: processes that hold the layers together; 1 where each holds them all.
        residency: where the layers are while they do not compute; never `auto`.
        window: of streamed layers, how many are there at a time.
        passes: rows go through a backbone that is only read alone, or a micro-batch together.
        cached: bytes of taps that are kept in the host's memory.
        absent: layers that are not loaded, since their taps are there, from the first on.
        on_host: the host is what computes.
        objective: what is minimised.
        rows_each: rows of an example, which stay in one micro-batch.
        sampled: completions that are generated at a time, with the prompt of so many tokens that `tokens` leave; 0:
            none are.
    """

    rows: int
    tokens: int
    accumulation: int
    optimizer: Optimizer
    loss_chunk: int
    shards: int = 1
    residency: Residency = Residency.RESIDENT
    window: int = 2
    passes: Passes = Passes.BATCH
    cached: int = 0
    absent: int = 0
    on_host: bool = False
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    rows_each: int = 1
    sampled: int = 0


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes at the peak of a training step, by part.

    Attributes:
        parts: `weights` (the frozen backbone), `trained`, `gradients`, `optimizer`, `taps`, `activations`, `loss`
            (logits of a chunk, gradient of the hidden states), `backward` (what computing gradients takes for a
            moment), `backbone` (what its forward pass takes for a moment), `gathered` (of several processes' layers
            the one that runs), `window` (of streamed layers those that are there), `cache` (taps that are kept),
            `sampling` (keys, values and logits of completions) and `vllm` (all that it takes, in a process of its
            own); those that are there at the peak.
        host: bytes that were left in the host's memory.
        stays: what lasts from step to step beside the weights: `trained`, `gradients` (all of them), `optimizer`.
        passes: what is there for a moment at most beside that and the taps, by part.
        moved: bytes of layers that come to the device in every pass.
    """

    parts: dict[str, int]
    host: int = 0
    stays: dict[str, int] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    moved: int = 0

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return sum(self.parts.values())


def predict_memory(model: ModelConfig, method: Method, dtype: torch.dtype, step: Step) -> MemoryPrediction:
    """Run one training step on fake tensors; of an equal model, method and step that was asked for before, remember it.

    What the device's libraries take for themselves (CUDA's context, about half a gigabyte) and what its allocator
    loses to fragments are not in it. The kernels are those of the CPU, whose SDPA keeps as much as CUDA's flash
    attention; with `model.attention=eager` the attention weights are counted too. Rows of several examples count as
    padded to one length, which needs an attention mask.

    Args:
        model: the backbone and how it is stored.
        method: what is trained.
        dtype: the type that the backbone computes in.
        step: what one step does.

    Raises:
        UserError: if the backbone's shape cannot be read, or the method does not fit it.
    """
    shape = architecture(model).to_json_string(use_diff=False)  # of a folder that may have changed meanwhile
    # The runs of a sweep differ in what costs no memory.
    asked = repr((shape, model, replace(method.config, learning_rate=0.0), dtype, step))
    if asked not in _PREDICTED:
        _PREDICTED[asked] = _predicted(model, method, dtype, step)
    found = _PREDICTED[asked]
    return replace(found, parts=dict(found.parts), stays=dict(found.stays), passes=dict(found.passes))


_PREDICTED: dict[str, MemoryPrediction] = {}


def _predicted(model: ModelConfig, method: Method, dtype: torch.dtype, step: Step) -> MemoryPrediction:
    with torch.device("meta"):
        trunk = _shape(model, dtype)
        trained = method.shape(trunk, step.objective.refers).train()
    host = 0
    with FakeTensorMode(), AllocationCount() as count:
        materialise_fake(trained)
        for tensor in (*trained.parameters(), *trained.buffers()):
            count.move(tensor, TRAINED if tensor.requires_grad else WEIGHTS)
        if model.embeddings_on_cpu:
            host = count.forget(trunk.parts.embeddings.get_parameter("weight"))
        for layer in trunk.parts.layers[: step.absent]:
            for tensor in (*layer.parameters(), *layer.buffers()):
                count.forget(tensor)
        if step.shards > 1:
            share_layers(trunk.parts.layers, step.shards, count)
            trunk.hang()  # behind what frees a layer, as over layers that are really sharded
        moved = 0
        if step.residency is not Residency.RESIDENT:
            moved, whole = stream_layers(trunk, trained.request, step.window, count)
            host += whole if step.residency is Residency.HOST else 0
        sampling = (
            sampling_bytes(trained, step.sampled, step.tokens, step.objective.max_new_tokens, count)
            if step.sampled
            else 0
        )
        count.reset_peak()
        parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        mark_passes(trained, count, StoredTaps if step.absent else _READ[step.passes])
        with refused_by_name(trunk.whole(), "a step cannot be planned"), one_document_a_row():
            _micro_batch(trained, parameters, step, count)
    optimizer = sum(optimizer_bytes(parameter.shape, step.optimizer) for parameter in parameters)
    backward = Counter(count.peak) + Counter({OPTIMIZER: optimizer})
    size = 4 * sum(parameter.numel() for parameter in parameters)
    at_rest = Counter({part: count.live[part] for part in (WEIGHTS, TRAINED)})
    updating = Counter({BACKWARD: updating_bytes([parameter.shape for parameter in parameters], step.optimizer)})
    update = at_rest + updating + Counter({GRADIENTS: size, OPTIMIZER: optimizer})
    passes = Counter({part: count.peak[part] for part in count.peak.keys() - {WEIGHTS, TRAINED, GRADIENTS, TAPS}})
    moment = max((passes, updating), key=Counter.total)
    # No gradient is kept from one step to the next.
    generating = at_rest + Counter({OPTIMIZER: optimizer, SAMPLING: sampling})
    peak = max((backward, update, generating), key=Counter.total) + Counter({CACHE: step.cached if step.on_host else 0})
    return MemoryPrediction(
        dict(peak),
        host if step.on_host else host + step.cached,
        {TRAINED: count.live[TRAINED], GRADIENTS: size, OPTIMIZER: optimizer},
        dict(moment),
        moved,
    )


_READ: dict[Passes, type[CountingTrunk]] = {Passes.BATCH: CountingTrunk, Passes.ROW: CountingRows}


def _shape(model: ModelConfig, dtype: torch.dtype) -> ShapeTrunk:
    """The backbone without weights, on the default device, stored as the model's config asks."""
    # Flash attention runs on no fake tensor, and keeps what SDPA keeps.
    countable = "eager" if model.attention == "eager" or not has_sdpa(architecture(model)) else "sdpa"
    backbone = backbone_shape(model, dtype, countable).requires_grad_(False)
    fold_experts(backbone)
    if model.quantization is not Quantization.NONE:
        quantize_shapes(backbone, model.quantization, keep=backbone.get_output_embeddings())
    # Where embeddings are is for the count to say.
    options = replace(model, embeddings_on_cpu=False)
    make_lean(backbone, options, torch.device("meta"), partial(quantized_shape, kind=model.head_quantization))
    if model.embeddings_on_cpu:
        refuse_shared_embeddings(backbone)
    return ShapeTrunk(backbone)


def _micro_batch(trained: TrainableModule, parameters: list[nn.Parameter], step: Step, count: AllocationCount) -> None:
    """Forward and backward, the last of a step's micro-batches."""

    def note_gradient(parameter: Tensor) -> None:
        assert parameter.grad is not None
        count.move(parameter.grad, GRADIENTS)

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(note_gradient)
        if step.accumulation > 1:
            parameter.grad = torch.empty_like(parameter)
            count.move(parameter.grad, GRADIENTS)
    ids = torch.zeros(step.rows, step.tokens, dtype=torch.long)
    mask = torch.ones_like(ids) if step.rows > 1 else None
    loss = fake_loss(trained, Batch(ids, ids.clone(), mask), counted_objective(step.objective, step.loss_chunk, count))
    count.in_backward = True
    loss.backward()
    count.in_backward = False


def optimizer_bytes(shape: Sequence[int], optimizer: Optimizer) -> int:
    """State that an optimizer keeps on the device for one trained tensor of this shape."""
    return _STATE_BYTES[optimizer](shape)


def _adamw_bytes(shape: Sequence[int]) -> int:
    return 8 * math.prod(shape)


def _eight_bit_bytes(shape: Sequence[int]) -> int:
    parameters = math.prod(shape)
    if parameters < _EIGHT_BIT_SMALLEST:
        return _adamw_bytes(shape)  # bitsandbytes leaves small tensors in float32
    return 2 * parameters + 2 * 4 * math.ceil(parameters / _EIGHT_BIT_BLOCK)


def _paged_bytes(shape: Sequence[int]) -> int:
    return 0 if math.prod(shape) >= _EIGHT_BIT_SMALLEST else _adamw_bytes(shape)


def _muon_bytes(shape: Sequence[int]) -> int:
    return 4 * math.prod(shape) if len(shape) == 2 else _adamw_bytes(shape)


_STATE_BYTES: dict[Optimizer, Callable[[Sequence[int]], int]] = {
    Optimizer.ADAMW: _adamw_bytes,
    Optimizer.ADAMW_8BIT: _eight_bit_bytes,
    Optimizer.PAGED_ADAMW_8BIT: _paged_bytes,
    Optimizer.MUON: _muon_bytes,
}


def updating_bytes(shapes: Sequence[Sequence[int]], optimizer: Optimizer) -> int:
    """What a step of an optimizer takes for a moment beside its state, over trained tensors of these shapes."""
    return _UPDATING_BYTES[optimizer](shapes)


def _adamw_updating(shapes: Sequence[Sequence[int]]) -> int:
    return sum(4 * math.prod(shape) for shape in shapes)  # square roots of all second moments at once


def _muon_updating(shapes: Sequence[Sequence[int]]) -> int:
    # One matrix after the other: its update in float32, twice in bfloat16 (once more as a CPU's product packs it), and
    # two squares of its short side.
    matrices = [10 * math.prod(shape) + 4 * min(shape) ** 2 for shape in shapes if len(shape) == 2]
    return max([*matrices, _adamw_updating([shape for shape in shapes if len(shape) != 2])])


_UPDATING_BYTES: dict[Optimizer, Callable[[Sequence[Sequence[int]]], int]] = {
    Optimizer.ADAMW: _adamw_updating,
    Optimizer.ADAMW_8BIT: lambda shapes: 0,
    Optimizer.PAGED_ADAMW_8BIT: lambda shapes: 0,
    Optimizer.MUON: _muon_updating,
}
