import hashlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ladder_cli.data.chat import DEFAULT_INSTRUCTION, PromptRenderer
from ladder_cli.data.chat_template import with_fixed_clock
from ladder_cli.data.encoding import encode
from ladder_cli.data.examples import Example
from ladder_cli.errors import UserError

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|system|>Be kind.<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def tokenizer(tiny_config):
    return AutoTokenizer.from_pretrained(tiny_config.location)


def test_prompt_and_completion_are_what_the_chat_template_renders(tokenizer):
    tokenizer.chat_template = CHATML
    renderer = PromptRenderer(tokenizer, "Think.")
    rendered = renderer.render("What is 1+1?", "It is \\boxed{2}.")
    messages = [{"role": "user", "content": "What is 1+1?\nThink."}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    messages.append({"role": "assistant", "content": "It is \\boxed{2}."})
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(rendered.ids[: rendered.prompt_length]) == prompt
    assert tokenizer.decode(rendered.ids) == whole.removesuffix("\n")
    assert renderer.prompt_ids("What is 1+1?") == rendered.ids[: rendered.prompt_length]


def test_the_end_token_is_the_one_that_the_template_puts_there(tokenizer):
    tokenizer.chat_template = CHATML
    tokenizer.eos_token = "<|pad|>"
    renderer = PromptRenderer(tokenizer, "")
    assert tokenizer.decode([renderer.end_id]) == "<|end|>"
    assert renderer.stop_ids == sorted(tokenizer.convert_tokens_to_ids(["<|end|>", "<|pad|>"]))


def test_a_plain_template_serves_where_there_is_none(tokenizer):
    tokenizer.chat_template = None
    renderer = PromptRenderer(tokenizer, "")
    assert renderer.prompt_text("What?") == "Question: What?\nAnswer:\n"
    assert renderer.render("What?", "That.").ids[-1] == tokenizer.eos_token_id


def test_the_fingerprint_follows_template_and_instruction(tokenizer):
    one = PromptRenderer(tokenizer, DEFAULT_INSTRUCTION).fingerprint
    assert one == PromptRenderer(tokenizer, DEFAULT_INSTRUCTION).fingerprint
    assert one != PromptRenderer(tokenizer, "Think.").fingerprint
    tokenizer.chat_template = CHATML
    assert one != PromptRenderer(tokenizer, DEFAULT_INSTRUCTION).fingerprint


CLOCK = "{% if strftime_now is defined %}<|system|>Today is {{ strftime_now('%d %b %Y, %H:%M') }}.<|end|>{% endif %}\n"


def test_a_template_that_prints_the_date_prints_the_recorded_one(tokenizer):
    tokenizer.chat_template = CLOCK + CHATML
    first, again, later = (PromptRenderer(tokenizer, "", date) for date in ("2026-01-01", "2026-01-01", "2026-03-09"))
    assert first.prompt_text("q").startswith("<|system|>Today is 01 Jan 2026, 00:00.<|end|>")
    assert later.prompt_text("q").startswith("<|system|>Today is 09 Mar 2026, 00:00.<|end|>")
    assert first.fingerprint == again.fingerprint != later.fingerprint
    assert first.as_dict() == {"instruction": "", "date": "2026-01-01", "fingerprint": first.fingerprint}


def test_an_adapter_from_before_dates_were_recorded_is_taken_where_its_prompt_is_provably_the_same(tokenizer):
    """Its record is one that such a version wrote, for the embedded model."""
    written = {"instruction": DEFAULT_INSTRUCTION, "fingerprint": "e687bcb7f725b6a6"}
    assert PromptRenderer(tokenizer, DEFAULT_INSTRUCTION).is_rendering_of(written)
    assert not PromptRenderer(tokenizer, "Think.").is_rendering_of(written)
    assert not PromptRenderer(tokenizer, DEFAULT_INSTRUCTION).is_rendering_of(written | {"date": "2026-01-01"})
    tokenizer.chat_template = CHATML
    assert not PromptRenderer(tokenizer, DEFAULT_INSTRUCTION).is_rendering_of(written)


def test_of_a_template_that_prints_the_day_a_record_without_one_proves_nothing(tokenizer):
    tokenizer.chat_template = CLOCK + CHATML
    renderer = PromptRenderer(tokenizer, "")
    source = json.dumps([CLOCK + CHATML, "", renderer.end_id])
    before = {"instruction": "", "fingerprint": hashlib.sha256(source.encode()).hexdigest()[:16]}
    assert renderer.prints_date
    assert not renderer.is_rendering_of(before)
    assert not renderer.is_rendering_of({"instruction": "", "fingerprint": renderer.fingerprint})
    assert renderer.is_rendering_of(renderer.as_dict())


def test_the_day_is_no_part_of_a_prompt_that_does_not_print_it(tokenizer):
    tokenizer.chat_template = CHATML
    assert PromptRenderer(tokenizer, "").fingerprint == PromptRenderer(tokenizer, "", "2020-02-29").fingerprint


@settings(deadline=None)
@given(
    st.dates(datetime(1990, 1, 1).date(), datetime(2100, 1, 1).date()),
    st.lists(st.sampled_from(["%d", "%b", "%B", "%Y", "%-d", "%H:%M:%S", "%A", "%j", "%y", "%%", "%%d", "x", " "])),
)
@pytest.mark.slow
def test_the_stopped_clock_says_what_strftime_says(tiny_tokenizer, day, parts):
    """Nothing of the template around it changes: white space and line breaks at its beginning stay."""
    form = "".join(parts)
    template = "  {% if true %}\n\n{% endif %}<{{ strftime_now('" + form + "') }}>{{ messages[0]['content'] }}"
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rendered = tiny_tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}], chat_template=with_fixed_clock(template, day.isoformat()), tokenize=False
    )
    assert rendered == f"\n<{moment.strftime(form)}>q"


def test_the_fingerprint_is_of_what_is_rendered_and_not_of_the_source(tokenizer):
    tokenizer.chat_template = CHATML
    one = PromptRenderer(tokenizer, "")
    tokenizer.chat_template = "{# a remark #}" + CHATML.replace("for m in", "for turn in").replace("m['", "turn['")
    other = PromptRenderer(tokenizer, "")
    assert one.fingerprint == other.fingerprint
    assert one.source_fingerprint != other.source_fingerprint, "tokenised rows are not taken from another template's"


@pytest.mark.parametrize(
    "change",
    [
        ("Be kind.", "Be brief."),
        ("{{ m['content'] }}", "{{ m['content'] | trim }}"),
        ("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}"),
        ("{% if add_generation_prompt %}<|assistant|>", "{% if add_generation_prompt %}<|assistant|>\n"),
        ("{{ m['content'] }}", "{{ m['content'] }}{{ '!' if m['role'] == 'tool' }}"),
        ("{% for m", "{{ raise_exception('no') if messages[0]['role'] == 'system' }}{% for m"),
        ("{{ m['content'] }}", "{{ m['content'] | replace('[INST]', '') }}"),
    ],
)
def test_the_fingerprint_follows_every_change_of_what_is_rendered(tokenizer, change):
    tokenizer.chat_template = CHATML
    one = PromptRenderer(tokenizer, "").fingerprint
    assert change[0] in CHATML
    tokenizer.chat_template = CHATML.replace(*change)
    assert PromptRenderer(tokenizer, "").fingerprint != one


def test_the_tokenizers_fingerprint_follows_its_tokens_and_not_its_last_call(tokenizer):
    one = PromptRenderer(tokenizer, "").tokenizer_fingerprint
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2)
    assert PromptRenderer(tokenizer, "").tokenizer_fingerprint == one
    tokenizer.add_tokens(["PROBE"])
    assert PromptRenderer(tokenizer, "").tokenizer_fingerprint != one


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML.replace("{% endfor %}", "", 1), "chat template is broken .line 2: "),
        (CLOCK + "\n" + CHATML.replace("{% endfor %}", ""), "chat template is broken .line 4: "),
        ({"rag": CHATML, "tool_use": CHATML}, "several chat templates .rag, tool_use. and none is named 'default'"),
        ("{{ messages[0]['content'] + 1 }}", "fails on this conversation .TypeError"),
        ("{{ nothing.there }}", "refuses this conversation .user, assistant."),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(tokenizer, template, message):
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=message) as raised:
        PromptRenderer(tokenizer, "")
    assert "\n" not in str(raised.value)


def test_several_templates_with_a_default_are_that_one(tokenizer):
    tokenizer.chat_template = {"default": CHATML, "rag": "{{ 1 / 0 }}"}
    several = PromptRenderer(tokenizer, "")
    tokenizer.chat_template = CHATML
    assert several.fingerprint == PromptRenderer(tokenizer, "").fingerprint


def test_a_conversation_that_a_template_refuses_is_named_by_its_row(tokenizer):
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    tokenizer.chat_template = strict + CHATML
    examples = [
        Example(str(n), "q", "a", ((("system", "s"),) if n == 18 else ()) + (("user", "q"),)) for n in range(30)
    ]
    with pytest.raises(
        UserError, match=r"row '18': the model's chat template refuses .*system, user.: no system messages"
    ):
        encode(examples, PromptRenderer(tokenizer, ""), 100, "error")


def test_a_tokenizer_without_any_end_is_refused(tokenizer):
    tokenizer.chat_template, tokenizer.eos_token = None, None
    with pytest.raises(UserError, match="neither a chat template that ends a turn nor an end token"):
        PromptRenderer(tokenizer, "")
