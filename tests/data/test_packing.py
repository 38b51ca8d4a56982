"""Packed rows: nothing lost, nothing leaked, nothing learned otherwise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.data.batching import PackedRows, PaddingCollator
from ladder_cli.data.encoding import IGNORED_LABEL
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.packing import check_packing
from ladder_cli.trunk.live import LiveTrunk
from tests.conftest import random_backbone
from tests.contract.test_methods import METHODS


def rows_of(lengths, prompt=2):
    generator = torch.Generator().manual_seed(5)
    rows = []
    for length in lengths:
        ids = torch.randint(2, 97, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORED_LABEL] * prompt + ids[prompt:]})
    return rows


@settings(deadline=None)
@given(st.lists(st.integers(3, 40), min_size=1, max_size=60), st.integers(40, 100))
def test_every_example_is_in_exactly_one_row_that_holds_it(lengths, room):
    packed = PackedRows(rows_of(lengths), lengths, room)
    assert sorted(index for members in packed.members for index in members) == list(range(len(lengths)))
    assert max(packed.lengths) <= room
    assert sum(packed.lengths) == sum(lengths)
    # Best fit: no two rows are so empty that they would fit into one.
    smallest = sorted(packed.lengths)[:2]
    assert len(smallest) < 2 or sum(smallest) > room or max(lengths) > room - min(packed.lengths)


@pytest.mark.parametrize("method", ["ladder", "xladder", "QST", "qlora"])
@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma2"])
def test_the_packed_loss_and_its_gradient_equal_the_unpacked(method, architecture):
    model = method_for(METHODS[method]).attach(LiveTrunk(random_backbone(architecture)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.manual_seed(3)
    for parameter in trained:
        parameter.data += 0.05 * torch.randn_like(parameter)
    lengths = [12, 9, 7, 5, 11]
    rows, collate = rows_of(lengths), PaddingCollator(0)
    packed = PackedRows(rows, lengths, 24)
    assert len(packed) < len(rows)

    def run(batch):
        model.zero_grad()
        loss = model.train()(**batch).loss
        loss.backward()
        return loss, [parameter.grad.clone() for parameter in trained]

    plain_loss, plain = run(collate(rows))
    packed_loss, gradients = run(collate([packed[n] for n in range(len(packed))]))
    torch.testing.assert_close(packed_loss, plain_loss, rtol=1e-5, atol=1e-6)
    for expected, actual in zip(plain, gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)


def test_accumulated_micro_batches_equal_one_big_batch():
    model = method_for(METHODS["ladder"]).attach(LiveTrunk(random_backbone("qwen2")))
    rows, collate = rows_of([12, 9, 7, 5]), PaddingCollator(0)
    counted = sum(label != IGNORED_LABEL for row in rows for label in row["labels"])

    def gradients(batches):
        model.zero_grad()
        for batch in batches:
            model(**collate(batch), num_items_in_batch=counted).loss.backward()
        return model.side.combine.up.weight.grad.clone()

    torch.testing.assert_close(gradients([rows[:1], rows[1:3], rows[3:]]), gradients([rows]), rtol=1e-4, atol=1e-7)


def test_a_model_that_leaks_between_documents_is_refused(architecture):
    backbone = random_backbone(architecture)
    for parameter in backbone.parameters():  # away from the small first weights, under which attention hardly matters
        parameter.data += 0.1 * torch.randn_like(parameter)
    model = method_for(METHODS["ladder"]).attach(LiveTrunk(backbone))
    leaky = {"opt", "opt-350m"}
    if architecture in leaky:
        with pytest.raises(UserError, match="does not go with opt: its attention looks into other examples"):
            check_packing(model)
    else:
        check_packing(model)
