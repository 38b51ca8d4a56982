import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.nn.loss import completion_cross_entropy


def reference(hidden, head, labels):
    """Cross-entropy in a dozen plain float64 lines: sum over counted tokens of log sum exp - logit."""
    total, count = 0.0, 0
    for row, row_labels in zip(hidden, labels, strict=True):
        for position in range(len(row) - 1):
            target = int(row_labels[position + 1])
            if target == -100:
                continue
            logits = head @ row[position]
            total = total + torch.log(torch.exp(logits).sum()) - logits[target]
            count += 1
    return total / count


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), chunk=st.integers(1, 40), tokens=st.integers(2, 9))
def test_value_and_gradient_equal_a_plain_float64_reference(seed, chunk, tokens):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, tokens, 8, generator=generator, dtype=torch.float64)
    head = torch.randn(11, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 11, (3, tokens), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.4] = -100
    labels[0, -1] = 3
    ours, plain = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    loss = completion_cross_entropy(ours, lambda rows: rows @ head.T, labels, chunk=chunk)
    expected = reference(plain, head, labels)
    loss.backward()
    expected.backward()
    # The loss itself is summed in float32, whatever the type of the hidden states.
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-6)


def test_accumulation_with_a_common_divisor_equals_one_big_batch():
    torch.manual_seed(0)
    hidden, head = torch.randn(6, 7, 8), torch.randn(11, 8)
    labels = torch.randint(0, 11, (6, 7))
    labels[:3, :5] = -100
    counted = int((labels[:, 1:] != -100).sum())
    whole = completion_cross_entropy(hidden, lambda rows: rows @ head.T, labels)
    parts = sum(
        completion_cross_entropy(hidden[piece], lambda rows: rows @ head.T, labels[piece], num_items=counted)
        for piece in (slice(0, 2), slice(2, 6))
    )
    torch.testing.assert_close(parts, whole)


def test_no_more_than_one_chunk_of_logits_exists_at_a_time():
    seen = []

    def readout(rows):
        seen.append(len(rows))
        return rows @ torch.ones(5, 8).T

    hidden = torch.randn(2, 50, 8, requires_grad=True)
    completion_cross_entropy(hidden, readout, torch.ones(2, 50, dtype=torch.long), chunk=16).backward()
    assert sum(seen) == 98
    assert max(seen) == 16


def test_only_counted_positions_reach_the_readout():
    seen = []
    labels = torch.full((1, 10), -100)
    labels[0, 7:] = 2

    def readout(rows):
        seen.append(len(rows))
        return rows @ torch.ones(5, 8).T

    completion_cross_entropy(torch.randn(1, 10, 8), readout, labels)
    assert seen == [3]


def test_a_batch_without_counted_tokens_is_an_error_and_not_a_loss_of_zero():
    with pytest.raises(ValueError, match="no token of this batch counts"):
        completion_cross_entropy(torch.randn(1, 4, 8), lambda rows: rows, torch.full((1, 4), -100))
