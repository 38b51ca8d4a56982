"""Prompts before they reach a model: rendered, checked against its limits, and cut into batches."""

import random
from collections.abc import Collection, Sequence

from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.prepare import refuse_unknown_token
from ladder_cli.errors import UserError
from ladder_cli.generate.engine import Prompt
from ladder_cli.ranks import process_index, processes


def render_prompt(name: str, question: str, renderer: PromptRenderer) -> Prompt:
    """A question as training has seen it."""
    return Prompt(name, renderer.prompt_text(question), renderer.prompt_ids(question))


def batches(prompts: Sequence[Prompt], finished: Collection[str], size: int, repeat: int = 0) -> list[list[Prompt]]:
    """What is still to be done by this process, in batches.

    Batches are cut from all prompts, finished or not, so that an evaluation that was killed, or that several processes
    share, decodes every problem in the company it would have had, to the bit; one of which a single sample is missing
    is recomputed whole. They hold prompts of similar length, the longest first; the batches of a repeat are drawn at
    random, so that every completion meets other neighbours and other padding.
    """
    ordered = sorted(prompts, key=lambda prompt: -len(prompt.ids))
    if repeat:
        random.Random(repeat).shuffle(ordered)
    cut = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    mine = cut[process_index() :: processes()]
    return [batch for batch in mine if any(prompt.id not in finished for prompt in batch)]


def check_positions(prompts: Sequence[Prompt], new_tokens: int, positions: int | None, model: str) -> None:
    """Refuse prompts that leave no room for a completion of `new_tokens` (0 for a label task).

    Raises:
        UserError: with the longest prompt, and the largest `decode.max_new_tokens` that it leaves room for.
    """
    if positions is None or not prompts:
        return
    longest = max(prompts, key=lambda prompt: len(prompt.ids))
    room = positions - len(longest.ids)
    if room >= new_tokens:
        return
    told = f"the prompt of '{longest.id}' has {len(longest.ids)} tokens, and {model} has positions for {positions}"
    if room < 1:
        raise UserError(f"{told}: leave that problem out, or take a model with a longer context.")
    raise UserError(
        f"{told}, which leaves {room} and not decode.max_new_tokens={new_tokens}: give decode.max_new_tokens={room} "
        "or less, or take a model with a longer context."
    )


def check_vocabulary(prompts: Sequence[Prompt], renderer: PromptRenderer, vocabulary: int | None, model: str) -> None:
    """Refuse prompts with tokens that the backbone has no embedding for; the padding token is one of them.

    Raises:
        UserError: with the token, and the problem whose prompt holds it.
    """
    if vocabulary is None or not prompts:
        return
    held = max(prompts, key=lambda prompt: max(prompt.ids))
    tokenizer = renderer.tokenizer
    refuse_unknown_token(tokenizer, f"{model}: a token of the prompt of '{held.id}'", max(held.ids), vocabulary)
    refuse_unknown_token(tokenizer, f"{model}: the padding token", int(tokenizer.pad_token_id), vocabulary)
