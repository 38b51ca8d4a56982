"""LoRA on the last layers: the layers below are read and no more, and the adapter is one that peft itself loads."""

import pytest
import torch
from peft import PeftModel

from ladder_cli.config.choices import Optimizer
from ladder_cli.config.methods import QLoRAMethodConfig, SuffixMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.base import Cost
from ladder_cli.methods.registry import load_adapter, method_for
from ladder_cli.nn.objective import NextToken
from ladder_cli.plan.memory import Step, predict_memory
from ladder_cli.trunk.base import Batch, TapRequest, TrunkCost
from ladder_cli.trunk.live import LiveTrunk
from tests.conftest import loss_curve, model_preset, random_backbone
from tests.methods.watching import watched

MODEL = ModelConfig(name="random", hub_id="nowhere/random")
LORA = dict(learning_rate=1e-3, rank=4, alpha=8)


def suffix(layers, **changes):
    return method_for(SuffixMethodConfig(name="suffix", kind="suffix", layers=layers, **LORA, **changes))


def trained(model, token_ids, steps=3):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    return loss_curve(model, optimizer, token_ids, token_ids.clone(), steps)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_below_the_suffix_see_no_gradient_and_keep_nothing(token_ids, checkpointing):
    backbone = random_backbone("llama")
    model = suffix(2, gradient_checkpointing=checkpointing).attach(LiveTrunk(backbone, MODEL.hub_id)).train()
    needs_gradient, runs = watched(backbone.model.layers)
    model(input_ids=token_ids, labels=token_ids).loss.backward()
    assert needs_gradient == {0: False, 1: False, 2: True, 3: True}
    twice = 2 if checkpointing else 1
    assert runs == {0: 1, 1: 1, 2: twice, 3: twice}
    adapted = {name.split(".layers.")[1].split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert adapted == {"2", "3"}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "opt"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_from_the_tap_is_training_through_the_whole_backbone(token_ids, family, checkpointing):
    """Bit for bit: the loss of `hidden`, which begins at the tap, and of `forward`, which peft runs whole."""
    model = suffix(2, gradient_checkpointing=checkpointing).attach(LiveTrunk(random_backbone(family), MODEL.hub_id))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.train()
    batch = Batch(token_ids, token_ids.clone(), torch.ones_like(token_ids))
    assert model.request == TapRequest(frozenset({2}), final=False)
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
        gradients.append([value.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)])
    for other in gradients[1:]:
        assert all(torch.equal(one, two) for one, two in zip(gradients[0][1:], other[1:], strict=True))


def test_views_of_a_trunk_share_weights_and_nothing_else(token_ids):
    trunk = LiveTrunk(random_backbone("llama"), MODEL.hub_id)
    batch, whole = Batch(token_ids), TapRequest(frozenset({2, 4}))
    before = trunk.taps(whole, batch)
    models = [suffix(2).attach(trunk.view()) for _ in range(2)]
    for model in models:
        trained(model, token_ids)
    after = trunk.taps(whole, batch)
    assert all(torch.equal(before.rungs[number], after.rungs[number]) for number in before.rungs)
    shared = {p.data_ptr() for p in trunk.whole().parameters()}
    for model in models:
        assert {p.data_ptr() for p in model.parameters() if not p.requires_grad} == shared
    assert len({p.data_ptr() for model in models for p in model.parameters() if p.requires_grad}) == 2 * sum(
        p.requires_grad for p in models[0].parameters()
    )


def test_a_suffix_of_all_layers_learns_as_lora_does(token_ids):
    torch.manual_seed(7)
    whole = method_for(QLoRAMethodConfig(name="qlora", kind="qlora", **LORA)).attach(
        LiveTrunk(random_backbone("qwen2"), MODEL.hub_id)
    )
    torch.manual_seed(7)
    model = suffix(4).attach(LiveTrunk(random_backbone("qwen2"), MODEL.hub_id))
    assert [p.shape for p in model.parameters() if p.requires_grad] == [
        p.shape for p in whole.parameters() if p.requires_grad
    ]
    assert trained(model, token_ids) == trained(whole, token_ids)


def test_the_adapter_loads_in_peft_without_us(token_ids, tmp_path):
    model = suffix(2).attach(LiveTrunk(random_backbone("gpt2"), MODEL.hub_id))
    trained(model, token_ids)
    model.eval()
    expected = model(input_ids=token_ids).logits
    assert not torch.equal(expected, random_backbone("gpt2")(token_ids).logits)
    model.save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(random_backbone("gpt2"), str(tmp_path)).eval()
    assert torch.equal(theirs(input_ids=token_ids).logits, expected)


def test_half_of_the_layers_learn_where_no_number_is_given():
    model = suffix(None).attach(LiveTrunk(random_backbone("llama"), MODEL.hub_id))
    assert model.peft_config["default"].layers_to_transform == [2, 3]


def test_more_layers_than_there_are_is_a_mistake():
    with pytest.raises(UserError, match=r"method\.layers=5, but the backbone has 4 layers"):
        suffix(5).attach(LiveTrunk(random_backbone("llama"), MODEL.hub_id))


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("layers_to_transform", "2", "layers_to_transform is no list"),
        ("layers_to_transform", [2, True], "layers_to_transform is no list"),
        ("layers_pattern", "(.*)*x", "layers_pattern is no attribute's name"),
    ],
)
def test_a_strangers_choice_of_layers_is_read_field_by_field(token_ids, tmp_path, field, value, named):
    import json

    suffix(2).attach(LiveTrunk(random_backbone("llama"), MODEL.hub_id)).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UserError, match=named):
        load_adapter(tmp_path, random_backbone("llama"))


def test_the_arithmetic_is_that_of_the_layers_gradients_pass_through():
    def trunk(below):
        return TrunkCost(parameters=100, layers=28, resident_bytes=200, moved_bytes=0, flops_per_token=below)

    assert suffix(7).cost(trunk(150.0)) == Cost(paper=300.0, actual=250.0)
    assert suffix(7, gradient_checkpointing=True).cost(trunk(150.0)) == Cost(paper=300.0, actual=300.0)
    assert suffix(7).cost(trunk(0.0)) == Cost(paper=300.0, actual=100.0)  # what is read lies in a cache
    assert suffix(28).cost(trunk(0.0)) == Cost(paper=600.0, actual=400.0)  # as QLoRA


def test_a_suffix_at_7b_keeps_a_fraction_of_what_qlora_keeps():
    seven, step = model_preset("qwen2.5-7b"), Step(1, 2048, 1, Optimizer.ADAMW_8BIT, 512)
    whole = predict_memory(
        seven, method_for(QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3)), torch.bfloat16, step
    )
    part = predict_memory(seven, suffix(7), torch.bfloat16, step)
    assert part.parts["activations"] == pytest.approx(whole.parts["activations"] * 7 / 28, rel=0.1)
