"""The rendering with a real tokenizer on real rows: LADDER_REAL_TOKENIZER=DIR, and the folder shared/ beside."""

import os
import unicodedata

import pytest
from transformers import AutoTokenizer

from ladder_cli.data.chat import DEFAULT_INSTRUCTION, PromptRenderer
from ladder_cli.data.encoding import IGNORED_LABEL, encode
from ladder_cli.data.registry import load_examples
from tests.data.sets import described

FOLDER = os.environ.get("LADDER_REAL_TOKENIZER")
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(FOLDER is None, reason="needs a tokenizer: LADDER_REAL_TOKENIZER=DIR"),
]


def test_prompt_and_mask_on_a_thousand_real_rows(shared, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    renderer = PromptRenderer(tokenizer, DEFAULT_INSTRUCTION)
    splits = load_examples(described("s1k", validation_samples=1), str(shared / "data"), 0)
    examples = [*splits.train, *splits.validation]
    assert len(examples) == 1000
    rows = encode(examples, renderer, 100_000, "error", cache=tmp_path)
    for example, row in zip(examples, rows, strict=True):
        messages = [{"role": "user", "content": f"{example.question}\n{DEFAULT_INSTRUCTION}"}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert row["input_ids"][: len(prompt)] == prompt
        assert set(row["labels"][: len(prompt)]) == {IGNORED_LABEL}
        counted = row["labels"][len(prompt) :]
        assert counted == row["input_ids"][len(prompt) :]
        assert counted[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert tokenizer.decode(counted[:-1]) == unicodedata.normalize("NFC", example.completion)
    again = encode(examples, renderer, 100_000, "error", cache=tmp_path)
    assert list(again) == list(rows)
    assert len(list(tmp_path.glob("*.arrow"))) == 1, "the second call did not read the first one's rows"
