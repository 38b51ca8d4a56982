"""Paths and texts as a user types them, and what Hydra makes of them."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from ladder_cli.config.quoting import as_typed, quote, quoted_words
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError


def read(word, sweep=False):
    """What Hydra reads from a word after it was quoted: one value, or the values of a sweep."""
    (word,) = quoted_words([word], TrainConfig, sweep)
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return override.value()
    return [OverridesParser.create().parse_override(f"x={each}").value() for each in override.sweep_string_iterator()]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_whatever_is_quoted_is_read_as_it_is(text):
    assert OverridesParser.create().parse_override(f"output_dir={quote(text)}").value() == text


@pytest.mark.parametrize(
    "path",
    [
        *("/r/a b", "/r/a=b", "/r/[a]", "/r/(a)", "/r/é", "~/x", "/r/a{b}", "/r/a'b", '/r/a"b', "/r/a#b", "/r/日本"),
        *("/r/a&b;c", "/r/a ", "2026_11_25", "1e3", "true", "inf", "007", "run(1)", "/r/b\\c", "plain", "a:b"),
    ],
)
def test_a_path_is_taken_as_it_is(path):
    assert read(f"output_dir={path}") == path
    assert read(f"++output_dir={path}") == path


def test_a_name_with_a_comma_or_brackets_is_a_path_if_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read("data.path=a,b") == ["a", "b"]
    assert read("output_dir=[a]") == ["a"]
    for name in ("a,b", "[a]"):
        (tmp_path / name).touch()
        assert read(f"data.path={name}") == name
    assert read("data.path=a,b", sweep=True) == "a,b"


def test_sides_are_told_apart_by_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed=1,rate=2").mkdir()
    for written in ("compare=[seed=1,rate=2,other]", "compare=seed=1,rate=2,other"):
        assert read(written) == ["seed=1,rate=2", "other"]


def test_values_of_a_sweep_are_quoted_one_by_one():
    assert read("data.path=/r/é,/r/b c", sweep=True) == ["/r/é", "/r/b c"]
    assert read("data.path=choice(a,b)", sweep=True) == ["a", "b"]


def test_what_hydra_can_read_or_is_no_text_is_left_alone():
    words = [
        "output_dir=null",
        "output_dir='a b'",
        "seed=1_0",
        "train.max_steps=[",
        "data.path=${data.name}.jsonl",
        "-m",
    ]
    assert quoted_words(words, TrainConfig, sweep=False) == words


def test_a_text_may_hold_anything():
    assert read("data.instruction=Löse: 1 = 2?") == "Löse: 1 = 2?"


def test_the_home_of_nobody_is_refused():
    with pytest.raises(UserError, match="there is no user ~no-such-user"):
        quoted_words(["model.path=~no-such-user/x"], TrainConfig, sweep=False)


def test_the_quoting_that_a_message_shows_is_what_hydra_reads():
    assert as_typed("seed", "é") == "'seed=\"é\"'"
    assert as_typed("benchmarks", "[é.jsonl,b]") == '\'benchmarks=["é.jsonl","b"]\''
    assert as_typed("method.connections", "[[1,é]]") is None
