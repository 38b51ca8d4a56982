import json

import pytest
import torch

from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.evaluate.samples import Sample
from ladder_cli.evaluate.statistics import matthews_correlation
from ladder_cli.evaluate.summary import summarise_labels
from ladder_cli.generate.batching import batches, render_prompt
from ladder_cli.generate.transformers_engine import label_tokens, score_labels


@pytest.fixture
def renderer(tiny_tokenizer):
    return PromptRenderer(tiny_tokenizer, "")


def test_a_prediction_is_the_label_with_the_larger_logit_whatever_the_batch(renderer, tiny_backbone):
    prompts = [render_prompt(str(n), "Compute " + "7+" * n + "1.", renderer) for n in range(1, 8)]
    labels = ("17", "23")
    first, second = label_tokens(renderer, labels)
    for batch_size in (1, 3, 7):
        predictions = [
            p
            for batch in score_labels(tiny_backbone, renderer, batches(prompts, set(), batch_size), labels)
            for p in batch
        ]
        assert sorted(p.prompt.id for p in predictions) == [str(n) for n in range(1, 8)]
        for prediction in predictions:
            with torch.no_grad():
                logits = tiny_backbone(torch.tensor([prediction.prompt.ids])).logits[0, -1]
            assert prediction.label == labels[int(logits[second] > logits[first])]
            assert prediction.logits["17"] == pytest.approx(logits[first].item(), abs=1e-3)


def test_labels_that_begin_alike_are_refused(renderer):
    with pytest.raises(UserError, match="with the same token"):
        label_tokens(renderer, ("17", "17"))


def sample(gold, answer):
    verdict = "correct" if gold == answer else "incorrect"
    return Sample(
        id="1", completion=answer, gold=gold, answer=answer, verdict=verdict, stop_reason=None, tokens=1, logits={}
    )


def test_the_figures_of_a_label_task():
    samples = [sample("Yes", "Yes")] * 6 + [sample("Yes", "No")] * 2 + [sample("No", "Yes")] + [sample("No", "No")] * 3
    figures = summarise_labels({"run": [samples]}, positive="Yes")
    assert figures["pass_at_1"] == 9 / 12
    assert figures["majority"] == 8 / 12
    assert figures["f1"] == pytest.approx(2 * 6 / (2 * 6 + 1 + 2))
    assert figures["matthews"] == pytest.approx((6 * 3 - 1 * 2) / (7 * 8 * 4 * 5) ** 0.5)
    json.dumps(figures)


def test_a_constant_answer_has_no_correlation():
    # True positives, false negatives, false positives, true negatives.
    assert list(matthews_correlation([[5, 0, 5, 0], [5, 0, 0, 5], [0, 5, 5, 0]])) == [0.0, 1.0, -1.0]
