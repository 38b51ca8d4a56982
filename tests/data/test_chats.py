"""Chats: what of a message is read, and which turns are learned."""

import json
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ladder_cli.config.choices import Learn
from ladder_cli.data.batching import PackedRows
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.chats import chat, turn
from ladder_cli.data.encoding import IGNORED_LABEL, encode
from ladder_cli.data.examples import Example
from ladder_cli.errors import UserError
from tests.data.sets import described

DATA = described("jsonl", messages="m")
CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As Qwen3's: what was thought in earlier turns is left out once the chat goes on.
FORGETFUL = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{{ m['content'].split('</think>')[-1] if not loop.last else m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEMPLATES = {"its own": "its own", "trimming": CHATML, "none": None}


def renderer_with(tiny_config, template):
    tokenizer = AutoTokenizer.from_pretrained(tiny_config.location)
    if template != "its own":
        tokenizer.chat_template = template
    return PromptRenderer(tokenizer, "Think.")


@pytest.fixture(scope="module", params=TEMPLATES)
def renderer(tiny_config, request):
    return renderer_with(tiny_config, TEMPLATES[request.param])


TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs", "Z", "C")), min_size=1, max_size=20)
REST = st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool", "system"]), TEXT), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=TEXT, rest=REST, completion=TEXT)
def test_labels_cover_exactly_the_assistants_turns_and_their_end_tokens(renderer, first, rest, completion):
    messages = (("user", first), *rest)
    (row,) = encode([Example("1", first, completion, messages)], renderer, 100_000, "error", learn=Learn.ALL)
    spans, current = [], []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (IGNORED_LABEL, token)
        if label != IGNORED_LABEL:
            current.append(token)
            if token == renderer.end_id:
                spans.append(renderer.tokenizer.decode(current[:-1]))
                current = []
    assert not current, "a turn that counts does not end with the end token"
    said = [text for role, text in rest if role == "assistant"] + [completion]
    assert spans == [unicodedata.normalize("NFC", text) for text in said]
    # The same tokens as where only the last turn counts, whose prompt is what evaluation would see.
    (last,) = encode([Example("1", first, completion, messages)], renderer, 100_000, "error", learn=Learn.LAST)
    assert last["input_ids"] == row["input_ids"]
    prompt = renderer.prompt_ids(first, messages)
    assert last["labels"] == [IGNORED_LABEL] * len(prompt) + row["input_ids"][len(prompt) :]


def chats(count):
    before = lambda n: (("user", "Hello " * (n + 1)), ("assistant", "Hi."), ("tool", "42"), ("user", "?"))  # noqa: E731
    return [Example(str(n), "?", "Bye.", (("system", "Be brief."), *before(n))) for n in range(count)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 12), max_length=st.integers(8, 60))
def test_packed_and_cut_chats_count_the_same_tokens(renderer, count, max_length):
    rows = encode(chats(count), renderer, max_length, "left", learn=Learn.ALL)
    whole = encode(chats(count), renderer, 100_000, "error", learn=Learn.ALL)
    for row, full in zip(rows, whole, strict=True):
        assert row["labels"][0] == IGNORED_LABEL
        assert row["labels"][1:] == full["labels"][-len(row["labels"]) + 1 :]
    counted = [label for row in rows for label in row["labels"] if label != IGNORED_LABEL]
    assert rows.counted_tokens == len(counted)
    packed = PackedRows(rows, rows.lengths, max_length)
    again = [label for n in range(len(packed)) for label in packed[n]["labels"] if label != IGNORED_LABEL]
    assert sorted(again) == sorted(counted)


def test_a_template_that_rewrites_earlier_turns_is_refused_for_all_turns_and_taken_for_the_last(tiny_config):
    renderer = renderer_with(tiny_config, FORGETFUL)
    messages = (("user", "1+1?"), ("assistant", "<think>easy</think>2"), ("user", "Sure?"))
    examples = [Example("7", "Sure?", "Yes.", messages)]
    with pytest.raises(UserError, match=r"row '7': turn 2, the assistant's, is written otherwise .* data\.learn=last"):
        encode(examples, renderer, 1000, "error", learn=Learn.ALL)
    (row,) = encode(examples, renderer, 1000, "error", learn=Learn.LAST)
    counted = [label for label in row["labels"] if label != IGNORED_LABEL]
    assert renderer.tokenizer.decode(counted) == "Yes.<|end|>"
    # Where nothing was thought, nothing is left out.
    plain = [Example("8", "Sure?", "Yes.", (("user", "1+1?"), ("assistant", "2"), ("user", "Sure?")))]
    (row,) = encode(plain, renderer, 1000, "error", learn=Learn.ALL)
    assert (
        renderer.tokenizer.decode([label for label in row["labels"] if label != IGNORED_LABEL]) == "2<|end|>Yes.<|end|>"
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ((("user", "a"), ("assistant", " "), ("user", "b")), "turn 2, the assistant's, is empty"),
        ((("assistant", "Hello!"), ("user", "b")), "turn 1, the assistant's, answers nothing"),
    ],
)
def test_turns_that_cannot_be_learned_are_refused_for_all_turns(tiny_config, messages, message):
    renderer = renderer_with(tiny_config, "its own")
    with pytest.raises(UserError, match=message):
        renderer.render("", "Yes.", messages, Learn.ALL)
    assert renderer.render("", "Yes.", messages, Learn.LAST).earlier == ()


def test_an_end_token_that_a_text_brings_is_written_once(tiny_config):
    renderer = renderer_with(tiny_config, "its own")
    messages = (("user", "a"), ("assistant", "b<|end|>"), ("user", "c"))
    brought = renderer.render("", "d<|end|><|end|> \n", messages, Learn.ALL)
    plain = renderer.render("", "d", (("user", "a"), ("assistant", "b"), ("user", "c")), Learn.ALL)
    assert brought == plain
    with pytest.raises(UserError, match="nothing but an end token"):
        renderer.render("q", "<|end|>")


def test_sharegpt_and_parts_of_text_are_the_same_chat():
    openai = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    sharegpt = [{"from": who, "value": text} for who, text in (("system", "s"), ("human", "u"), ("gpt", "a"))]
    parts = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in openai]
    extra = [{**message, "tool_calls": None, "from": None, "id": 7} for message in openai]
    made = [chat(messages, DATA, "1", "row 1") for messages in (openai, sharegpt, parts, extra)]
    assert made == [made[0]] * 4
    assert made[0] == Example("1", "u", "a", (("system", "s"), ("user", "u")))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "has 'tool_calls', which is not read"),
        ({"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}, "has 'tool_calls', which is not read"),
        ({"role": "assistant", "content": "a", "reasoning_content": "hm"}, "has 'reasoning_content'"),
        ({"role": "assistant", "content": "a", "weight": 0}, "has 'weight'"),
        ({"from": "gpt", "value": "a", "role": "user"}, "has both role/content and from/value"),
        ({"from": "bot", "value": "a"}, "needs a role .*human, gpt.*, not 'bot'"),
        ({"role": "developer", "content": "a"}, "needs a role .*, not 'developer'"),
        ({"role": ["user"], "content": "a"}, "needs a role"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "has a part of type 'image_url'"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}] * 2}, "has 2 parts of text: join them"),
        ({"role": "user", "content": [{"type": "text"}]}, "needs a role and a text"),
        ({"role": "user", "content": []}, "needs a role and a text"),
        ("hello", "needs a role"),
    ],
)
def test_a_message_that_cannot_be_read_whole_is_refused(message, reason):
    with pytest.raises(UserError, match=f"^row 1, turn 3.*{reason}") as raised:
        turn(message, "row 1, turn 3")
    assert "\n" not in str(raised.value)


def test_the_plan_says_how_many_texts_bring_their_end_token(tmp_path, monkeypatch):
    from ladder_cli.config.schema import ModelConfig, TrainConfig
    from ladder_cli.data.prepare import prepare_data

    rows = [{"q": f"{n}?", "a": f"{n}<|end|>" if n % 2 else str(n)} for n in range(10)] + [{"q": "?", "a": "1<|end|>2"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    data = described("jsonl", path="rows.jsonl", prompt="q", completion="a")
    prepared = prepare_data(TrainConfig(model=ModelConfig(name="tiny", path="builtin:tiny"), data=data))
    assert prepared.notes == (
        "5 of the assistant's texts bring their own end token (<|end|>): it is written once",
        "1 of the assistant's texts holds an end token (<|end|>) before its end: what follows it is never generated",
    )
