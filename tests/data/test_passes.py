"""Passes over rows by one process and by several."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.encoding import IGNORED_LABEL
from ladder_cli.data.passes import Loading, TrainingBatches, ValidationBatches
from ladder_cli.trunk.base import BLANK


class Rows:
    """Rows that hold their own number; packed ones bring positions."""

    def __init__(self, count, packed=False):
        self.lengths = [2 + 3 * row % 5 for row in range(count)]
        self._packed = packed

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        ids = [index + 10] * self.lengths[index]
        row = {"input_ids": ids, "labels": ids}
        return row | {"position_ids": list(range(len(ids)))} if self._packed else row


def take(rows, count, micro_batch=2, accumulation=2, processes=1, first=0):
    """The micro-batches of so many steps, of each process."""
    found = []
    for process in range(processes):
        loading = Loading(PaddingCollator(0), micro_batch, process, processes)
        steps = TrainingBatches(rows, loading, accumulation, seed=4).steps(first)
        found.append([next(steps) for _ in range(count)])
    return found


def passed(steps):
    return [sorted(row for batch in step for row in batch.row_ids if row != BLANK) for step in steps]


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 30), processes=st.integers(2, 3), accumulation=st.integers(1, 3))
def test_every_epoch_passes_each_row_once_in_as_many_batches_in_every_process(count, processes, accumulation):
    rows = Rows(count)
    epoch = -(-count // (2 * processes * accumulation))
    steps = take(rows, 2 * epoch, accumulation=accumulation, processes=processes)
    for start in (0, epoch):
        seen = [row for own in steps for step in passed(own[start : start + epoch]) for row in step]
        assert sorted(seen) == list(range(count))
    for together in zip(*steps, strict=True):
        assert len({len(step) for step in together}) == 1, "nobody waits for a batch that another has not"


def test_several_processes_pass_in_a_step_what_one_passes():
    rows = Rows(21)
    (alone,) = take(rows, 8, accumulation=2)
    first, second = take(rows, 8, accumulation=1, processes=2)
    assert [sorted(own + other) for own, other in zip(passed(first), passed(second), strict=True)] == passed(alone)


@pytest.mark.parametrize(("micro_batch", "accumulation"), [(1, 12), (2, 6), (3, 4), (6, 2), (12, 1)])
def test_a_step_takes_the_same_rows_however_many_are_held_at_a_time(micro_batch, accumulation):
    rows = Rows(100)
    (whole,), (steps,) = take(rows, 20, 4, 3), take(rows, 20, micro_batch, accumulation)
    assert passed(steps) == passed(whole)
    lengths = [rows.lengths[row] for batch in steps[0] for row in batch.row_ids]
    assert lengths == sorted(lengths, reverse=True), "rows of about one length are padded together"


@pytest.mark.parametrize("first", [1, 3, 4, 7])
def test_a_pass_may_begin_at_any_step(first):
    (whole,), (later,) = take(Rows(14), 12), take(Rows(14), 12 - first, first=first)
    assert [[batch.row_ids for batch in step] for step in later] == [
        [batch.row_ids for batch in step] for step in whole[first:]
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_tokens_are_those_of_the_rows_without_padding_and_blanks(packed):
    rows = Rows(5, packed)
    loading = Loading(PaddingCollator(0), 2, 1, 2)
    batches = TrainingBatches(rows, loading, 2, seed=4)
    step = next(batches.steps())
    own = [row for batch in step for row in batch.row_ids]
    assert BLANK in own
    assert batches.tokens(step) == sum(rows.lengths[row] for row in own if row != BLANK)
    assert batches.tokens(step) < sum(batch.input_ids.numel() for batch in step)
    blank = step[-1]
    at = blank.row_ids.index(BLANK)
    assert torch.all(blank.labels[at] == IGNORED_LABEL)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_validation_counts_each_row_once_in_as_many_batches_in_every_process(processes):
    found = [
        list(ValidationBatches(Rows(9), Loading(PaddingCollator(0), 2, process, processes)))
        for process in range(processes)
    ]
    counted = [row for own in found for batch, counts in own if counts for row in batch.row_ids]
    assert sorted(counted) == list(range(9))
    assert len({len(own) for own in found}) == 1
