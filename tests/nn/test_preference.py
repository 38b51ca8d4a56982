"""Learning from preferences: the loss and its gradients against a plain reference; what the reference is."""

import math

import pytest
import torch
from torch.nn.functional import log_softmax, logsigmoid

from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig, SuffixMethodConfig
from ladder_cli.config.objective import ObjectiveConfig, check_objective
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.loss import token_log_probabilities
from ladder_cli.nn.objective import objective_for
from ladder_cli.trunk.base import Batch, Hidden
from ladder_cli.trunk.live import LiveTrunk
from tests.conftest import random_backbone

LADDER = dict(kind="ladder", learning_rate=1e-3, reduction=2)
LORA = dict(learning_rate=1e-3, rank=4, alpha=8)
METHODS = {
    "ladder": LadderMethodConfig(name="ladder", **LADDER),
    "xladder": LadderMethodConfig(name="xladder", connections="last", **LADDER),
    "QST": LadderMethodConfig(
        name="qst", gate="vector", combine="gated", projection="low_rank", projection_rank=4, **LADDER
    ),
    "branch": LadderMethodConfig(
        name="branch", connections="branch", layers=2, gate="tap", combine="replace", projection="none", init="cloned",
        **(LADDER | {"reduction": 1}),
    ),
    "ladder-suffix": LadderMethodConfig(
        name="ladder-suffix", suffix_layers=1, layers=2, connections="even", dropout=0.1, **LADDER
    ),
    "ladder-suffix, checkpointed": LadderMethodConfig(
        name="ladder-suffix", suffix_layers=2, layers=2, connections="even", gradient_checkpointing=True, **LADDER
    ),
    "qlora": QLoRAMethodConfig(name="qlora", kind="qlora", dropout=0.1, **LORA),
    "qlora, checkpointed": QLoRAMethodConfig(name="qlora", kind="qlora", gradient_checkpointing=True, **LORA),
    "suffix": SuffixMethodConfig(name="suffix", kind="suffix", layers=2, dropout=0.1, **LORA),
    "suffix, checkpointed": SuffixMethodConfig(
        name="suffix", kind="suffix", layers=2, gradient_checkpointing=True, **LORA
    ),
}  # fmt: skip
OBJECTIVES = {
    "sigmoid": dict(beta=0.3),
    "smoothed": dict(beta=0.3, label_smoothing=0.2),
    "ipo": dict(beta=0.3, loss="ipo"),
}


def dpo(**values):
    return ObjectiveConfig("dpo", **values)


def pairs(count=3, blanks=0):
    """Pairs of rows with a prompt in common, padded on the right, of several lengths."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.full((2 * (count + blanks), 14), 0)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row in range(2 * count):
        length = 9 + row * 5 % 6
        ids[row, :4] = ids[row - row % 2, :4] if row % 2 else torch.randint(2, 97, (4,), generator=generator)
        ids[row, 4:length] = torch.randint(2, 97, (length - 4,), generator=generator)
        labels[row, 4:length], mask[row, :length] = ids[row, 4:length], 1
    mask[2 * count :, 0] = 1
    return Batch(ids, labels, mask, row_ids=())


def plain(policy, reference, labels, config):
    """Sum over the pairs, from logits `[rows, tokens, vocabulary]`, as the papers write it."""

    def score(logits, row):
        total = torch.zeros((), dtype=torch.float64)
        for at in range(1, labels.shape[1]):
            if labels[row, at] != -100:
                total = total + log_softmax(logits[row, at - 1].double(), -1)[labels[row, at]]
        return total

    total = torch.zeros((), dtype=torch.float64)
    for chosen in range(0, len(labels), 2):
        r = [score(policy, row) - score(reference, row) for row in (chosen, chosen + 1)]
        if config.loss == "ipo":
            h = [
                ratio / int((labels[row, 1:] != -100).sum()) for ratio, row in zip(r, (chosen, chosen + 1), strict=True)
            ]
            total = total + (h[0] - h[1] - 1 / (2 * config.beta)) ** 2
        else:
            d, e = config.beta * (r[0] - r[1]), config.label_smoothing
            total = total - (1 - e) * logsigmoid(d) - e * logsigmoid(-d)
    return total


@pytest.fixture(params=METHODS)
def method(request):
    return method_for(METHODS[request.param])


@pytest.fixture
def model(method):
    return method.attach(LiveTrunk(random_backbone("qwen2"), "x"), proven=False, reference=True).train()


def disturb(model):
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("values", OBJECTIVES.values(), ids=OBJECTIVES)
def test_loss_and_gradient_are_those_of_a_plain_reference_in_float64(values):
    torch.manual_seed(0)
    config, batch = dpo(**values), pairs(blanks=1)
    head = torch.randn(16, 97, dtype=torch.float64)
    state = torch.randn(*batch.input_ids.shape, 16, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(*batch.input_ids.shape, 16, dtype=torch.float64)
    found = objective_for(config, loss_chunk=5)(Hidden(state, lambda rows: rows @ head, reference), batch)
    (gradient,) = torch.autograd.grad(found.total, state)
    expected = plain(state @ head, reference @ head, batch.labels[:6], config)
    (expected_gradient,) = torch.autograd.grad(expected, state)
    torch.testing.assert_close(found.total, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
    assert int(found.count) == objective_for(config).count([batch]) == 3, "rows that only fill up are no pair"
    assert gradient[6:].abs().sum() == 0


def test_what_is_told_beside_the_loss_are_the_rewards_of_the_papers():
    torch.manual_seed(0)
    config, batch = dpo(beta=0.25), pairs(blanks=1)
    head = torch.randn(16, 97, dtype=torch.float64)
    state, reference = (torch.randn(*batch.input_ids.shape, 16, dtype=torch.float64) for _ in range(2))
    objective = objective_for(config)
    found = objective(Hidden(state, lambda rows: rows @ head, reference), batch, divisor=4)
    mask = batch.labels[:, 1:] != -100
    scores = [
        (log_softmax(s[:, :-1] @ head, -1).gather(-1, batch.input_ids[:, 1:, None])[..., 0] * mask).sum(1)
        for s in (state, reference)
    ]
    rewards = 0.25 * (scores[0] - scores[1])[:6]
    chosen, rejected = rewards[::2], rewards[1::2]
    told = dict(zip(objective.measures, found.measured, strict=True))
    assert told["reward_chosen"].item() == pytest.approx(chosen.sum().item() / 4)
    assert told["reward_rejected"].item() == pytest.approx(rejected.sum().item() / 4)
    assert told["reward_margin"].item() == pytest.approx((chosen - rejected).sum().item() / 4)
    assert told["reward_accuracy"].item() == (chosen > rejected).sum().item() / 4


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_log_probabilities_do_not_depend_on_the_chunk(chunk):
    torch.manual_seed(0)
    rows = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    head, targets, weights = torch.randn(8, 30, dtype=torch.float64), torch.randint(30, (20,)), torch.randn(20).double()
    expected = log_softmax(rows @ head, -1)[torch.arange(20), targets]
    found = token_log_probabilities(rows, targets, lambda piece: piece @ head, chunk)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad((values * weights).sum(), rows)[0] for values in (found, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("values", OBJECTIVES.values(), ids=OBJECTIVES)
def test_an_untrained_method_prefers_nothing(model, method, values):
    """Every log-ratio is zero: the loss is log 2, or IPO's margin squared."""
    batch, config = pairs(), dpo(**values)
    found = objective_for(config)(model.hidden(batch), batch, 3)
    start = torch.tensor(1 / (2 * config.beta)).square() if config.loss == "ipo" else torch.tensor(math.log(2))
    if METHODS["branch"] is method.config:
        # Clones of the layers compute what those compute, in another pass.
        torch.testing.assert_close(found.total, start, rtol=1e-5, atol=1e-6)
    else:
        torch.testing.assert_close(found.total, start, rtol=1e-7, atol=0)
        assert found.measured.tolist() == [0.0] * 4


@pytest.mark.parametrize("values", OBJECTIVES.values(), ids=OBJECTIVES)
def test_after_some_training_the_reference_is_still_the_bare_backbone(model, values):
    disturb(model)
    model.eval()  # dropout makes of the policy what no other pass repeats
    batch, config = pairs(), dpo(**values)
    found = objective_for(config)(model.hidden(batch), batch)
    bare = random_backbone("qwen2")(**batch.inputs).logits
    expected = plain(model(**batch.inputs).logits, bare, batch.labels, config)
    torch.testing.assert_close(found.total.double(), expected.detach(), rtol=1e-4, atol=1e-4)
    start = 3 * math.log(2) if config.loss != "ipo" else 3 / (2 * config.beta) ** 2
    assert abs(found.total.item() - start) > 1e-3, "something was learned"


def test_gradients_reach_what_learns_and_nothing_else(model):
    disturb(model)
    batch = pairs()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    objective_for(dpo())(model.hidden(batch), batch).total.backward()
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved <= trained
    assert moved, "nothing learns"
    assert model.training


def test_the_reference_of_a_model_with_dropout_has_none():
    model = method_for(METHODS["qlora"]).attach(LiveTrunk(random_backbone("gpt2"), "x"), proven=False, reference=True)
    model.train()
    batch = pairs()
    dropping = [module for module in model.modules() if module.training]
    first, second = model.hidden(batch), model.hidden(batch)
    assert torch.equal(first.reference, second.reference)
    assert not torch.equal(first.state, second.state), "GPT-2 has dropout in its layers"
    assert [module for module in model.modules() if module.training] == dropping


def test_a_ladder_takes_one_pass_for_both():
    trunk, passes = LiveTrunk(random_backbone("qwen2"), "x"), []
    trunk.backbone.model.layers[0].register_forward_hook(lambda *_: passes.append(1))
    for name in ("ladder", "xladder", "branch"):
        model = method_for(METHODS[name]).attach(trunk, proven=False, reference=True).train()
        passes.clear()
        objective_for(dpo())(model.hidden(pairs()), pairs()).total.backward()
        assert len(passes) == 1, name


def test_what_reads_no_reference_is_handed_none():
    for name in ("qlora", "suffix", "ladder-suffix"):
        model = method_for(METHODS[name]).attach(LiveTrunk(random_backbone("qwen2"), "x"), proven=False)
        assert model.hidden(pairs()).reference is None
        with pytest.raises(ValueError, match="reference=True"):
            objective_for(dpo())(model.hidden(pairs()), pairs())
    branch = method_for(METHODS["branch"])
    assert not branch.shape(LiveTrunk(random_backbone("qwen2"), "x")).request.final
    assert branch.shape(LiveTrunk(random_backbone("qwen2"), "x"), reference=True).request.final


def test_a_side_network_by_itself_has_no_start_to_be_held_against():
    own = LadderMethodConfig(name="lst", combine="side", **LADDER)
    with pytest.raises(UserError, match=r"method=lst does not start as the backbone \(method\.combine=side\)"):
        check_objective(dpo(), own, "preference", packing=False)
    check_objective(ObjectiveConfig(), own, "pairs", packing=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(loss="hinge"), "objective.loss=hinge is not a choice"),
        (dict(beta=0.0), "objective.beta"),
        (dict(label_smoothing=0.5), "objective.label_smoothing"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        dpo(**values)


# Of `sigmoid` TRL does not smooth the labels.
@pytest.mark.parametrize("values", [OBJECTIVES["sigmoid"], OBJECTIVES["ipo"]], ids=["sigmoid", "ipo"])
def test_the_loss_is_trls_on_the_same_rows(tmp_path, values, tiny_config, tiny_tokenizer):
    """TRL keeps a second model, or switches adapters, where we have one pass; what comes out is the same."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    from ladder_cli.nn.connections import connect
    from ladder_cli.nn.ladder import LadderModel
    from ladder_cli.nn.runtime import Runtime
    from ladder_cli.trunk.loading import load_backbone

    config = dpo(**values)
    model = LadderModel.on(
        load_backbone(tiny_config, torch.device("cpu")),
        connect(6, "aligned"),
        reduction=2,
        runtime=Runtime(reference=True),
    )
    disturb(model)
    rows = [("Compute 7+5.", " 7+5=12", " 7+5=13 or so"), ("Compute 9-4.", " 9-4=5", " 5, as I said before")]
    data = Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows])
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, beta=config.beta, loss_type=[config.loss.value],
        use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    reference = load_backbone(tiny_config, torch.device("cpu"))
    trainer = trl.DPOTrainer(model, reference, arguments, train_dataset=data, processing_class=tiny_tokenizer)
    theirs = trainer.data_collator([trainer.train_dataset[row] for row in range(2)])
    loss = trainer.compute_loss(model, theirs)
    # Theirs are all preferred answers, then all others.
    order = [0, 2, 1, 3]
    labels = theirs["input_ids"].masked_fill(theirs["completion_mask"] == 0, -100)
    batch = Batch(theirs["input_ids"][order], labels[order], theirs["attention_mask"][order])
    objective = objective_for(config)
    found = objective(model.hidden(batch), batch, 2)
    torch.testing.assert_close(found.total, loss, rtol=1e-5, atol=1e-6)
    told = dict(zip(objective.measures, found.measured.tolist(), strict=True))
    logged = {name.split("/")[1]: values[-1] for name, values in trainer._metrics["train"].items() if "rewards" in name}
    assert told["reward_margin"] == pytest.approx(logged["margins"], rel=1e-4)
    assert told["reward_accuracy"] == logged["accuracies"]
    assert told["reward_chosen"] == pytest.approx(logged["chosen"], rel=1e-4)
    gradients = []
    for value in (found.total, loss):
        model.zero_grad()
        value.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for ours, other in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-5)
