"""Rows that pass a backbone one by one: what is read of a row depends on that row alone."""

import pytest
import torch

from ladder_cli.trunk.base import BLANK, Batch, TapRequest
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.rows import RowTrunk, row_lengths, some_rows
from tests.conftest import random_backbone

REQUEST = TapRequest(frozenset({1, 4}))


def padded(rows: list[list[int]], width: int | None = None, ids: tuple[int, ...] | None = None) -> Batch:
    width = width or max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return Batch(tokens, tokens.clone(), mask, row_ids=ids or tuple(range(len(rows))))


def rows_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 90, (length,), generator=generator).tolist() for length in lengths]


def test_a_rows_taps_depend_on_nothing_but_the_row(architecture):
    trunk = RowTrunk(LiveTrunk(random_backbone(architecture)))
    rows = rows_of(5, 9, 12)
    alone = [trunk.under.taps(REQUEST, Batch(torch.tensor([row]))) for row in rows]
    for order, width in (((0, 1, 2), 12), ((2, 0, 1), 31), ((1, 0), 17)):
        taps = trunk.taps(REQUEST, padded([rows[n] for n in order], width))
        for place, number in enumerate(order):
            length = len(rows[number])
            for layer in (1, 4):
                assert torch.equal(taps.rungs[layer][place, :length], alone[number].rungs[layer][0])
                assert not taps.rungs[layer][place, length:].any()
            assert torch.equal(taps.rungs[0][place, :length], alone[number].rungs[0][0])
        assert taps.final is taps.rungs[4]
        assert (taps.embed is None) == (alone[0].embed is None)
        assert taps.embed is None or torch.equal(taps.embed(), taps.rungs[0])


def test_packed_rows_are_cut_at_their_padding_too():
    trunk = RowTrunk(LiveTrunk(random_backbone("llama")))
    (row,) = rows_of(9)
    positions = [*range(5), *range(4)]
    packed = Batch(torch.tensor([row]), position_ids=torch.tensor([positions]))
    padding = Batch(torch.tensor([[*row, 0, 0]]), position_ids=torch.tensor([[*positions, 0, 0]]), row_ids=(0,))
    assert row_lengths(padding) == [9]
    expected, given = trunk.under.taps(REQUEST, packed), trunk.taps(REQUEST, padding)
    assert torch.equal(given.rungs[4][:, :9], expected.rungs[4])


def test_rows_that_only_fill_up_are_not_run():
    trunk = RowTrunk(LiveTrunk(random_backbone("llama")))
    ran = []
    trunk.parts.layers[0].register_forward_pre_hook(lambda *_: ran.append(1))
    taps = trunk.taps(REQUEST, padded(rows_of(5, 1), ids=(4, BLANK)))
    assert len(ran) == 1
    assert not taps.rungs[4][1].any()
    taps = trunk.taps(REQUEST, padded(rows_of(1), ids=(BLANK,)))
    assert len(ran) == 1
    assert taps.final is not None
    assert not taps.final.any()


def test_batches_of_no_data_set_go_through_together():
    trunk = RowTrunk(LiveTrunk(random_backbone("llama")))
    ran = []
    trunk.parts.layers[0].register_forward_pre_hook(lambda *_: ran.append(1))
    batch = padded(rows_of(5, 7))
    trunk.taps(REQUEST, Batch(batch.input_ids, None, batch.attention_mask))
    assert len(ran) == 1


def test_rows_that_are_padded_on_the_left_are_a_mistake():
    ids = torch.tensor([[0, 5, 6]])
    with pytest.raises(ValueError, match="padded on the right"):
        row_lengths(Batch(ids, None, torch.tensor([[0, 1, 1]]), row_ids=(0,)))


def test_some_rows_are_no_wider_than_they_need():
    batch = padded(rows_of(5, 9, 3))
    some = some_rows(batch, [0, 2])
    assert some.input_ids.shape == (2, 5)
    assert some.row_ids == (0, 2)
    assert row_lengths(some) == [5, 3]
