"""Memory that does not suffice, and values that are not finite."""

import json

import pytest
import torch

from ladder_cli.errors import RunFailed, UserError
from ladder_cli.plan.out_of_memory import is_out_of_memory, out_of_memory_advised
from ladder_cli.train.bad_batch import BadBatch


def beyond_memory() -> torch.Tensor:
    return torch.empty(2**50, dtype=torch.uint8)


def test_running_out_of_memory_names_what_takes_less_and_the_cheapest_first():
    settings = ["train.micro_batch_size=1", "model.quantization=nf4"]
    advice = r"first: train\.micro_batch_size=1; model\.quantization=nf4\."
    with pytest.raises(UserError, match=advice), out_of_memory_advised(lambda: settings):
        beyond_memory()
    with pytest.raises(UserError, match=advice), out_of_memory_advised(lambda: settings):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_advised(list):
        raise RuntimeError("shapes cannot be multiplied")
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_a_batch_that_memory_does_not_hold_is_decoded_in_parts(tiny_backbone, tiny_tokenizer, monkeypatch):
    from ladder_cli.config.evaluation import DecodeConfig
    from ladder_cli.data.chat import PromptRenderer
    from ladder_cli.generate.batching import batches, render_prompt
    from ladder_cli.generate.transformers_engine import generate

    renderer = PromptRenderer(tiny_tokenizer, "")
    prompts = [render_prompt(str(n), f"Compute {n}+{n * n}.", renderer) for n in range(5)]

    def texts(batch_size: int) -> dict[str, str]:
        decode = DecodeConfig(max_new_tokens=8, batch_size=batch_size)
        todo = batches(prompts, set(), batch_size)
        finished = list(generate(tiny_backbone, renderer, todo, decode, seed=0))
        return {done.prompt.id: done.text for batch in finished for done in batch}

    one_by_one, plain = texts(1), tiny_backbone.generate

    def narrow(*args, input_ids, **options):
        if len(input_ids) > 1:
            beyond_memory()
        return plain(*args, input_ids=input_ids, **options)

    monkeypatch.setattr(tiny_backbone, "generate", narrow)
    assert texts(5) == one_by_one
    monkeypatch.setattr(tiny_backbone, "generate", lambda **_: beyond_memory())
    with pytest.raises(UserError, match=r"out of memory on the prompt of .* alone: lower decode.max_new_tokens"):
        texts(5)


def test_the_rows_of_a_refused_step_are_written_down_by_their_ids(tmp_path):
    batch = BadBatch(tmp_path / "bad_batch.json", lambda row: [f"example {row}", "packed with it"])
    batch.seen(6, [1])
    batch.seen(7, [3, 5])
    batch.seen(7, [2])
    with pytest.raises(RunFailed, match="the gradient norm became inf at step 8; that step was not taken"):
        batch.refuse("gradient norm", float("inf"))
    written = json.loads((tmp_path / "bad_batch.json").read_text())
    assert written["step"] == 8
    assert [row["row"] for row in written["rows"]] == [3, 5, 2]
    assert written["rows"][0]["ids"] == ["example 3", "packed with it"]
