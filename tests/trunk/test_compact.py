"""Settings that save memory leave the training as it was."""

from dataclasses import replace

import pytest
import torch

from ladder_cli.bench.counts import saved_activation_bytes
from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.projections import DownProjections
from ladder_cli.nn.saved_taps import CompactProjection, EightBits
from ladder_cli.nn.side_network import in_type
from ladder_cli.trunk.compact import QuantizedHead, chunk_feed_forward, keep_embeddings_on_cpu, make_lean, quantize_head
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone
from tests.conftest import loss_curve, random_backbone

MODEL = ModelConfig(name="tiny", path="builtin:tiny", dtype="float32", side_reduction=2)
PLAIN = dict(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2)
IDS = torch.randint(5, 400, (2, 40), generator=torch.Generator().manual_seed(0))
LABELS = IDS.clone().index_fill_(1, torch.arange(10), -100)


def losses(model: ModelConfig, chunk: int = 512, steps: int = 8, dtype: str = "float32", **method) -> torch.Tensor:
    """The loss curve of a short training."""
    torch.manual_seed(0)
    model = ModelConfig(**{**vars(model), "dtype": dtype})
    attached = method_for(LadderMethodConfig(**PLAIN, **method)).attach(
        LiveTrunk(load_backbone(model, torch.device("cpu"))), loss_chunk=chunk
    )
    trained = [p for p in attached.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=4e-3)
    return torch.tensor(loss_curve(attached, optimizer, IDS, LABELS, steps))


def test_exact_settings_together_leave_the_loss_curve_as_it_was():
    plain = losses(MODEL, recompute=False)
    lean = losses(ModelConfig(**{**vars(MODEL), "mlp_chunk": 7}), chunk=11, recompute=True)
    assert plain[-1] < 0.9 * plain[0]
    torch.testing.assert_close(lean, plain, rtol=1e-5, atol=1e-5)


def test_eight_bit_taps_change_the_loss_curve_by_less_than_bfloat16_does():
    plain = losses(MODEL, recompute=False)
    rounded = losses(MODEL, recompute=False, int8_taps=True)
    coarse = losses(MODEL, recompute=False, dtype="bfloat16")
    assert not torch.equal(rounded, plain)
    assert (rounded - plain).abs().max() < (coarse - plain).abs().max()


def test_in_bfloat16_all_lean_settings_together_stay_within_its_noise():
    exact = losses(MODEL, recompute=False)
    plain = losses(MODEL, recompute=False, dtype="bfloat16")
    lean = ModelConfig(**{**vars(MODEL), "mlp_chunk": 7})
    lean = losses(lean, chunk=11, recompute=True, int8_taps=True, dtype="bfloat16")
    assert not torch.equal(lean, plain)
    assert (lean - plain).abs().max() < (plain - exact).abs().max() / 2


@pytest.mark.parametrize("kind", ["full", "low_rank", "shared"])
def test_the_gradient_of_an_eight_bit_tap_is_near_the_exact_one_even_beside_huge_channels(kind):
    torch.manual_seed(0)
    down = DownProjections(kind, 64, 16, [0, 1], 4, "none")
    tap = torch.randn(2, 30, 64)
    tap[..., 3] *= 1000  # as hidden states have them
    wanted = torch.randn(2, 30, 16)
    exact = down.of(1)
    (exact(tap) * wanted).sum().backward()
    first = next(exact.parameters())
    expected, first.grad = first.grad.clone(), None
    result = in_type(torch.float32, CompactProjection(exact, EightBits()), tap)
    torch.testing.assert_close(result, exact(tap))
    (result * wanted).sum().backward()
    error = (first.grad - expected).norm(dim=0) / expected.norm(dim=0)
    assert error.max() < 0.02


class KeptEmbeddings:
    """A trunk whose embeddings cannot be recomputed."""

    def __init__(self, trunk):
        self.trunk = trunk

    def taps(self, *args, **more):
        return replace(self.trunk.taps(*args, **more), embed=None)


@pytest.mark.parametrize(("architecture", "spared"), [("qwen2", 1), ("llama", 1), ("gpt2", 0)])
@pytest.mark.parametrize("tap_norm", ["none", "rms"])
def test_embeddings_are_looked_up_again_for_the_backward_pass_where_the_first_layer_reads_them(
    architecture, spared, tap_norm
):
    """GPT-2 adds positions to them first, so that its first layer reads something else."""
    ids = torch.randint(2, 90, (2, 9))
    kept, gradients = [], []
    for again in (True, False):
        torch.manual_seed(0)
        backbone = random_backbone(architecture)
        model = LadderModel.on(backbone, connect(4, "last", layers=4), reduction=2, tap_norm=tap_norm)
        torch.nn.init.normal_(model.side.combine.up.weight)
        if not again:
            model.trunk = KeptEmbeddings(model.trunk)
        kept.append(saved_activation_bytes(model, ids, ids))
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append(model.side.down.of(0).weight.grad)
    assert gradients[0].norm() > 0
    assert torch.equal(*gradients)
    assert kept[1] - kept[0] == spared * ids.numel() * backbone.config.hidden_size * 4


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_a_quantised_head_gives_nearly_the_same_logits_and_passes_gradients_on(kind, monkeypatch):
    monkeypatch.setattr("ladder_cli.trunk.compact.VOCABULARY_BLOCK", 160)  # 576 tokens in four blocks
    model = load_backbone(MODEL, torch.device("cpu"))
    hidden = torch.randn(6, 192, requires_grad=True)
    expected = model.get_output_embeddings()(hidden)
    (wanted,) = torch.autograd.grad(expected.sum(), hidden)
    quantize_head(model, kind)
    head = model.get_output_embeddings()
    assert isinstance(head, QuantizedHead)
    assert [block.out_features for block in head.blocks] == [160, 160, 160, 96]
    logits = head(hidden)
    (gradient,) = torch.autograd.grad(logits.sum(), hidden)
    tolerance = 0.02 if kind == "int8" else 0.15
    assert (logits - expected).norm() / expected.norm() < tolerance
    assert (gradient - wanted).norm() / wanted.norm() < 2 * tolerance


def test_qlora_leaves_a_quantised_head_alone():
    model = ModelConfig(**{**vars(MODEL), "head_quantization": "nf4"})
    config = QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3, rank=4)
    attached = method_for(config).attach(LiveTrunk(load_backbone(model, torch.device("cpu"))))
    assert not [name for name, _ in attached.named_parameters() if "blocks" in name and "lora" in name]


def test_feed_forward_layers_see_no_more_positions_than_a_chunk_has():
    model = random_backbone("llama")
    seen = []
    for layer in model.model.layers:
        layer.mlp.up_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    ids = torch.randint(2, 90, (2, 17))
    expected = model(ids).logits
    assert set(seen) == {17}
    seen.clear()
    chunk_feed_forward(model, 5)
    torch.testing.assert_close(model(ids).logits, expected)
    assert seen == [5, 5, 5, 2] * 4


def test_embeddings_stay_on_the_host_and_their_vectors_go_to_the_device():
    model = random_backbone("llama")
    keep_embeddings_on_cpu(model, torch.device("meta"))  # a device that is not the host
    embeddings = model.get_input_embeddings()
    assert embeddings.weight.device.type == "cpu"
    assert embeddings(torch.tensor([[3, 4]])).device.type == "meta"
    model.to("meta")  # as the trainer does, and accelerate once more
    assert {name for name, weight in model.named_parameters() if not weight.is_meta} == {"model.embed_tokens.weight"}


def test_embeddings_on_the_host_give_the_same_vectors():
    model = random_backbone("llama")  # its head has weights of its own
    ids = torch.randint(2, 90, (2, 9))
    expected = model(ids).logits
    keep_embeddings_on_cpu(model, torch.device("cpu"))
    assert torch.equal(model(ids).logits, expected)


def test_what_a_model_cannot_do_is_said_by_name():
    tied = random_backbone("qwen2")
    with pytest.raises(UserError, match="head_quantization=int8"):
        keep_embeddings_on_cpu(tied, torch.device("cpu"))
    with pytest.raises(UserError, match="output head has a bias"):
        quantize_head(random_backbone("phi"), "int8")
    with pytest.raises(UserError, match="mlp_chunk is not supported for OPTDecoderLayer"):
        make_lean(random_backbone("opt"), ModelConfig(name="x", mlp_chunk=4), torch.device("cpu"))
