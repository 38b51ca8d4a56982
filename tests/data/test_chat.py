import pytest
from transformers import AutoTokenizer

from ladder_cli.data.chat import DEFAULT_INSTRUCTION, PromptRenderer

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
