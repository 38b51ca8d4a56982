"""A side network below a suffix: the layers under both are read and no more, and what cannot be is told in a line."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from ladder_cli.config.choices import Optimizer
from ladder_cli.config.compose import composed
from ladder_cli.config.methods import LadderMethodConfig, SuffixMethodConfig
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import load_adapter, method_for
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.ladder_config import LadderConfig
from ladder_cli.nn.objective import NextToken
from ladder_cli.plan.memory import Step, predict_memory
from ladder_cli.serve.dense import densify
from ladder_cli.serve.ladder_folder import write_ladder_folder
from ladder_cli.trunk.base import Batch, TapRequest, TrunkCost
from ladder_cli.trunk.live import LiveTrunk
from tests.conftest import model_preset, random_backbone
from tests.malformed import run_command
from tests.methods.watching import watched

NAME = "nowhere/random"


def config(**changes):
    values = dict(suffix_layers=2, rank=4, alpha=8, reduction=2, recompute=False, learning_rate=1e-3)
    return LadderMethodConfig(name="ladder-suffix", kind="ladder", **(values | changes))


def attached(family="llama", dtype=torch.float32, **changes):
    """A model whose every trained weight is away from its start."""
    model = method_for(config(**changes)).attach(LiveTrunk(random_backbone(family).to(dtype), NAME))
    torch.manual_seed(2)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn_like(weight)
    return model


def reference(model, ids):
    """Logits of a llama by the formula, with nothing of our forward passes: layer by layer, and matrices added up."""
    backbone, side = model.backbone, model.side
    decoder = backbone.model
    hidden = decoder.embed_tokens(ids)
    positions = torch.arange(ids.shape[1])[None]
    rope = decoder.rotary_emb(hidden, positions)
    state, below = side.down(0, hidden), len(decoder.layers) - 2
    narrow = side.rotary(state, positions)
    for number, layer in enumerate(decoder.layers[:below], start=1):
        hidden = layer(hidden, position_embeddings=rope, position_ids=positions)
        state = side.layers[number - 1](
            state + side.down(number, hidden), position_embeddings=narrow, position_ids=positions
        )
    hidden = hidden + state @ side.combine.up.weight.T
    dense = densify(backbone, torch.float32)  # the low-rank product is in the weights from here on
    for layer in dense.model.layers[below:]:
        hidden = layer(hidden, position_embeddings=rope, position_ids=positions)
    return backbone.lm_head(decoder.norm(hidden))


def test_the_logits_are_those_of_the_formula(token_ids):
    model = attached().eval()
    with torch.no_grad():
        given = model(input_ids=token_ids).logits
        bare = model.backbone_logits(input_ids=token_ids)
        expected = reference(model, token_ids)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    assert (bare - expected).abs().max() > 0.01


@pytest.mark.parametrize("recomputed", [False, True])
def test_layers_below_the_suffix_see_no_gradient(token_ids, recomputed):
    model = attached(gradient_checkpointing=recomputed).train()
    needs_gradient, runs = watched(model.backbone.model.layers)
    model(input_ids=token_ids, labels=token_ids).loss.backward()
    assert needs_gradient == {0: False, 1: False, 2: True, 3: True}
    twice = 2 if recomputed else 1
    assert runs == {0: 1, 1: 1, 2: twice, 3: twice}
    learning = [name for name, weight in model.named_parameters() if weight.grad is not None]
    assert all("lora_" in name or name.startswith("sides.") for name in learning)
    assert {name.split(".layers.")[1][0] for name in learning if "lora_" in name} == {"2", "3"}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "opt"])
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_from_taps_is_training_through_the_whole_backbone(token_ids, family, recomputed, dtype):
    """Bit for bit: `hidden`, which begins at taps of whatever trunk, and `forward`, which runs the decoder once."""
    model = attached(family, dtype, gradient_checkpointing=recomputed).train()
    batch = Batch(token_ids, token_ids.clone(), torch.ones_like(token_ids))
    assert model.request == TapRequest(frozenset({1, 2}), final=False)
    gradients = []
    for loss in (
        lambda: model(**batch.inputs, labels=batch.labels, num_items_in_batch=1).loss,
        lambda: NextToken()(model.hidden(batch), batch).total,
        lambda: NextToken()(model.hidden(batch, model.trunk.taps(model.request, batch)), batch).total,
    ):
        model.zero_grad()
        torch.manual_seed(1)  # some architectures drop out in layers that learn
        value = loss()
        value.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for other in gradients[1:]:
        assert all(torch.equal(one, two) for one, two in zip(gradients[0], other, strict=True))
    assert any(bool(gradient.any()) for gradient in gradients[0])


def test_without_adapters_it_is_the_bare_backbone_again(token_ids):
    model = attached().eval()
    expected = random_backbone("llama")(token_ids).logits
    changed = model(input_ids=token_ids).logits
    learning = [name for name, weight in model.named_parameters() if weight.requires_grad]
    with model.disable_adapter():
        assert torch.equal(model(input_ids=token_ids).logits, expected)
        generated = model.generate(input_ids=token_ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert torch.equal(
        generated,
        random_backbone("llama").generate(input_ids=token_ids, max_new_tokens=3, do_sample=False, pad_token_id=0),
    )
    assert torch.equal(model.backbone_logits(input_ids=token_ids), expected)
    assert torch.equal(model(input_ids=token_ids).logits, changed)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == learning


def test_it_stands_on_its_backbone_alone(tmp_path):
    model = attached()
    model.save_pretrained(tmp_path / "suffixed")
    LadderModel.on(random_backbone("llama"), connect(4, "aligned"), reduction=2).save_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match=r"stands on its backbone alone"):
        model.load_adapter(tmp_path / "plain", "other")
    assert model.active_adapter == "default"
    plain = LadderModel.from_pretrained(tmp_path / "plain", backbone=random_backbone("llama"))
    with pytest.raises(UserError, match=r"stands on its backbone alone"):
        plain.load_adapter(tmp_path / "suffixed", "other")
    with pytest.raises(UserError, match=r"low-rank adapters are in this backbone already"):
        method_for(config()).attach(LiveTrunk(model.backbone, NAME))


def test_views_of_a_trunk_learn_each_by_itself(token_ids):
    trunk = LiveTrunk(random_backbone("llama"), NAME)
    batch, asked = Batch(token_ids), TapRequest(frozenset({2, 4}))
    before = trunk.taps(asked, batch)
    models = [method_for(config()).attach(trunk.view()) for _ in range(2)]
    for model in models:
        model(input_ids=token_ids, labels=token_ids).loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.grad is not None:
                    weight -= weight.grad
    after = trunk.taps(asked, batch)
    assert all(torch.equal(before.rungs[number], after.rungs[number]) for number in before.rungs)


def test_the_adapter_is_small_and_names_its_layers(tmp_path, token_ids):
    from safetensors.torch import load_file

    model = attached().eval()
    expected = model(input_ids=token_ids).logits
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(weight.numel() for weight in stored.values()) == sum(
        weight.numel() for weight in model.parameters() if weight.requires_grad
    )
    assert stored["suffix.3.self_attn.q_proj.lora_A"].shape == (4, 64)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (values["adapter_type"], values["suffix_layers"], values["rank"]) == ("ladder", 2, 4)
    assert torch.equal(load_adapter(tmp_path, random_backbone("llama"))(input_ids=token_ids).logits, expected)


def test_a_ladder_without_a_suffix_says_nothing_of_one(tmp_path):
    LadderModel.on(random_backbone("llama"), connect(4, "aligned"), reduction=2).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    assert not {"suffix_layers", "rank", "alpha", "dropout"} & values.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [("suffix_layers", "2"), ("suffix_layers", -1), ("rank", 10**6), ("rank", True), ("alpha", "x"), ("dropout", 1.5)],
)
def test_a_strangers_numbers_are_read_field_by_field(tmp_path, name, value):
    attached().save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(UserError, match=f"describes no ladder: its {name} is"):
        load_adapter(tmp_path, random_backbone("llama"))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["method.suffix_layers=4"], r"suffix_layers=4 leaves no layer to read of a backbone of 4: give at most 3"),
        (["method.suffix_layers=7"], r"suffix_layers=7 leaves no layer to read"),
        (["method.suffix_layers=-1"], r"method\.suffix_layers=-1 is too small"),
        (
            ["method.suffix_layers=2", "method.connections=[[2,1],[3,2]]", "method.layers=2"],
            r"backbone layer 3 is above .* behind layer 2 \(method\.suffix_layers=2\)",
        ),
        (["method.combine=side"], r"combine=side does not go with .* method\.combine=residual or gated"),
        (["method.init=cloned", "method.reduction=1"], r"init=cloned does not go with"),
        (["method=branch", "method.suffix_layers=2"], r"combine=replace does not go with"),
        (["method=lst", "method.suffix_layers=2"], r"combine=side does not go with"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(options, line):
    words = options if options[0].startswith("method=") else ["method=ladder-suffix", *options]
    with pytest.raises(UserError, match=line):
        method_for(composed("train", TrainConfig, ["model=tiny", *words]).method).attach(
            LiveTrunk(random_backbone("llama"), NAME)
        )


def test_what_only_a_suffix_reads_is_refused_without_one():
    status, _, errors = run_command("train", ["model=tiny", "method=ladder", "method.rank=8", "dry_run=true"])
    assert status == 2
    assert "method.rank is given, but nothing reads it: method.suffix_layers is 0; another value reads it" in errors


def test_the_python_interface_refuses_what_the_command_refuses():
    backbone = random_backbone("llama")
    for shape, line in (
        (dict(suffix_layers=4), "leaves no layer to read"),
        (dict(suffix_layers=3), "backbone layer 2 is above"),
        (dict(suffix_layers=2, combine="side"), "combine=side does not go with"),
    ):
        with pytest.raises(UserError, match=line):
            LadderModel.on(backbone, connect(4, [[1, 1], [2, 2]]), reduction=2, **shape)
    assert not any("lora_" in name for name, _ in backbone.named_parameters())


def test_half_of_the_layers_learn_where_no_number_is_given():
    method = method_for(composed("train", TrainConfig, ["method=ladder-suffix", "model=tiny"]).method)
    model = method.attach(LiveTrunk(random_backbone("llama"), NAME))
    assert (model.config.suffix_layers, model.suffix.below) == (2, 2)
    assert (method.layers_needed(4), method.layers_needed(7)) == (2, 3)
    assert method.picture(model.trunk)[-2:] == ["     2 ●◀──────● U(s)", "   3-4 │ LoRA      -> head"]


def test_a_suffix_of_none_is_the_ladder_and_costs_what_it_costs():
    def trunk(below):
        return TrunkCost(parameters=100, layers=28, resident_bytes=200, moved_bytes=0, flops_per_token=below)

    plain = SuffixMethodConfig(name="suffix", kind="suffix", learning_rate=1e-3, layers=7)
    assert method_for(config(suffix_layers=7)).cost(trunk(150.0)) == method_for(plain).cost(trunk(150.0))
    assert method_for(config(suffix_layers=0)).cost(trunk(150.0)).actual == 150.0
    assert method_for(config(suffix_layers=0)).layers_needed(28) == 0


def test_at_7b_the_side_network_costs_little_beside_its_suffix():
    seven, step = model_preset("qwen2.5-7b"), Step(1, 2048, 1, Optimizer.ADAMW_8BIT, 512)
    shape = dict(suffix_layers=7, rank=16, alpha=32, reduction=16, layers=4, connections="even", recompute=True)
    alone = predict_memory(
        seven,
        method_for(SuffixMethodConfig(name="suffix", kind="suffix", learning_rate=1e-3, layers=7)),
        torch.bfloat16,
        step,
    )
    both, recomputed = (
        predict_memory(seven, method_for(config(**shape, gradient_checkpointing=again)), torch.bfloat16, step)
        for again in (False, True)
    )
    assert alone.total < both.total < 1.05 * alone.total
    assert recomputed.total < both.total
    settings = [setting for setting, _ in method_for(config(**shape)).cheaper()]
    assert settings[-1] == "method.gradient_checkpointing=true"


def test_an_exported_folder_is_a_model_for_transformers(tmp_path, token_ids):
    model = attached().eval()
    expected = model(input_ids=token_ids).logits.detach()
    generated = model.generate(input_ids=token_ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    densify(model.bare_backbone, torch.float32)
    write_ladder_folder(model, tmp_path, "random")
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(read, LadderModel)
    assert isinstance(read.config, LadderConfig)
    torch.testing.assert_close(read(input_ids=token_ids).logits.detach(), expected, rtol=1e-4, atol=1e-4)
    again = read.generate(input_ids=token_ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert torch.equal(again, generated)
    assert (read.backbone_logits(input_ids=token_ids) - expected).abs().max() > 0.01


def test_weights_of_a_model_are_refused_beside_those_of_another_shape(tmp_path):
    attached(rank=4).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rank": 2}))
    with pytest.raises(UserError, match=r"weight suffix\.3\..* has shape"):
        load_adapter(tmp_path, random_backbone("llama"))


def test_a_preset_reads_what_the_model_is():
    preset = composed("train", TrainConfig, ["method=ladder-suffix", "model=tiny"]).method
    assert (preset.suffix_layers, preset.connections) == (None, "even")
