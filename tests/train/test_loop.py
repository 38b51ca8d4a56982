"""The loop by itself, on the embedded model: what must hold whatever it trains."""

import contextlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.config.optimization import OptimizationConfig
from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.passes import Loading, TrainingBatches, ValidationBatches
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.loss import counted_positions
from ladder_cli.nn.objective import objective_for
from ladder_cli.train.bad_batch import BadBatch
from ladder_cli.train.checkpoints import Checkpoints
from ladder_cli.train.learner import Best, Learner, Pace
from ladder_cli.train.loop import Loop
from ladder_cli.train.monitor import Throughput
from ladder_cli.train.optimizer import load_state, make_optimizer, make_schedule, save_state
from ladder_cli.train.random_states import RandomStream
from ladder_cli.train.signals import StopOnSignal
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone

CPU = torch.device("cpu")
METHODS = {
    "ladder": LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2),
    "qlora": QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3, rank=4, alpha=8, dropout=0.1),
}


class Rows:
    """Rows of random tokens, of which the first two do not count."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(count)
        self.lengths = [6 + 5 * row % 7 for row in range(count)]
        self._ids = [torch.randint(5, 400, (length,), generator=generator).tolist() for length in self.lengths]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        ids = self._ids[index]
        return {"input_ids": ids, "labels": [-100, -100, *ids[2:]]}


@pytest.fixture
def make_learner(tiny_config):
    def make(folder, name="ladder", rate=1e-3, seed=0, steps=6, optimizer="adamw"):
        torch.manual_seed(seed)
        method = method_for(METHODS[name])
        model = method.attach(LiveTrunk(load_backbone(tiny_config, CPU)))
        made = make_optimizer(model, optimizer, rate, weight_decay=0.01)
        return Learner(
            model,
            lambda path: method.load_weights(model, path),
            objective_for(ObjectiveConfig()),
            made,
            # Warmed up: the first step of Adam divides a gradient by its own size, so that rounding shows.
            make_schedule(made, OptimizationConfig(warmup_ratio=0.2), steps),
            Pace(steps, validate_every=3, log_every=1, patience=float("inf"), max_norm=1.0),
            Checkpoints(folder / "checkpoints"),
            BadBatch(folder / "bad_batch.json", lambda row: [f"example {row}"]),
            CPU,
            RandomStream(seed),
        )

    return make


def make_loop(*learners, micro_batch=2, accumulation=2, stop=None):
    loading = Loading(PaddingCollator(0), micro_batch)
    batches = TrainingBatches(Rows(14), loading, accumulation, seed=1)
    return Loop(learners, batches, ValidationBatches(Rows(5), loading), CPU, stop or StopOnSignal(), Throughput())


def weights(learner):
    return [parameter.detach().clone() for parameter in learner.trained]


def without_times(history):
    return [{name: value for name, value in line.items() if not name.startswith("train_")} for line in history]


def test_accumulated_micro_batches_train_like_one_large_batch(make_learner, tmp_path):
    whole, parts = make_learner(tmp_path / "whole"), make_learner(tmp_path / "parts")
    make_loop(whole, micro_batch=4, accumulation=1).run()
    # Lengths hardly differ, so that the order is a plain shuffle, whatever the size of a micro-batch.
    make_loop(parts, micro_batch=1, accumulation=4).run()
    for one, other in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert parts.train_loss == pytest.approx(whole.train_loss, rel=1e-5)


def test_learners_on_the_same_batches_train_as_each_would_alone(make_learner, tmp_path):
    alone = [make_learner(tmp_path / f"alone-{n}", rate=rate, seed=n) for n, rate in enumerate((1e-3, 5e-3))]
    together = [make_learner(tmp_path / f"together-{n}", rate=rate, seed=n) for n, rate in enumerate((1e-3, 5e-3))]
    for learner in alone:
        make_loop(learner).run()
    make_loop(*together).run()
    for one, other in zip(alone, together, strict=True):
        assert all(map(torch.equal, weights(one), weights(other)))
        assert without_times(one.history) == without_times(other.history)
        assert (one.best, one.train_loss) == (other.best, other.train_loss)
    assert not torch.equal(weights(together[0])[0], weights(together[1])[0])


class StopsAfter(StopOnSignal):
    """As if a signal came during a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    def requested(self, device: torch.device) -> bool:
        self._left -= 1
        return self._left == 0


# 14 rows in steps of 4: steps 2 and 6 lie within an epoch, step 4 is the end of one.
@pytest.mark.parametrize("stopped_at", [2, 4, 6])
@pytest.mark.parametrize(("name", "optimizer"), [("ladder", "adamw"), ("qlora", "adamw"), ("ladder", "muon")])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(name, optimizer, stopped_at, make_learner, tmp_path):
    def make(folder, seed=0):
        return make_learner(tmp_path / folder, name, seed=seed, steps=9, optimizer=optimizer)

    whole, ours = make("whole"), make("ours")
    make_loop(whole).run()
    stopped = make_loop(ours, stop=StopsAfter(stopped_at))
    stopped.run()
    assert stopped.step == stopped_at
    ours = make("ours", seed=3)
    loop = make_loop(ours)
    loop.resume(stopped_at)
    loop.run()
    assert all(map(torch.equal, weights(ours), weights(whole)))
    assert without_times(ours.history) == without_times(whole.history)
    assert (ours.best, ours.train_loss) == (whole.best, whole.train_loss)
    ours_state, whole_state = (learner.optimizer.state_dict()["state"] for learner in (ours, whole))
    for number, values in ours_state.items():
        for kept, value in values.items():
            assert torch.equal(value, whole_state[number][kept])
    with ours.random.drawing():
        drawn = torch.rand(3)
    with whole.random.drawing():
        assert torch.equal(torch.rand(3), drawn)


def test_the_validation_loss_is_the_mean_over_all_counted_tokens(make_learner, tmp_path):
    learner = make_learner(tmp_path, steps=3)
    make_loop(learner).run()
    rows, collate = Rows(5), PaddingCollator(0)
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            batch = collate([row])
            tokens = int(counted_positions(batch["labels"]).sum())
            total += learner.model.eval()(**batch).loss.item() * tokens
            count += tokens
    assert learner.history[-1]["eval_loss"] == pytest.approx(total / count, rel=1e-5)
    assert learner.best.step == 3


# Tensors that are kept of one that is trained: at least the moments. Of a matrix Muon has one.
@pytest.mark.parametrize(("optimizer", "kept"), [("adamw", 2), ("adamw_8bit", 2), ("muon", 1)])
def test_the_state_of_an_optimizer_comes_back_to_the_bit(optimizer, kept, make_learner, tmp_path):
    learner, twin = (make_learner(tmp_path / name, optimizer=optimizer) for name in ("ours", "twin"))
    make_loop(learner).run()
    file, again = tmp_path / "optimizer.safetensors", tmp_path / "again.safetensors"
    save_state(learner.optimizer, learner.schedule, file)
    load_state(twin.optimizer, twin.schedule, file)
    save_state(twin.optimizer, twin.schedule, again)
    assert again.read_bytes() == file.read_bytes()
    assert len(load_file(file)) >= kept * len(learner.trained)
    assert twin.schedule.get_last_lr() == learner.schedule.get_last_lr()


def test_muon_moves_a_matrix_by_its_orthogonalised_momentum_and_all_else_as_adamw_does():
    torch.manual_seed(0)
    rate, shape = 1e-2, (24, 40)
    layer, twin = torch.nn.Linear(shape[1], shape[0]), torch.nn.Linear(shape[1], shape[0])
    twin.load_state_dict(layer.state_dict())
    start = layer.weight.detach().double()
    ours, adamw = (make_optimizer(each, name, rate, 0.1) for each, name in ((layer, "muon"), (twin, "adamw")))
    momentum = torch.zeros(shape, dtype=torch.float64)
    expected = start.clone()
    for _ in range(3):
        gradient = torch.randn(shape)
        layer.weight.grad, layer.bias.grad = gradient.clone(), torch.ones(shape[0])
        twin.weight.grad, twin.bias.grad = gradient.clone(), torch.ones(shape[0])
        ours.step()
        adamw.step()
        momentum = 0.95 * momentum + 0.05 * gradient.double()
        left, _, right = torch.linalg.svd(0.05 * gradient.double() + 0.95 * momentum, full_matrices=False)
        expected = expected * (1 - rate * 0.1) - rate * 0.2 * max(shape) ** 0.5 * left @ right
    moved, wanted = layer.weight.detach().double() - start, expected - start
    # Five rounds of Newton and Schulz in bfloat16 leave singular values between 0.7 and 1.2 where they should be 1.
    assert torch.nn.functional.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0) > 0.97
    assert moved.norm() == pytest.approx(wanted.norm().item(), rel=0.15)
    assert torch.equal(layer.bias, twin.bias)
    assert not torch.equal(layer.weight, twin.weight)


def test_the_state_of_more_parameters_than_there_are_is_refused(tmp_path):
    made = []
    for count in (2, 1):
        model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(count)))
        optimizer = make_optimizer(model, "adamw", 1e-3, weight_decay=0.01)
        model(torch.ones(1, 3)).sum().backward()
        made.append((optimizer, make_schedule(optimizer, OptimizationConfig(), 6)))
    (optimizer, schedule), (smaller, its_schedule) = made
    optimizer.step()
    save_state(optimizer, schedule, tmp_path / "optimizer.safetensors")
    with pytest.raises(ValueError, match="the state of more than 2 parameters"):
        load_state(smaller, its_schedule, tmp_path / "optimizer.safetensors")
    assert not smaller.state


def test_of_equal_validation_losses_the_earliest_is_the_best():
    best = Best()
    for step, loss in ((3, 2.0), (6, 1.0), (9, 1.0), (12, 1.5)):
        best.met(step, loss)
    assert best == Best(step=6, loss=1.0, misses=2)


def test_the_last_step_is_validated_wherever_it_falls(make_learner, tmp_path):
    pace = Pace(7, validate_every=3, log_every=1, patience=float("inf"), max_norm=1.0)
    assert [step for step in range(1, 8) if pace.validates(step)] == [3, 6, 7]
    learner = make_learner(tmp_path, steps=4)
    make_loop(learner).run()
    assert [line["step"] for line in learner.history if "eval_loss" in line] == [3, 4]
    assert learner.checkpoints.steps()[-1] == 4


@pytest.mark.parametrize(
    ("steps", "evaluations", "patience", "allowed"),
    [
        (12, 4, None, True),
        (12, 4, 2, True),  # the best of 3, missed at 6 and 9
        (12, 4, 3, False),  # missed at 12 too, when it is over anyway
        (12, 4, 9, False),
        (7, 5, 5, True),  # at every step: seven validations
        (7, 5, 6, False),
        (1, 5, 1, False),
    ],
)
def test_early_stopping_is_refused_where_it_could_not_act(steps, evaluations, patience, allowed):
    pace = Pace.of(OptimizationConfig(evaluations=evaluations, early_stopping=patience), steps)
    with contextlib.nullcontext() if allowed else pytest.raises(UserError, match="never ends a run of"):
        pace.check_patience()


def test_random_numbers_go_on_where_they_were(tmp_path):
    import random

    import numpy as np

    def draw():
        return random.random(), np.random.rand(), torch.rand(3).tolist()

    stream, outside = RandomStream(seed=3), draw()
    with stream.drawing():
        first = draw()
    stream.save(tmp_path / "random.json")
    with stream.drawing():
        expected = draw()
    assert len({str(numbers) for numbers in (first, expected, outside, draw())}) == 4
    other = RandomStream()
    other.load(tmp_path / "random.json")
    with other.drawing():
        assert draw() == expected


def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_step_and_names_its_rows(make_learner, tmp_path):
    learner = make_learner(tmp_path)
    loop, hidden = make_loop(learner), learner.model.hidden
    poisoned = learner.model.side.combine.up.weight
    before = []

    def poison_the_third(*args, **kwargs):
        found = hidden(*args, **kwargs)
        if loop.step == 2:
            before.append(poisoned.detach().clone())
            return replace(found, state=found.state * float("nan"))
        return found

    learner.model.hidden = poison_the_third
    with pytest.raises(RunFailed, match="the loss became nan at step 3; that step was not taken"):
        loop.run()
    assert torch.equal(poisoned, before[0])
    written = json.loads((tmp_path / "bad_batch.json").read_text())
    assert written["step"] == 3
    assert [row["ids"] for row in written["rows"]] == [[f"example {row['row']}"] for row in written["rows"]]
    assert len(written["rows"]) == 2, "one micro-batch"

    # A gradient may be infinite where the loss is not.
    learner = make_learner(tmp_path)
    poisoned = learner.model.side.combine.up.weight
    poisoned.register_hook(lambda gradient: gradient * float("inf"))
    start = poisoned.detach().clone()
    with pytest.raises(RunFailed, match=r"the gradient norm became (inf|nan) at step 1; that step was not taken"):
        make_loop(learner).run()
    assert torch.equal(poisoned, start)
    assert len(json.loads((tmp_path / "bad_batch.json").read_text())["rows"]) == 4, "the whole step"


def test_an_objective_that_is_none_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match=r"objective\.name=stf is not a choice.*Choose from: sft, dpo"):
        ObjectiveConfig("stf")
