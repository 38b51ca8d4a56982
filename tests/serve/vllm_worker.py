"""Answers token prompts with vLLM, in vLLM's own environment: `python vllm_worker.py JOB.json`.

The job names `model`, `prompts` (token ids), `max_tokens`, `options` of `LLM`, and `output`, which gets the tokens of
every completion, for each the two best tokens with their log-probabilities, and the seconds of a second pass.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def main() -> None:
    from vllm import LLM, SamplingParams

    job = json.loads(Path(sys.argv[1]).read_text())
    llm = LLM(job["model"], **{"max_model_len": 1024, "enforce_eager": True} | job.get("options", {}))
    prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
    greedy = SamplingParams(
        temperature=0, max_tokens=job["max_tokens"], stop_token_ids=job.get("ends", []), logprobs=2, detokenize=False
    )
    outputs = [each.outputs[0] for each in llm.generate(prompts, greedy, use_tqdm=False)]
    result = {
        "tokens": [list(each.token_ids) for each in outputs],
        "best": [
            [sorted(((one.logprob, token) for token, one in step.items()), reverse=True)[:2] for step in each.logprobs]
            for each in outputs
        ],
    }
    if timed := job.get("timed"):
        fixed = SamplingParams(temperature=0, max_tokens=timed["tokens"], ignore_eos=True, detokenize=False)
        many = (prompts * timed["sequences"])[: timed["sequences"]]
        llm.generate(many[:2], SamplingParams(temperature=0, max_tokens=4, ignore_eos=True), use_tqdm=False)
        start = time.perf_counter()
        done = llm.generate(many, fixed, use_tqdm=False)
        result["seconds"] = time.perf_counter() - start
        result["generated"] = sum(len(each.outputs[0].token_ids) for each in done)
    Path(job["output"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
