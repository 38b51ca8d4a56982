"""First weights out of the backbone's: what is kept, by what importance, on what storage."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from ladder_cli.errors import UserError
from ladder_cli.nn.connections import connect
from ladder_cli.nn.importance import by_fisher, by_magnitude
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.layer_weights import matrices, weight_of
from ladder_cli.trunk.base import Batch
from ladder_cli.trunk.loading import load_backbone
from ladder_cli.trunk.parts import anatomy_of
from tests.conftest import random_backbone


def example(seed: int, length: int = 11) -> Batch:
    ids = torch.randint(2, 97, (1, length), generator=torch.Generator().manual_seed(seed))
    return Batch(ids, ids, torch.ones_like(ids))


def pruned(backbone, reduction=2, pattern="aligned", layers=None, **shape) -> LadderModel:
    shape.setdefault("init", "pruned_magnitude")
    return LadderModel.on(backbone, connect(4, pattern, layers), reduction=reduction, **shape)


def with_noise(architecture):
    """Norms and biases are ones and zeros in a fresh model; here every value is its own."""
    backbone = random_backbone(architecture)
    generator = torch.Generator().manual_seed(8)
    for parameter in backbone.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return backbone


def test_at_full_width_the_side_layers_are_the_backbones_own(architecture):
    backbone = with_noise(architecture)
    config = backbone.config
    if getattr(config, "head_dim", None) not in (None, config.hidden_size // config.num_attention_heads):
        pytest.skip("a narrow head is not as wide as this architecture's own at any reduction")
    model = pruned(backbone, reduction=1)
    for own, side in zip(anatomy_of(backbone).layers, model.side.layers, strict=True):
        for name, value in own.state_dict().items():
            assert torch.equal(side.state_dict()[name], value), name


def test_unfed_layers_take_after_the_layer_at_their_height():
    backbone = with_noise("llama")
    model = pruned(backbone, reduction=1, pattern=[[1, 1]], layers=2)
    for number, source in enumerate((0, 3)):
        expected = backbone.model.layers[source].mlp.up_proj.weight
        assert torch.equal(model.side.layers[number].mlp.up_proj.weight, expected)


def test_every_pruned_matrix_is_a_part_of_the_backbones(architecture):
    backbone = with_noise(architecture)
    model = pruned(backbone)
    for own, side in zip(anatomy_of(backbone).layers, model.side.layers, strict=True):
        sources = {matrix.name: weight_of(matrix.module) for matrix in matrices(own, "")}
        for matrix in matrices(side, ""):
            values = weight_of(matrix.module)
            assert torch.isin(values, sources[matrix.name]).all(), matrix.name
            # A few of thousands of random values may be equal by chance.
            assert values.unique().numel() > 0.99 * values.numel(), "rows or columns were taken twice"


def test_the_side_reads_the_channels_that_its_blocks_were_cut_for():
    backbone = with_noise("llama")
    model = pruned(backbone, combine="side")
    channels = model.side.down.of(0).weight.argmax(1)
    assert torch.equal(model.side.combine.up.weight.argmax(0), channels)
    assert torch.equal(
        model.side.layers[2].input_layernorm.weight, backbone.model.layers[2].input_layernorm.weight[channels]
    )
    assert torch.equal(model.side.combine.norm.weight, backbone.model.norm.weight[channels])


@pytest.mark.parametrize("rotated", ["llama", "phi"])
def test_kept_head_dimensions_keep_their_rotary_frequencies(rotated):
    backbone = random_backbone(rotated)
    anatomy = anatomy_of(backbone)
    for layer in anatomy.layers:  # a row's value tells which dimension of which head it was
        layer.self_attn.k_proj.weight.data[:] = torch.arange(len(layer.self_attn.k_proj.weight))[:, None].float()
    model = pruned(backbone)
    kept = model.side.layers[1].self_attn.k_proj.weight[:, 0].long() % (64 // 4)
    wide, narrow = anatomy.rotary.inv_freq, model.side.rotary.inv_freq
    half = len(narrow)
    torch.testing.assert_close(wide[kept[:half]], narrow)
    assert torch.equal(kept[half : 2 * half], kept[:half] + len(wide)), "a rotated dimension lost its partner"


def test_what_matters_most_is_kept():
    backbone = random_backbone("llama")
    kept_units = torch.tensor([3, 50, 77])
    for layer in backbone.model.layers:
        layer.mlp.up_proj.weight.data[kept_units] *= 50
    model = pruned(backbone)
    values = model.side.layers[0].mlp.up_proj.weight
    assert (values.abs().sum(1) > 10 * values.abs().sum(1).median()).sum() == len(kept_units)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_fisher_importance_is_the_sum_of_squared_gradients(name):
    backbone = random_backbone(name)
    examples = [example(0), example(1, 7)]
    found = by_fisher(backbone, anatomy_of(backbone), examples)
    assert not any(parameter.grad is not None for parameter in backbone.parameters())

    backbone.requires_grad_(True)
    for number, layer in enumerate(anatomy_of(backbone).layers):
        for matrix in matrices(layer, name):
            expected = 0.0
            for batch in examples:
                ids = batch.input_ids
                logits = backbone(ids).logits
                loss = cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")
                (gradient,) = torch.autograd.grad(loss, matrix.module.weight)
                expected = expected + (gradient.T if name == "gpt2" else gradient) ** 2
            torch.testing.assert_close(found[number, matrix.name].rows, expected.sum(1), rtol=1e-4, atol=1e-9)
            torch.testing.assert_close(found[number, matrix.name].columns, expected.sum(0), rtol=1e-4, atol=1e-9)


def test_fisher_without_a_sample_is_refused():
    with pytest.raises(UserError, match="needs a sample"):
        pruned(random_backbone("llama"), init="pruned_fisher")


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_backbone_is_pruned_by_its_dequantised_weights(tiny_config, quantization):
    device = torch.device("cpu")
    plain = load_backbone(tiny_config, device)
    quantised = load_backbone(replace(tiny_config, quantization=quantization, dtype="float32"), device)
    importance = by_magnitude(anatomy_of(quantised))
    exact = by_magnitude(anatomy_of(plain))
    for key, own in importance.items():
        assert (own.rows - exact[key].rows).abs().mean() < 0.05 * exact[key].rows.mean()
    batch, stored = example(0), weight_of(quantised.model.layers[0].mlp.up_proj)
    model = LadderModel.on(quantised, connect(6, "aligned"), reduction=2, init="pruned_fisher", sample=[batch])
    assert torch.isfinite(model(**batch.inputs, labels=batch.labels).loss)
    assert torch.isin(model.side.layers[0].mlp.up_proj.weight, stored).all()


def test_a_backbone_packed_for_the_cpu_is_refused(tiny_config):
    backbone = load_backbone(replace(tiny_config, quantization="nf4", dtype="bfloat16"), torch.device("cpu"))
    backbone(example(0).input_ids)
    packed = any(getattr(getattr(m, "weight", None), "quant_state", None) is not None
                 and m.weight.quant_state.packing_format_for_cpu for m in backbone.modules()
                 if hasattr(getattr(m, "weight", None), "quant_state"))  # fmt: skip
    if not packed:
        pytest.skip("this CPU has no avx512_bf16, or the shapes of this model cannot be packed")
    with pytest.raises(UserError, match="load it afresh"):
        LadderModel.on(backbone, connect(6, "aligned"), reduction=2, init="pruned_magnitude")
