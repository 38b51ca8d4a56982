"""Whole runs that learn from rewards: what they sample, log and keep; killed anywhere they end as a plain run does."""

import json
import statistics
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ladder_cli.generate.engine import Completion, Prompt
from ladder_cli.generate.transformers_engine import TransformersEngine
from ladder_cli.nn.policy import advantages_of
from ladder_cli.train.learner import Learner
from ladder_cli.train.rewards import ByFunction
from ladder_cli.train.rollouts import TOLD, CompletionsLog, as_sampled
from tests.malformed import run_command
from tests.train.test_together import assert_same, stop_after

METHODS = {
    "ladder": ("method=ladder",),
    "xladder": ("method=xladder", "objective.iterations=2", "objective.temperature=0.8"),
    "suffixed": ("method=ladder-suffix", "method.layers=2", "method.suffix_layers=3", "method.dropout=0.1"),
    "suffix": ("method=suffix", "method.layers=2", "method.dropout=0.1", "objective.divide_by_std=true"),
    "qlora": ("method=qlora", "method.dropout=0.1"),
}
# 7 prompts, 3 a step: an epoch is three steps, the last of one prompt.
SHORT = (
    *("objective=grpo", "objective.group=4", "objective.max_new_tokens=12", "hardware=cpu", "data.cache=false"),
    *("data.train_samples=7", "data.validation_samples=3", "train.micro_batch_size=4", "train.global_batch_size=12"),
    *("train.max_steps=7", "train.evaluations=3", "train.logging_steps=3", "train.learning_rate=0.003"),
    "objective.reward=tests.train.rewarding:mixed",
)


def train(folder, *options):
    words = {word.partition("=")[0]: word for word in (*SHORT, f"output_dir={folder}", *options)}
    return run_command("train", list(words.values()))


def trained(folder, *options):
    status, printed, errors = train(folder, *options)
    assert status == 0, errors
    return printed


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def log(folder):
    return lines(folder / "metrics.jsonl")


def sampled(folder):
    return lines(folder / "completions.jsonl")


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def same_run(ours, theirs):
    assert_same(ours, theirs)
    assert (ours / "completions.jsonl").read_text() == (theirs / "completions.jsonl").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of each method, without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    for name, method in METHODS.items():
        trained(folder / name, *method)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_what_is_sampled_is_recorded_and_is_what_the_log_tells(name, whole):
    samples, told = sampled(whole / name), [line for line in log(whole / name) if "loss" in line]
    by_step = {step: [each for each in samples if each["step"] == step] for step in range(1, 8)}
    assert [len(by_step[step]) for step in range(1, 8)] == [12, 12, 4, 12, 12, 4, 12]
    for epoch in ((1, 2, 3), (4, 5, 6)):
        asked = [each["id"] for step in epoch for each in by_step[step] if each["number"] == 0]
        assert len(set(asked)) == len(asked) == 7, "each row once an epoch"
    divided = "objective.divide_by_std=true" in METHODS[name]
    for step in by_step.values():
        for at in range(0, len(step), 4):
            group = step[at : at + 4]
            assert len({each["id"] for each in group}) == 1
            assert [each["number"] for each in group] == [0, 1, 2, 3]
            rewards = [each["reward"] for each in group]
            assert [each["advantage"] for each in group] == pytest.approx(advantages_of(rewards, divided))
    assert [line["step"] for line in told] == [1, 3, 6]
    for line, steps in zip(told, ((1,), (2, 3), (4, 5, 6)), strict=True):
        means = [statistics.fmean(each["reward"] for each in by_step[step]) for step in steps]
        assert line["reward"] == pytest.approx(statistics.fmean(means), rel=1e-5)
        tokens = [statistics.fmean(each["tokens"] for each in by_step[step]) for step in steps]
        assert line["completion_tokens"] == pytest.approx(statistics.fmean(tokens), rel=1e-5)
        cut = [statistics.fmean(each["stop_reason"] == "length" for each in by_step[step]) for step in steps]
        assert line["cut_off"] == pytest.approx(statistics.fmean(cut), abs=1e-6)
        assert {*TOLD, "kl", "clipped", "loss", "grad_norm"} <= line.keys()
        assert all(line[part] >= 0 for part in ("generate_seconds", "grade_seconds", "train_seconds"))
        assert line["grad_norm"] > 0
    assert told[0]["kl"] == 0 if "objective.iterations=2" not in METHODS[name] else told[0]["kl"] >= 0
    assert told[-1]["kl"] > 0
    assert metrics(whole / name)["rows_seen"] == 7 + 7 + 3
    seen = sum(each["tokens"] for each in samples)
    assert metrics(whole / name)["tokens_seen"] > seen, "with the prompts"


@pytest.mark.parametrize("name", METHODS)
def test_the_step_with_the_highest_held_out_reward_is_kept(name, whole):
    checked = [line for line in log(whole / name) if "eval_reward" in line]
    assert [line["step"] for line in checked] == [2, 4, 6, 7]
    best = max(checked, key=lambda line: line["eval_reward"])
    run = metrics(whole / name)
    assert (run["eval_reward"], run["best_step"]) == (best["eval_reward"], best["step"])
    assert "eval_loss" not in run


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(name, whole, tmp_path, monkeypatch):
    """After step 5, which lies between two lines of the log, two checkpoints and two ends of epochs."""
    stop_after(5, monkeypatch)
    status, *_ = train(tmp_path / "run", *METHODS[name])
    assert status == 130
    assert max(each["step"] for each in sampled(tmp_path / "run")) == 5
    trained(tmp_path / "run", *METHODS[name])
    same_run(tmp_path / "run", whole / name)


class Killed(BaseException):
    """As a kill: nothing above handles it, and nothing is written for it."""


# Where a run is killed: the call that does not come back, the third time that it is made in a step after a checkpoint.
PLACES = {
    "generation": (TransformersEngine, "complete"),
    "grading": (ByFunction, "__call__"),
    "before the record": (CompletionsLog, "add"),
    "update": (Learner, "update"),
    "forward": (Learner, "backward"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["ladder", "suffix"])
def test_a_run_that_was_killed_anywhere_in_a_step_ends_as_if_it_had_not_been(name, place, whole, tmp_path, monkeypatch):
    owner, method = PLACES[place]
    genuine, calls = getattr(owner, method), []

    def dies(self, *given, **more):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return genuine(self, *given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(owner, method, dies)
        with pytest.raises(Killed):
            train(tmp_path / "run", *METHODS[name])
    assert len(calls) == 5
    with (tmp_path / "run" / "completions.jsonl").open("a") as file:
        file.write('{"step": 4, "id": "half a li')
    trained(tmp_path / "run", *METHODS[name])
    same_run(tmp_path / "run", whole / name)


def test_another_seed_samples_otherwise_and_the_same_seed_the_same(whole, tmp_path):
    trained(tmp_path / "again", *METHODS["ladder"])
    same_run(tmp_path / "again", whole / "ladder")
    trained(tmp_path / "other", *METHODS["ladder"], "seed=1")
    assert sampled(tmp_path / "other") != sampled(whole / "ladder")


def test_completions_of_a_group_differ_and_steps_draw_anew(whole):
    texts = [each["completion"] for each in sampled(whole / "ladder")]
    assert len(set(texts)) > len(texts) / 3


def test_what_is_learned_is_what_was_sampled_token_for_token(tmp_path, monkeypatch):
    """Rows are the prompt's tokens and the very tokens that were generated; those alone count, with one advantage."""
    seen, backward, complete = [], Learner.backward, TransformersEngine.complete
    made = {}

    def watched(self, step, batch, *rest):
        seen.append(batch)
        backward(self, step, batch, *rest)

    def kept(self, *given, **more):
        for batch in complete(self, *given, **more):
            made.update({each.prompt.id: each for each in batch})
            yield batch

    monkeypatch.setattr(Learner, "backward", watched)
    monkeypatch.setattr(TransformersEngine, "complete", kept)
    trained(tmp_path / "run", *METHODS["ladder"], "train.max_steps=1", "train.evaluations=1")
    wanted = {(each["prompt"], each["number"]): each["advantage"] for each in sampled(tmp_path / "run")}
    assert len(wanted) == 12
    rows = {}
    for batch in seen:
        assert len(batch.input_ids) == 4
        for row, number in enumerate(batch.row_ids):
            length = int(batch.attention_mask[row].sum())
            rows[number] = (batch.input_ids[row, :length].tolist(), batch.labels[row, :length].tolist(),
                            batch.advantages[row].item())  # fmt: skip
    assert len(rows) == 12
    answers = {name: each for name, each in made.items() if name.startswith("1/")}
    for name, answer in answers.items():
        _, row, place = map(int, name.split("/"))
        ids, labels, advantage = rows[row * 4 + place]
        prompt = list(answer.prompt.ids)
        assert ids == [*prompt, *answer.ids]
        assert labels == [*[-100] * len(prompt), *answer.ids]
        assert advantage == pytest.approx(wanted[answer.prompt.text, place])


def test_one_accumulated_step_trains_as_one_large_batch(tmp_path):
    for size in (1, 12):
        trained(tmp_path / str(size), "method=ladder", f"train.micro_batch_size={size}", "train.max_steps=3")
    for ours, theirs in zip(log(tmp_path / "1"), log(tmp_path / "12"), strict=True):
        for name in ("loss", "kl", "reward", "eval_reward"):
            if name in theirs:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def test_several_updates_of_a_sampling_move_further_and_at_one_learning_rate(tmp_path):
    told = {}
    for updates in (1, 3):
        options = (f"objective.iterations={updates}", "train.max_steps=2", "train.logging_steps=1")
        trained(tmp_path / str(updates), "method=ladder", *options, "train.scheduler=constant",
                "train.warmup_ratio=0", "objective.clip=0.01", "objective.clip_high=0.01")  # fmt: skip
        told[updates] = [line for line in log(tmp_path / str(updates)) if "loss" in line]
    assert [line["learning_rate"] for line in told[3]] == [line["learning_rate"] for line in told[1]]
    assert told[1][0]["clipped"] == 0, "of one update every ratio is 1"
    assert told[3][0]["clipped"] > 0
    assert told[3][1]["kl"] > told[1][1]["kl"] > 0
    assert sampled(tmp_path / "1")[:12] == sampled(tmp_path / "3")[:12]


def test_the_grader_rewards_right_answers_and_its_workers_are_gone_afterwards(tmp_path):
    import multiprocessing

    trained(tmp_path / "run", "method=ladder", "objective.reward=grader", "objective.max_new_tokens=24",
            "train.max_steps=2", "train.evaluations=1", "objective.group=12")  # fmt: skip
    samples = sampled(tmp_path / "run")
    for each in samples:
        assert each["reward"] == float(each["verdict"] == "correct")
        assert each["answer"] is None or each["verdict"] != "no_answer"
    assert all(each["gold"].isdigit() for each in samples)
    assert "incorrect" in {each["verdict"] for each in samples}
    assert multiprocessing.active_children() == []
    (line,) = [line for line in log(tmp_path / "run") if line["step"] == 1 and "loss" in line]
    assert line["alike"] in (0.0, 1.0)


def test_rewards_of_other_numeric_types_are_read(tmp_path):
    trained(tmp_path / "run", "method=ladder", "objective.reward=tests.train.rewarding:long", "train.max_steps=1",
            "train.evaluations=1")  # fmt: skip
    assert all(each["reward"] == len(each["completion"]) for each in sampled(tmp_path / "run"))
    assert all(each["verdict"] is None for each in sampled(tmp_path / "run"))


def test_what_was_sampled_can_be_graded_again(whole, tmp_path):
    status, printed, errors = run_command(
        "evaluate", [f"completions={whole / 'ladder' / 'completions.jsonl'}", f"output_dir={tmp_path / 'graded'}"]
    )
    assert status == 0, errors
    assert "pass@" in printed


def test_training_on_rewards_raises_them(tmp_path):
    """Some steps on a reward that is easily had: ones among the first tokens."""
    trained(tmp_path / "run", "method=suffix", "objective.reward=tests.train.rewarding:ones", "train.max_steps=20",
            "train.micro_batch_size=16", "train.global_batch_size=32", "objective.group=8", "data.train_samples=64",
            "train.logging_steps=5", "objective.max_new_tokens=8", "train.learning_rate=0.002",
            "train.evaluations=2")  # fmt: skip
    rewards = [line["reward"] for line in log(tmp_path / "run") if "reward" in line]
    assert rewards[-1] > 1.3 * rewards[0]
    adapter = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in adapter.values())


def test_what_an_engine_tells_of_its_tokens_stands_where_they_stand():
    """Behind the prompt, one for each token of the completion, end token included; of an engine that tells nothing
    there is nothing.
    """
    answers = [
        Completion(Prompt("a", "", (5, 6, 7)), "x", 2, "stop", (8, 1), (-0.5, -0.25)),
        Completion(Prompt("b", "", (5,)), "yz", 3, "length", (9, 9, 4), (-1.0, -2.0, -3.0)),
    ]
    found = as_sampled(answers, 6)
    assert found.tolist() == [[0, 0, 0, -0.5, -0.25, 0], [0, -1, -2, -3, 0, 0]]
    assert as_sampled([replace(each, log_probabilities=()) for each in answers], 6) is None
