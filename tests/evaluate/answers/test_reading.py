r"""Where an answer stands in a completion, and that the examples of the docs are true."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ladder_cli.data.gold import AS_EXPRESSION
from ladder_cli.evaluate.answers.answer import (
    BOX,
    FORMULA,
    LONGEST_READ,
    NONE,
    NUMBER,
    PHRASE,
    WHOLE,
    has_box,
    read_answer,
)
from ladder_cli.evaluate.answers.verdict import boxes, judge

DOCS = Path(__file__).parents[3] / "docs" / "evaluation.md"
EXAMPLES = re.findall(
    r"^\| `(.+?)` \| `(.+?)` \| (\w+) \|$",
    DOCS.read_text().split("<!-- examples")[1].split("<!-- end")[0],
    re.MULTILINE,
)


def test_the_docs_show_examples_of_every_verdict_that_reading_gives():
    assert len(EXAMPLES) >= 40
    assert {verdict for _, _, verdict in EXAMPLES} == {"correct", "incorrect", "no_answer"}


@pytest.mark.parametrize(("gold", "completion", "verdict"), EXAMPLES)
def test_an_example_of_the_docs_is_judged_as_they_say(gold, completion, verdict):
    assert judge(gold, completion, AS_EXPRESSION).verdict == verdict


@pytest.mark.parametrize(
    ("completion", "text", "found"),
    [
        ("so \\boxed{7} it is", "7", BOX),
        ("so \\boxed {7} it is", "7", BOX),
        ("so $\\boxed 7$", "7", BOX),
        ("so $\\boxed12$", "12", BOX),
        ("so \\boxed\\frac{1}{2}.", "\\frac{1}{2}", BOX),
        ("\\fbox{7}", "7", BOX),
        ("\\framebox{7}", "7", BOX),
        ("\\\\boxed{7}", "7", BOX),
        ("\x08oxed{7} is no box; \\boxed{\x0crac{1}{2}} is", "\\frac{1}{2}", BOX),
        ("\\boxed{\\boxed{7}}", "7", BOX),
        ("\\boxed{\\text{so } \\boxed{7}}", "7", BOX),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}", BOX),
        ("\\boxed{7} and later \\boxed{}", "7", BOX),
        ("put it in \\boxed{}: the answer is 7.", "7", PHRASE),
        ("$x=7$ so \\boxed{}", None, NONE),
        ("$x=7$ so \\boxed{\\frac{", None, NONE),
        ("\\boxed{6} no: \\boxed{7", None, NONE),
        ("\\boxed{28} percent", "28\\%", BOX),
        ("<think>\\boxed{6}</think>It is $7$.", "7", FORMULA),
        ("<think>\\boxed{7}</think>", "7", BOX),
        ("<think>it could be 7", None, NONE),
        ("\\boxed{7} <think> or perhaps \\boxed{8}", "7", BOX),
        ("<answer>7</answer>", "7", PHRASE),
        ("**Answer:** 7", "7", PHRASE),
        ("6 + 1\n#### 7", "7", PHRASE),
        ("The final answer is $7$. I tried 3 ways.", "7", PHRASE),
        ("\\boxed{6}. Final Answer: The final answer is $7$. I hope it is correct.", "7", PHRASE),
        ("\\boxed{6}. The final answer is easy to check: 7 works.", "6", BOX),
        ("The answer is not 7.", None, NONE),
        ("The solutions are 2 and 3.", "2 and 3", PHRASE),
        ("$x = 7$", "$x = 7$", WHOLE),
        ("Of 9 cases 7 remain", "7", NUMBER),
        ("It costs $1,000.50 in all", "1,000.50", NUMBER),
        ("we see that $x = 7$, which was asked for", "x = 7", FORMULA),
        ("I do not know", None, NONE),
        ("", None, NONE),
    ],
)
def test_the_answer_is_found_where_it_stands(completion, text, found):
    answer = read_answer(completion)
    assert (answer.text, answer.found) == (text, found)


@pytest.mark.parametrize(
    ("completion", "parts", "text"),
    [
        ("\\boxed{2} and \\boxed{3}", 1, "2, 3"),
        ("$\\boxed{2}, \\boxed{3}$", 1, "2, 3"),
        ("\\boxed{2} or \\boxed{3}", 1, "2, 3"),
        ("\\boxed{3}\\boxed{3}", 1, "3"),
        ("$\\boxed{2}$ and $\\boxed{3}$", 1, "3"),
        ("$\\boxed{2}$ or $\\boxed{3}$", 1, "2, 3"),
        ("The possible values are $\\boxed{2}$ or $\\boxed{3}$", 1, "3"),
        ("$\\boxed{3}$, $\\boxed{3}$", 2, "3, 3"),
        ("$\\boxed{2}$ and $\\boxed{3}$", 2, "2, 3"),
        ("\\boxed{2}\n\\boxed{3}", 1, "3"),
        ("\\boxed{2} is one. The other one is\n\n\\boxed{3}", 2, "2, 3"),
        ("\\boxed{2} is one. The other one is\n\n\\boxed{3}", 1, "3"),
        ("\\boxed{2}? No: \\boxed{3}", 2, "3"),
        ("\\boxed{2}, wait, \\boxed{3}", 2, "3"),
        ("a is \\boxed{2}, so the sum is \\boxed{3}", 1, "3"),
        ("\\boxed{2} apples and \\boxed{3} pears", 1, "2, 3"),
        ("\\boxed{1}\n\n\\boxed{2} and \\boxed{3}", 2, "2, 3"),
    ],
)
def test_boxes_are_read_together_only_where_the_text_or_the_gold_says_so(completion, parts, text):
    assert read_answer(completion, parts=parts).text == text


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("we get $7$", None),
        ("the answer is 7. Then", None),
        ("\\boxed{7} and then", "7"),
        ("$7$ so \\boxed{8", None),
        ("", None),
    ],
)
def test_a_completion_that_was_cut_off_has_a_complete_box_or_no_answer(completion, text):
    assert read_answer(completion, truncated=True).text == text
    assert has_box(completion) == (text is not None)


def test_of_a_very_long_completion_the_end_is_read_by_everything():
    early, late = "\\boxed{7}" + " word" * LONGEST_READ, "word " * LONGEST_READ + "\\boxed{7}"
    assert not has_box(early)
    assert read_answer(early, truncated=True).text is None
    assert has_box(late)
    assert read_answer(late).text == "7"
    assert f"only the last {LONGEST_READ}" in read_answer(late).notes[0]


def test_a_sample_says_how_its_answer_was_found():
    assert judge("2, 3", "\\boxed{2} and \\boxed{3}", AS_EXPRESSION).reading == {
        "found": "box",
        "boxes": ["2", "3"],
        "compared": "the same string",
    }
    assert "cut off" in str(judge("7", "it is 7", AS_EXPRESSION, truncated=True).reading)


def test_boxes_are_found_in_one_pass_at_any_depth():
    assert boxes("a \\boxed{1} b \\fbox{\\frac{1}{2}} \\boxed{never closed") == ["1", "\\frac{1}{2}"]
    assert boxes("\\boxed{a \\boxed{b}}") == ["b"]
    assert boxes("\\boxed{\\{1, 2\\}}") == ["\\{1, 2\\}"]


@example("$ $")
@given(st.text("\\boxed{} fb7a$,()<think>/and\n", max_size=60))
def test_any_text_is_read_and_an_answer_is_never_empty(text):
    answer = read_answer(text)
    assert (answer.text is None) == (answer.found == NONE)
    assert answer.text is None or answer.text.strip()


@given(
    st.integers(-(10**6), 10**6),
    st.sampled_from(["", " words", "\n\n", " \\boxed{}", " (see \\boxed{your answer})", "."]),
)
def test_what_follows_a_box_takes_nothing_from_it(value, after):
    assert read_answer(f"thus \\boxed{{{value}}}{after}").text == str(value)
