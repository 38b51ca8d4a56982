"""A sample and its line in `samples.jsonl`."""

import json

import pytest

from ladder_cli.evaluate.samples import FIELDS, Sample

GRADED = {
    "id": "7", "benchmark": "math500", "question_digest": "ab", "prompt": "What?", "completion": "\\boxed{1}",
    "tokens": 4, "stop_reason": "stop", "gold": "1", "unit": "", "error": None, "answer": "1", "verdict": "correct",
    "reading": {"how": "boxed"}, "math_verify": None,
}  # fmt: skip
READY = {"id": "7", "sample": 2, "benchmark": None, "rule": "expression"} | {
    name: value for name, value in GRADED.items() if name not in ("id", "benchmark")
}
LABEL = {name: value for name, value in GRADED.items() if name not in ("reading", "math_verify")} | {
    "completion": "Yes", "logits": {"No": 0.5, "Yes": 1.25}
}  # fmt: skip
OLDER = {name: GRADED[name] for name in FIELDS}
OTHERS = GRADED | {"note": {"by": "hand"}, "score": None}


@pytest.mark.parametrize("line", [GRADED, READY, LABEL, OLDER, OTHERS], ids=["graded", "ready", "label", "old", "more"])
def test_a_line_comes_back_as_it_was_byte_for_byte(line):
    assert json.dumps(Sample.from_json(line).to_json()) == json.dumps(line)


def test_what_an_answer_is_not_is_not_written():
    sample = Sample(
        id="1", completion="x", tokens=None, stop_reason=None, gold="1", answer=None, verdict="no_answer", unit=""
    )
    assert list(sample.to_json()) == list(GRADED), "no number, rule or logits"
    assert Sample.from_json(sample.to_json()) == sample


def test_a_completion_without_a_number_is_the_first():
    assert Sample.from_json(GRADED).key == ("7", 1)
    assert Sample.from_json(READY).key == ("7", 2)


@pytest.mark.parametrize("name", FIELDS)
def test_a_line_that_lacks_what_every_sample_has_is_refused(name):
    with pytest.raises(ValueError, match=f"it lacks {name}$"):
        Sample.from_json({key: value for key, value in GRADED.items() if key != name})


@pytest.mark.parametrize("wrong", [{"sample": "2"}, {"sample": [1]}])
def test_a_number_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="its sample is no number"):
        Sample.from_json(GRADED | wrong)
