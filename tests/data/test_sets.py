"""Label tasks, the user's own files, the critic, overlap with benchmarks."""

import json

import pytest

from ladder_cli.data.examples import Example, Splits
from ladder_cli.data.overlap import normalised, overlap, without
from ladder_cli.data.registry import load_examples
from ladder_cli.errors import UserError
from paper.critic import Candidate, build, write
from tests.data.sets import described as config


def mirror(folder, name, rows, split="train"):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return str(folder)


def test_label_tasks_ask_for_a_label_word(tmp_path):
    rows = [{"sentence": f"Sentence {n}.", "label": n % 2} for n in range(8)]
    splits = load_examples(config("cola"), mirror(tmp_path, "cola", rows), 0)
    assert (len(splits.train), len(splits.validation)) == (6, 2)
    for example in [*splits.train, *splits.validation]:
        number = int(example.question.split("Sentence ")[1].split(".")[0])
        assert example.completion == ("No", "Yes")[number % 2]


@pytest.mark.parametrize("label", [2, "1", None, 1.0])
def test_a_label_that_is_none_is_refused_with_its_row(tmp_path, label):
    rows = [{"sentence": "Fine.", "label": 1}, {"sentence": "Odd.", "label": label}]
    with pytest.raises(UserError, match="cola row 2: column 'label' must be 0 or 1"):
        load_examples(config("cola"), mirror(tmp_path, "cola", rows), 0)


def own_file(tmp_path, rows):
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_columns_of_an_own_file(tmp_path):
    path = own_file(tmp_path, [{"q": f"Question {n}", "a": f"Answer {n}"} for n in range(10)])
    splits = load_examples(config("jsonl", path=path, prompt="q", completion="a"), None, 0)
    assert len(splits.train) == 8
    assert all(example.completion == example.question.replace("Question", "Answer") for example in splits.train)


def test_chats_keep_their_history_as_the_prompt(tmp_path):
    turns = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi."), ("user", "And?"), ("assistant", "Bye.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    others = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}] for n in range(3)]
    path = own_file(tmp_path, [{"chat": chat} for chat in (messages, *others)])
    example = load_examples(config("jsonl", path=path, messages="chat"), None, 0)
    example = next(row for row in [*example.train, *example.validation] if row.question == "And?")
    assert example.messages == tuple(turns[:-1])
    assert (example.question, example.completion) == ("And?", "Bye.")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"q": "a", "a": "b"}], {}, "Give data.prompt=COLUMN and data.completion=COLUMN"),
        ([{"q": "a", "a": "b"}], {"prompt": "x", "completion": "a"}, "row 1 has no column 'x'; it has: q, a."),
        ([{"chat": "hello"}], {"messages": "chat"}, "row 1: column 'chat' holds no list of messages"),
        ([{"chat": [{"role": "user", "content": "a"}]}], {"messages": "chat"}, "the last message must be the assist"),
        ([{"chat": [{"role": "robot", "content": "a"}]}], {"messages": "chat"}, "turn 1: a message needs a role"),
        ([{"chat": [{"role": "assistant", "content": "a"}]}], {"messages": "chat"}, "no user's message"),
    ],
)
def test_mistakes_in_an_own_file_are_one_line(tmp_path, rows, options, message):
    path = own_file(tmp_path, rows)
    with pytest.raises(UserError, match=message):
        load_examples(config("jsonl", path=path, **options), None, 0)


def test_own_data_without_a_file_says_what_to_give():
    with pytest.raises(UserError, match=r"give data\.path="):
        load_examples(config("jsonl"), None, 0)


CANDIDATES = [Candidate(f"question {n % 20}", f"solution {n}", n % 3 == 0) for n in range(200)]


def test_the_critic_is_balanced_and_split_by_question():
    train, test = build(CANDIDATES, 40, 20)
    for rows, size in ((train, 40), (test, 20)):
        assert len(rows) <= size
        assert sum(row.correct for row in rows) == len(rows) / 2
    assert not {row.question for row in train} & {row.question for row in test}
    assert build(reversed(CANDIDATES), 40, 20)[1], "the order of the candidates does not decide"


def test_the_critic_needs_both_kinds():
    with pytest.raises(UserError, match="of 10 completions 10 are right"):
        build([Candidate(str(n), "x", True) for n in range(10)], 4, 4)


def test_the_critic_that_was_built_can_be_trained_on(tmp_path):
    write(tmp_path / "critic", *build(CANDIDATES, 40, 20))
    splits = load_examples(config("critic"), str(tmp_path), 0)
    asked = lambda rows: {row.question.split("\n")[0] for row in rows}  # noqa: E731
    assert not asked(splits.train) & asked(splits.validation), "a question stands on both sides"
    assert {example.completion for example in splits.train} == {"No", "Yes"}


def test_overlap_sees_through_typesetting():
    assert normalised(r"Find $\left( x \right)$,  please!") == normalised("find $(x)$ please")
    assert normalised("Find 1+1") != normalised("Find 1-1")
    examples = [Example("1", "Find $x$.", ""), Example("2", r"Find \, $ x $", ""), Example("3", "Find $y$.", "")]
    found = overlap(examples, ["Find  $x$."])
    assert (found.exact, found.normalised) == (["1"], ["1", "2"])
    cleaned, removed = without(Splits(examples, examples), ["Find $x$."])
    assert removed == 4
    assert [example.id for example in cleaned.train] == ["3"]


def test_s1k_shares_five_problems_with_the_benchmarks(shared):
    from ladder_cli.data.benchmarks import all_questions

    questions, _ = all_questions(str(shared / "data"))
    splits = load_examples(config("s1k"), str(shared / "data"), 0)
    everything = [*splits.train, *splits.validation]
    assert len(overlap(everything, questions["math500"]).normalised) == 3
    assert len(overlap(everything, questions["olympiadbench"]).normalised) == 2


def test_decontamination_is_all_or_nothing(tmp_path):
    from ladder_cli.config.schema import ModelConfig, TrainConfig
    from ladder_cli.data.prepare import prepare_data

    folder = mirror(tmp_path, "s1k", [{"question": f"Question {n}?", "solution": "42"} for n in range(8)])
    train = TrainConfig(
        model=ModelConfig(name="tiny", path="builtin:tiny"), data=config("s1k", decontaminate=True), data_dir=folder
    )
    with pytest.raises(UserError, match=r"cannot read aime24, .*math500"):
        prepare_data(train)
