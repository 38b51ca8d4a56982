"""Trains by rewards in vLLM's own environment: `python vllm_training_worker.py OUTPUT OPTION ...`.

At every validation vLLM's greedy answers to the held-out prompts are recorded beside those of the model that learns,
by Transformers, as tokens: in OUTPUT, one record for each.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def main() -> None:
    from ladder_cli.cli.train import main as train
    from ladder_cli.config.evaluation import DecodeConfig
    from ladder_cli.generate.decoding import limits_of
    from ladder_cli.generate.transformers_engine import TransformersEngine
    from ladder_cli.serve import live
    from ladder_cli.train.rollouts import Asking, evaluating

    output, *options = sys.argv[1:]
    records, sent = [], []
    validate, bring = Asking.validate, live._Following.bring

    def compared(asking):
        rows, examples = asking.data.validation, asking.data.splits.validation
        prompts = [asking.prompt(rows, examples, row, str(row)) for row in range(len(rows))]
        theirs = asking.answers(prompts, 0.0)
        model = asking._model
        own = TransformersEngine(lambda: model, asking.data.renderer, limits_of(model))
        with evaluating(model):
            batches = list(own.complete(prompts, DecodeConfig(asking._max_new_tokens, len(prompts)), 0))
        ours = {each.prompt.id: each for batch in batches for each in batch}
        records.append(
            {"theirs": {name: theirs[name].ids for name in ours}, "ours": {name: ours[name].ids for name in ours},
             "sent": len(sent)}
        )  # fmt: skip
        Path(output).write_text(json.dumps(records))
        return validate(asking)

    def counted(following, llm):
        before = following._digest
        adapter = bring(following, llm)
        if following._digest != before:
            sent.append(following._digest)
        return adapter

    Asking.validate, live._Following.bring = compared, counted
    sys.argv[1:] = options
    train()


if __name__ == "__main__":
    main()
