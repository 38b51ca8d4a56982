"""Answering by a label word: the logits of the label words decide, nothing is generated (paper, appendix A)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.generate.generation import Prompt, computing_device, left_padded, not_finite


@dataclass(frozen=True)
class Prediction:
    """The label word with the largest logit, and all their logits."""

    prompt: Prompt
    label: str
    logits: dict[str, float]


def label_tokens(renderer: PromptRenderer, labels: Sequence[str]) -> list[int]:
    """The first token of each label word, as training saw it.

    Raises:
        UserError: if two label words begin with the same token.
    """
    first = []
    for label in labels:
        rendered = renderer.render("", label)
        first.append(rendered.ids[rendered.prompt_length])
    if len(set(first)) < len(first):
        raise UserError(f"this tokenizer begins the labels {', '.join(labels)} with the same token: choose others.")
    return first


def classify(
    model: nn.Module,
    renderer: PromptRenderer,
    batches: list[list[Prompt]],
    labels: Sequence[str],
    name: str = "the model",
) -> Iterator[list[Prediction]]:
    """Predict a label for every prompt, a batch at a time.

    Raises:
        RunFailed: if the largest logit of a prompt's label words is not finite; `name` is the model's in the message.
    """
    tokens = label_tokens(renderer, labels)
    device = computing_device(model)
    for batch in batches:
        ids, mask = left_padded(batch, renderer.tokenizer.pad_token_id, device)
        with torch.inference_mode():
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp_min(0),
                logits_to_keep=1,
            ).logits[:, -1, tokens]
        rows = logits.float().cpu()
        for prompt, finite in zip(batch, rows.amax(-1).isfinite().tolist(), strict=True):
            if not finite:
                raise RunFailed(not_finite(name, prompt.id, "the label words"))
        yield [
            Prediction(prompt, labels[int(row.argmax())], dict(zip(labels, row.tolist(), strict=True)))
            for prompt, row in zip(batch, rows, strict=True)
        ]
