"""Cross-entropy on the counted tokens alone, in chunks, without ever holding the full logits."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

IGNORED_LABEL = -100
DEFAULT_CHUNK = 512


def counted_positions(labels: Tensor) -> Tensor:
    """`[batch, tokens - 1]` mask of the positions whose *next* token counts for the loss."""
    return labels[:, 1:] != IGNORED_LABEL


def completion_cross_entropy(
    hidden: Tensor,
    readout: Callable[[Tensor], Tensor],
    labels: Tensor,
    num_items: Tensor | int | None = None,
    chunk: int = DEFAULT_CHUNK,
) -> Tensor:
    """Next-token cross-entropy over the counted tokens (`summed_cross_entropy`).

    Args:
        hidden: `[batch, tokens, d]`, what the readout reads.
        readout: maps `[n, d]` to logits `[n, vocabulary]`; it must hold no trained parameter, since it gets no
            gradient here.
        labels: `[batch, tokens]`, unshifted, `-100` where a token does not count.
        num_items: divisor of the summed loss, the counted tokens of the whole optimizer step; None takes those of
            this batch (a mean).
        chunk: positions whose logits exist at the same time.

    Raises:
        ValueError: if no token counts and `num_items` is None; a loss of 0 would hide it.
    """
    counted = counted_positions(labels)
    rows, targets = hidden[:, :-1][counted], labels[:, 1:][counted]
    if len(targets) == 0 and num_items is None:
        raise ValueError("no token of this batch counts for the loss: every label is -100")
    total = summed_cross_entropy(rows, targets, readout, chunk)
    return total / (len(targets) if num_items is None else num_items)


def summed_cross_entropy(
    rows: Tensor, targets: Tensor, readout: Callable[[Tensor], Tensor], chunk: int = DEFAULT_CHUNK
) -> Tensor:
    """Sum of the cross-entropies of `rows` `[n, d]` against `targets` `[n]`, a scalar of at least float32.

    Forward and backward of one chunk happen together, so at most `chunk x vocabulary` logits exist at any time and
    nothing but the gradient with respect to `rows` is saved for the backward pass.

    Args:
        rows: what the readout reads, at the positions that count.
        targets: the next tokens.
        readout, chunk: as of `completion_cross_entropy`.
    """
    return _ChunkedCrossEntropy.apply(rows, targets, readout, chunk)


def token_log_probabilities(
    rows: Tensor, targets: Tensor, readout: Callable[[Tensor], Tensor], chunk: int = DEFAULT_CHUNK
) -> Tensor:
    """The log-probability `[n]` of each of `targets` `[n]` after `rows` `[n, d]`, of at least float32.

    As `summed_cross_entropy`, forward and backward of a chunk happen together: whatever is made of the values later,
    that of one position depends on its row alone, and its gradient waits as `[d]` to be scaled.

    Args:
        rows, targets, readout, chunk: as of `summed_cross_entropy`.
    """
    return -_ChunkedCrossEntropies.apply(rows, targets, readout, chunk)


@torch.no_grad()
def _cross_entropies_in_place(logits: Tensor, targets: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cross-entropies `[n]` of logits `[n, vocabulary]`, and gradients; no second tensor of full precision is made.

    The logits' own memory is overwritten where they are of that precision already.
    """
    scores = logits.detach().to(precision)
    chosen = torch.arange(len(targets), device=targets.device), targets
    highest = scores.amax(-1, keepdim=True)
    scores.sub_(highest)
    of_target = scores[chosen]
    normaliser = scores.exp_().sum(-1, keepdim=True)
    losses = normaliser.log().squeeze(-1) - of_target
    gradient = scores.div_(normaliser)
    gradient[chosen] -= 1
    return losses, gradient.to(logits.dtype)


def _by_chunk(
    rows: Tensor, targets: Tensor, readout: Callable[[Tensor], Tensor], chunk: int, gradient: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """The cross-entropies of each chunk, with its place; `gradient`, where given, is filled with those of `rows`."""
    precision = _precision(rows)
    for start in range(0, len(rows), chunk):
        piece = slice(start, start + chunk)
        with torch.set_grad_enabled(gradient is not None):
            inputs = rows[piece].detach().requires_grad_(gradient is not None)
            logits = readout(inputs)
        losses, logits_gradient = _cross_entropies_in_place(logits, targets[piece], precision)
        if gradient is not None:
            (gradient[piece],) = torch.autograd.grad(logits, inputs, logits_gradient)
        del logits, logits_gradient  # before the next chunk's are made
        yield piece, losses


def _precision(rows: Tensor) -> torch.dtype:
    return torch.promote_types(rows.dtype, torch.float32)  # float64 stays what it is


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropies of `rows` `[n, d]` against `targets` `[n]`, a scalar of at least float32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, targets: Tensor, readout: Callable[[Tensor], Tensor], chunk: int) -> Tensor:
        gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=_precision(rows), device=rows.device)
        for _, losses in _by_chunk(rows, targets, readout, chunk, gradient):
            total += losses.sum()
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None, None, None


class _ChunkedCrossEntropies(torch.autograd.Function):
    """The cross-entropies `[n]` of `rows` `[n, d]` against `targets` `[n]`, of at least float32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, targets: Tensor, readout: Callable[[Tensor], Tensor], chunk: int) -> Tensor:
        gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        found = torch.empty(len(rows), dtype=_precision(rows), device=rows.device)
        for piece, losses in _by_chunk(rows, targets, readout, chunk, gradient):
            found[piece] = losses
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return found

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output[:, None].to(gradient.dtype), None, None, None
