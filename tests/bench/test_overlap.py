"""Time of copies within time of kernels, held against counting moments."""

import random

import pytest
import torch

from ladder_cli.bench.overlap import merged, share_within, transfer_overlap


def moments(intervals) -> set[int]:
    return {moment for begin, end in intervals for moment in range(begin, end)}


@pytest.mark.parametrize("seed", range(20))
def test_the_share_is_that_of_single_moments(seed):
    draw = random.Random(seed)
    inner, outer = (
        [(begin := draw.randrange(100), begin + draw.randrange(1, 12)) for _ in range(draw.randrange(1, 15))]
        for _ in range(2)
    )
    copies, kernels = moments(inner), moments(outer)
    assert share_within(inner, outer) == pytest.approx(len(copies & kernels) / len(copies))
    assert moments(merged(inner)) == copies
    assert sum(end - begin for begin, end in merged(inner)) == len(copies)


def test_no_time_has_no_share():
    assert share_within([], [(0, 1)]) is None
    assert share_within([(3, 3)], [(0, 9)]) is None
    assert share_within([(0, 4)], []) == 0.0


def test_on_a_cpu_nothing_is_copied():
    assert transfer_overlap(lambda: None, torch.device("cpu")) is None
