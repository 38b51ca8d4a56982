"""Learning from rewards: the loss and its gradients against a plain reference, advantages, the start."""

import statistics
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import log_softmax

from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.objective import objective_for
from ladder_cli.nn.policy import advantages_of
from ladder_cli.trunk.base import Batch, Hidden
from ladder_cli.trunk.live import LiveTrunk
from tests.conftest import random_backbone
from tests.nn.test_preference import METHODS, disturb

SETTINGS = {
    "plain": dict(beta=0.0),
    "divergence": dict(beta=0.3),
    "warm": dict(beta=0.3, temperature=0.6),
    "narrow": dict(beta=0.1, clip=0.05, clip_high=0.1),
}


def grpo(**values):
    return ObjectiveConfig("grpo", **values)


def completions(count=4, vocabulary=97):
    """Rows of a prompt and a completion, padded on the right, of several lengths; advantages of both signs, and 0."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.zeros(count, 14, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row in range(count):
        length = 9 + row * 5 % 6
        ids[row, :length] = torch.randint(2, vocabulary, (length,), generator=generator)
        labels[row, 4:length], mask[row, :length] = ids[row, 4:length], 1
    gained = torch.tensor([[0.75], [-0.5], [0.0], [-0.25]])[:count]
    return Batch(ids, labels, mask, row_ids=tuple(range(count)), advantages=gained)


def plain(policy, sampled, reference, batch, config):
    """Sum over the tokens, from logits `[rows, tokens, vocabulary]`, as the papers write it."""
    total = torch.zeros((), dtype=torch.float64)
    kl, clipped, tokens = 0.0, 0, 0
    for row in range(len(batch.labels)):
        advantage = batch.advantages[row, 0].double()
        for at in range(1, batch.labels.shape[1]):
            if batch.labels[row, at] == -100:
                continue
            p, q, b = (
                log_softmax(logits[row, at - 1].double() / config.temperature, -1)[batch.labels[row, at]]
                for logits in (policy, sampled, reference)
            )
            ratio = torch.exp(p - q)
            cut = torch.clamp(ratio, 1 - config.clip, 1 + config.clip_high)
            divergence = torch.exp(b - p) - (b - p) - 1
            total = total - torch.min(ratio * advantage, cut * advantage) + config.beta * divergence
            kl, tokens = kl + divergence.item(), tokens + 1
            outside = (ratio > 1 + config.clip_high and advantage > 0) or (ratio < 1 - config.clip and advantage < 0)
            clipped += int(outside)
    return total, kl, clipped, tokens


def states(batch, count):
    torch.manual_seed(0)
    return [torch.randn(*batch.input_ids.shape, 16, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS)
def test_loss_and_gradient_are_those_of_a_plain_reference_in_float64(values):
    """The second pass of two over the same rows, after the policy has moved to both sides of the clip."""
    config, batch = grpo(iterations=2, **values), completions()
    before, moved, reference = states(batch, 3)
    state = (before + 0.3 * moved).requires_grad_()
    head = torch.randn(16, 97, dtype=torch.float64)
    objective = objective_for(config, loss_chunk=5)
    assert objective.count([batch]) == int((batch.labels[:, 1:] != -100).sum())
    objective(Hidden(before, lambda rows: rows @ head, reference), batch)
    found = objective(Hidden(state, lambda rows: rows @ head, reference), batch, divisor=7)
    (gradient,) = torch.autograd.grad(found.total, state)
    expected, kl, clipped, tokens = plain(state @ head, before @ head, reference @ head, batch, config)
    (expected_gradient,) = torch.autograd.grad(expected, state)
    torch.testing.assert_close(found.total, expected / 7, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient / 7, rtol=1e-9, atol=1e-12)
    assert int(found.count) == tokens
    told = dict(zip(objective.measures, found.measured.tolist(), strict=True))
    assert told["kl"] == pytest.approx(kl / 7)
    assert told["clipped"] == pytest.approx(clipped / 7)
    assert 0 < clipped < tokens, "nothing, or everything, was clipped: the case shows nothing"


@pytest.mark.parametrize(("advantage", "moved", "expected"), [
    (1.0, 1.5, 0.0), (1.0, 0.5, -0.5), (-1.0, 1.5, 1.5), (-1.0, 0.5, 0.0), (1.0, 1.25, -1.25), (-1.0, 0.85, 0.85),
])  # fmt: skip
def test_a_ratio_is_clipped_where_it_has_gone_far_enough_and_nowhere_else(advantage, moved, expected):
    """One token whose probability went from 0.4 to 0.4 x `moved`; what is clipped has no gradient."""
    config = grpo(beta=0.0, iterations=2, clip=0.2, clip_high=0.28)
    batch = Batch(
        torch.tensor([[0, 1]]), torch.tensor([[-100, 1]]), row_ids=(0,), advantages=torch.tensor([[advantage]])
    )

    def state(probability):
        return torch.tensor([[[1 - probability, probability], [0.5, 0.5]]]).double().log()

    objective, now = objective_for(config), state(0.4 * moved).requires_grad_()
    objective.count([batch])
    objective(Hidden(state(0.4), lambda rows: rows, state(0.4)), batch)
    found = objective(Hidden(now, lambda rows: rows, state(0.4)), batch)
    (gradient,) = torch.autograd.grad(found.total, now)
    if expected == 0.0:
        bound = -advantage * (1.28 if advantage > 0 else 0.8)
        assert found.total.item() == pytest.approx(bound)
        assert gradient.abs().sum() == 0
        assert found.measured[1] == 1
    else:
        assert found.total.item() == pytest.approx(expected)
        assert gradient.abs().sum() > 0
        assert found.measured[1] == 0


def test_a_step_forgets_the_policies_of_the_step_before():
    config, batch = grpo(iterations=2, beta=0.0), completions()
    first, second, reference = states(batch, 3)
    head = torch.randn(16, 97, dtype=torch.float64)
    objective = objective_for(config)
    for state in (first, second):
        objective.count([batch])
        found = objective(Hidden(state, lambda rows: rows @ head, reference), batch)
        ratio_one = -(batch.advantages * (batch.labels[:, 1:] != -100)).sum()
        assert found.total.item() == pytest.approx(ratio_one.item())


@pytest.mark.parametrize("divided", [False, True])
def test_advantages_by_hand(divided):
    rewards = [1.0, 0.0, 0.0, 1.0, 0.0]
    expected = [reward - 0.4 for reward in rewards]
    if divided:
        expected = [value / statistics.stdev(rewards) for value in expected]
    assert advantages_of(rewards, divided) == pytest.approx(expected)
    assert sum(advantages_of(rewards, divided)) == pytest.approx(0)
    assert advantages_of([0.3, 0.3, 0.3], divided) == [0.0, 0.0, 0.0], "to the bit: 0.3 is no sum of halves"


@pytest.mark.parametrize("name", METHODS)
def test_an_untrained_method_has_ratio_one_and_no_divergence(name):
    method = method_for(METHODS[name])
    model = method.attach(LiveTrunk(random_backbone("qwen2"), "x"), proven=False, reference=True).train()
    batch = completions()
    objective = objective_for(grpo(beta=1.0))
    tokens = objective.count([batch])
    found = objective(model.hidden(batch), batch, tokens)
    counted = (batch.labels[:, 1:] != -100).sum(1, keepdim=True)
    assert found.total.item() == pytest.approx(-(batch.advantages * counted).sum().item() / tokens, abs=1e-6)
    # A branch's clones compute in another pass.
    assert found.measured[0].item() == pytest.approx(0, abs=1e-9 if name == "branch" else 0)
    assert found.measured[1] == 0
    found.total.backward()
    learned = [parameter for parameter in model.parameters() if parameter.grad is not None]
    assert learned
    assert any(parameter.grad.abs().sum() > 0 for parameter in learned)


@pytest.mark.parametrize("name", METHODS)
def test_after_some_training_loss_and_divergence_are_those_of_the_models_logits(name):
    method = method_for(METHODS[name])
    model = method.attach(LiveTrunk(random_backbone("qwen2"), "x"), proven=False, reference=True)
    disturb(model)
    model.eval()
    config, batch = grpo(beta=0.5, temperature=0.8), completions()
    found = objective_for(config)(model.hidden(batch), batch)
    policy, bare = model(**batch.inputs).logits, random_backbone("qwen2")(**batch.inputs).logits
    expected, kl, _, _ = plain(policy, policy, bare, batch, config)
    torch.testing.assert_close(found.total.double(), expected.detach(), rtol=1e-3, atol=1e-3)
    assert found.measured[0].item() == pytest.approx(kl, rel=1e-3, abs=1e-3)
    assert kl > 1e-2


def test_what_is_missing_is_told():
    batch, objective = completions(), objective_for(grpo())
    state = torch.zeros(*batch.input_ids.shape, 16)
    bare = Batch(batch.input_ids, batch.labels, batch.attention_mask)
    with pytest.raises(ValueError, match="advantages"):
        objective(Hidden(state, lambda rows: rows, state), bare)
    with pytest.raises(ValueError, match="reference=True"):
        objective(Hidden(state, lambda rows: rows), batch)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(group=1), "objective.group"),
        (dict(clip=1.5), "objective.clip"),
        (dict(temperature=0.0), "objective.temperature"),
        (dict(iterations=0), "objective.iterations"),
        (dict(beta=-1.0), "objective.beta"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        grpo(**values)


@pytest.fixture
def grpo_trainer(tmp_path, tiny_config, tiny_tokenizer):
    """TRL's trainer over a ladder. With a beta it would load a second whole model, by a name that a ladder has not."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    from ladder_cli.nn.connections import connect
    from ladder_cli.nn.ladder import LadderModel
    from ladder_cli.nn.runtime import Runtime
    from ladder_cli.trunk.loading import load_backbone

    backbone = load_backbone(tiny_config, torch.device("cpu"))
    model = LadderModel.on(backbone, connect(6, "aligned"), reduction=2, runtime=Runtime(reference=True))
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": f"Compute {n}+{n}."}]} for n in range(3, 9)])
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
        max_steps=2, use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False, disable_tqdm=True,
        learning_rate=1e-3, epsilon_high=0.28,
        use_bias_correction_kl=False,  # its default weighs the divergence by the ratio
    )  # fmt: skip

    def length(completions, **columns):
        return [float(len(completion[0]["content"])) for completion in completions]

    trainer = trl.GRPOTrainer(model, length, arguments, train_dataset=data, processing_class=tiny_tokenizer)
    return trainer, model


def test_trls_trainer_trains_a_ladder_and_leaves_the_backbone_alone(grpo_trainer):
    trainer, model = grpo_trainer
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer.train()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved
    assert all(name.startswith("sides.") for name in moved)
    assert len(moved) > 10


def test_the_loss_is_trls_on_the_same_rows(grpo_trainer):
    trainer, model = grpo_trainer
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn_like(parameter)
    model.eval()
    batch, config = completions(), grpo(beta=0.04, iterations=2, clip=0.002, clip_high=0.004)
    trainer.beta, trainer.epsilon_low, trainer.epsilon_high = config.beta, config.clip, config.clip_high
    mask = batch.labels[:, 4:] != -100
    inputs = {
        "prompt_ids": batch.input_ids[:, :4], "prompt_mask": torch.ones(4, 4, dtype=torch.long),
        "completion_ids": batch.input_ids[:, 4:], "completion_mask": mask.long(),
        "advantages": batch.advantages[:, 0], "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    with torch.no_grad():
        logits = model.backbone(**batch.inputs).logits[:, 3:-1]
        scores = log_softmax(logits, -1).gather(-1, batch.input_ids[:, 4:, None])[..., 0]
    # Both begin at the bare backbone's policy, from which the model is away by now.
    theirs = trainer._compute_loss(model, inputs | {"ref_per_token_logps": scores, "old_per_token_logps": scores})
    objective = objective_for(config)
    objective.count([batch])
    hidden = model.hidden(batch)
    objective(Hidden(hidden.reference, hidden.readout, hidden.reference), batch)
    ours = objective(hidden, batch, int(mask.sum()))
    torch.testing.assert_close(ours.total, theirs, rtol=1e-5, atol=1e-6)
    assert 0 < ours.measured[1] < 1
    gradients = []
    for value in (ours.total, theirs):
        model.zero_grad()
        value.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def sampled_otherwise(batch, before, head, spread, temperature=1.0):
    """The batch with log-probabilities of another engine: ours, each off by up to `spread`; and by how much."""
    told = torch.zeros(batch.labels.shape, dtype=torch.float64)
    logits = log_softmax((before @ head).double() / temperature, -1)
    for row, at in (batch.labels != -100).nonzero().tolist():
        told[row, at] = logits[row, at - 1, batch.labels[row, at]]
    counted = batch.labels != -100
    off = spread * (2 * torch.rand(told.shape, dtype=torch.float64) - 1) * counted
    return replace(batch, sampled=told - off), off


@pytest.mark.parametrize(("cap", "temperature"), [(2.0, 1.0), (1.1, 0.7)])
def test_a_token_of_another_engine_weighs_as_much_as_it_is_likelier_here_up_to_the_cap(cap, temperature):
    config = grpo(beta=0.2, engine="vllm", sampler_cap=cap, iterations=2, temperature=temperature)
    batch = completions()
    before, moved, reference = states(batch, 3)
    state = (before + 0.3 * moved).requires_grad_()
    head = torch.randn(16, 97, dtype=torch.float64)
    batch, off = sampled_otherwise(batch, before, head, 1.5, temperature)

    def readout(rows):
        return rows @ head

    objective = objective_for(config, loss_chunk=5)
    objective.count([batch])
    objective(Hidden(before, readout, reference), batch)
    found = objective(Hidden(state, readout, reference), batch, divisor=7)
    (gradient,) = torch.autograd.grad(found.total, state)
    # Token by token: each as a row of its own, whose advantage is multiplied by its weight.
    weights = off.exp().clamp(max=cap)
    assert (weights[off > 0] == cap).any()
    assert (weights < 1).any()
    expected, gap, tokens = torch.zeros((), dtype=torch.float64), 0.0, 0
    for row, at in (batch.labels != -100).nonzero().tolist():
        labels = torch.full_like(batch.labels, -100)
        labels[row, at] = batch.labels[row, at]
        gained = batch.advantages.double() * weights[row, at]
        alone = replace(batch, labels=labels, advantages=gained)
        total, *_ = plain(state @ head, before @ head, reference @ head, alone, config)
        expected, gap, tokens = expected + total, gap + abs(off[row, at].item()), tokens + 1
    (expected_gradient,) = torch.autograd.grad(expected, state)
    torch.testing.assert_close(found.total, expected / 7, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient / 7, rtol=1e-9, atol=1e-12)
    told = dict(zip(objective.measures, found.measured.tolist(), strict=True))
    assert told["sampler_gap"] == pytest.approx(gap / 7)
    assert tokens > 10


def test_an_engine_that_rounds_alike_changes_nothing_and_one_that_tells_nothing_is_refused():
    batch, head = completions(), torch.randn(16, 97, dtype=torch.float64)
    before, reference = states(batch, 2)
    hidden = Hidden(before, lambda rows: rows @ head, reference)
    alike, _ = sampled_otherwise(batch, before, head, 0.0)
    itself, other = objective_for(grpo()), objective_for(grpo(engine="vllm"))
    torch.testing.assert_close(other(hidden, alike).total, itself(hidden, batch).total)
    assert other(hidden, alike).measured[-1] == pytest.approx(0.0, abs=1e-12)
    assert "sampler_gap" not in itself.measures
    with pytest.raises(ValueError, match="log-probabilities"):
        other(hidden, batch)
