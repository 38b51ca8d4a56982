"""Which rows are held out: whole prompts, never more than half, and what the plan says of it."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.data.examples import Example, hold_out
from ladder_cli.data.registry import load_examples
from ladder_cli.errors import UserError
from tests.data.sets import described
from tests.data.test_sets import own_file


def rows_of(sizes):
    """Rows of as many prompts as there are sizes."""
    return [Example(f"{p}-{n}", f"prompt {p}", f"answer {n}") for p, size in enumerate(sizes) for n in range(size)]


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=20), st.integers(1, 60), st.integers(1, 100))
def test_prompts_stay_whole_and_at_most_half_is_held_out(sizes, wanted, train):
    examples = rows_of(sizes)
    splits = hold_out(examples, wanted, None)
    held = Counter(example.question for example in splits.validation)
    assert {e.id for e in splits.validation} | {e.id for e in splits.train} == {e.id for e in examples}
    assert not set(held) & {example.question for example in splits.train}
    assert 1 <= len(splits.validation) <= len(examples) // 2
    # Not more than asked, but for the rest of the last group.
    assert len(splits.validation) - wanted < max(held.values())
    smaller = hold_out(examples, wanted, train)
    assert smaller.validation == splits.validation
    assert smaller.train == splits.train[:train]


def test_a_prompt_that_owns_most_rows_is_trained_on():
    splits = hold_out(rows_of([36, 1, 1, 1, 1]), 10, None)
    assert (len(splits.train), len(splits.validation)) == (36, 4)
    assert splits.notes[0] == "36 of 40 rows share one prompt: none of them is held out"


def test_one_prompt_alone_is_split_by_its_completions_and_the_leak_is_named():
    splits = hold_out(rows_of([40]), 10, None)
    assert (len(splits.train), len(splits.validation)) == (30, 10)
    assert splits.notes[0].startswith("all 40 rows share one prompt")
    twice = hold_out(rows_of([20]) * 2, 10, None)
    assert not {e.completion for e in twice.train} & {e.completion for e in twice.validation}


def test_rows_that_are_all_the_same_are_refused(tmp_path):
    path = own_file(tmp_path, [{"q": "Why?", "a": "So."}] * 7)
    with pytest.raises(UserError, match="all 7 rows are the same"):
        load_examples(described("jsonl", path=path, prompt="q", completion="a"), None, 0)


def test_chats_share_a_prompt_only_if_everything_before_the_completion_is_the_same():
    """Chats that all end in `Continue.` are as many prompts as there are chats."""
    chats = [
        Example(str(n), "Continue.", "b", (("user", f"{n}?"), ("assistant", "a"), ("user", "Continue.")))
        for n in range(40)
    ]
    splits = hold_out([*chats, *chats[:5]], 10, None)
    assert 10 <= len(splits.validation) <= 11
    assert not {e.messages for e in splits.train} & {e.messages for e in splits.validation}


def test_what_is_not_there_is_said():
    assert hold_out(rows_of([1] * 40), 10, 100).notes == ("data.train_samples=100, there are 30",)
    assert hold_out(rows_of([1] * 40), 100, None).notes == (
        "data.validation_samples=100, held out 20 (at most half of the rows)",
    )
    assert hold_out(rows_of([1] * 40), 10, 30).notes == ()
