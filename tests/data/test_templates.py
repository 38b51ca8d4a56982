r"""Texts made of columns: `{instruction}\n\n{input?}`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder_cli.data.templates import ColumnTemplate
from ladder_cli.errors import UserError

ALPACA = r"{instruction}\n\n### Input:\n{input?}\n\n### Response:"


def made(text, row):
    return ColumnTemplate("data.prompt", text).text(row, "rows, row 1")


def test_a_paragraph_whose_optional_column_is_empty_is_left_out():
    whole = made(ALPACA, {"instruction": "Add.", "input": "1 and 2"})
    assert whole == "Add.\n\n### Input:\n1 and 2\n\n### Response:"
    for row in ({"input": ""}, {"input": " \n"}, {"input": None}, {}):
        assert made(ALPACA, {"instruction": "Add.", **row}) == "Add.\n\n### Response:"
    assert made(r"{context?}\n\n{q}", {"q": "Why?", "context": ""}) == "Why?", "no blank lines are left at the front"


def test_a_name_without_braces_is_a_column():
    assert made("my question", {"my question": "Why?"}) == "Why?"
    assert made("a\\nb", {"a\\nb": "Why?"}) == "Why?"


def test_escapes_stand_for_what_a_command_line_cannot_hold():
    assert made(r"{q}\n\t\\n{{x}}", {"q": "Why?"}) == "Why?\n\t\\n{x}"


@given(st.text(min_size=1).filter(str.strip))
def test_a_columns_text_is_never_read_as_a_template(text):
    assert made("<{q}>", {"q": text}) == f"<{text}>"


@pytest.mark.parametrize("text", ["{q.__class__}", "{q[0]}", "{q!r}", "{q:>10}", "{}", "{?}", "{q??}", "{q", "q}", "{{q}}"])
def test_nothing_but_plain_column_names_stands_in_braces(text):
    with pytest.raises(UserError, match=r"^data\.prompt"):
        made(text, {"q": "Why?"})


@pytest.mark.parametrize(
    ("text", "row", "message"),
    [
        ("{questoin}", {"question": "Why?"}, "row 1 has no column 'questoin'; it has: question. Did you mean 'question'"),
        ("{q}", {"q": ""}, r"row 1: column 'q' is empty: write \{q\?\}"),
        ("{q}", {"q": 7}, "row 1: column 'q' holds no text"),
        ("{q?}", {"q": 7}, "row 1: column 'q' holds no text"),
        ("{q?}", {"q": ""}, "row 1: nothing is left of the template"),
    ],
)
def test_a_row_that_does_not_fit_is_named(text, row, message):
    with pytest.raises(UserError, match=message):
        made(text, row)


def test_an_optional_column_that_no_row_has_is_a_misspelt_one():
    template = ColumnTemplate("data.prompt", "{q}\n\n{inptu?}")
    with pytest.raises(UserError, match="no column 'inptu'; it has: q, input. Did you mean 'input'"):
        template.texts([{"q": "Why?", "input": ""}, {"q": "How?", "input": "x"}], "rows")
    assert template.texts([{"q": "Why?"}, {"q": "How?", "inptu": "x"}], "rows") == ["Why?", "How?\n\nx"]
