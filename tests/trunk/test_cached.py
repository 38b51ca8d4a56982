"""A trunk that reads a row once: equal to the trunk below, whole or not at all, and never a wrong tap."""

import json
import logging
import multiprocessing
import os

import pytest
import torch

from ladder_cli.config.choices import CacheFormat, Passes, Quantization
from ladder_cli.errors import UserError
from ladder_cli.trunk.base import BLANK, WHOLE, Batch, TapRequest
from ladder_cli.trunk.cached import CODECS, CachedTrunk, bytes_per_token
from ladder_cli.trunk.kept import prune_taps, tap_folders
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.rows import RowTrunk
from ladder_cli.trunk.tap_shards import DamagedShard, Shard, write_shard
from ladder_cli.trunk.tap_store import DiskStore, MemoryStore, TapSpace, row_key, size_of
from tests.conftest import random_backbone
from tests.trunk.test_rows import REQUEST, padded, rows_of

AMPLE = 10**9
SPACE = TapSpace("random", "abc", Quantization.NONE, "float32", {}, Passes.ROW, CacheFormat.EXACT)


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return MemoryStore(AMPLE) if request.param == "memory" else DiskStore(tmp_path / "taps", SPACE, AMPLE)


def cached(store, architecture="llama", kept_as=CacheFormat.EXACT):
    return CachedTrunk(RowTrunk(LiveTrunk(random_backbone(architecture))), store, kept_as)


def layers_that_run(trunk):
    ran = []
    for layer in trunk.parts.layers:
        layer.register_forward_pre_hook(lambda *_: ran.append(1))
    return ran


def same(one, other):
    assert one.rungs.keys() == other.rungs.keys()
    assert all(torch.equal(one.rungs[layer], other.rungs[layer]) for layer in one.rungs)
    assert (one.final is None) == (other.final is None)
    assert one.final is None or torch.equal(one.final, other.final)
    assert (one.embed is None) == (other.embed is None)


def test_what_is_cached_is_what_was_read_bit_for_bit(architecture, store):
    trunk = cached(store, architecture)
    rows = rows_of(5, 9, 12)
    first, other = padded(rows), padded([rows[2], rows[0]], 20, ids=(7, 8))
    same(trunk.taps(REQUEST, first), trunk.under.taps(REQUEST, first))
    store.flush()
    ran = layers_that_run(trunk)
    again, elsewhere = trunk.taps(REQUEST, first), trunk.taps(REQUEST, other)
    assert not ran
    same(again, trunk.under.taps(REQUEST, first))
    same(elsewhere, trunk.under.taps(REQUEST, other))
    assert (trunk.rows_read, trunk.rows_given) == (3, 5)


def test_methods_share_what_they_both_read(store):
    trunk, batch = cached(store), padded(rows_of(5, 9))
    trunk.taps(TapRequest(frozenset({1, 2, 3, 4})), batch)
    ran = layers_that_run(trunk)
    for request in (WHOLE, TapRequest(frozenset({2}), final=False), TapRequest(frozenset({3}))):
        same(trunk.taps(request, batch), cached(MemoryStore(0)).taps(request, batch))
    assert not ran
    half = cached(MemoryStore(AMPLE))
    half.taps(TapRequest(frozenset({2}), final=False), batch)
    ran = layers_that_run(half)
    same(half.taps(REQUEST, batch), trunk.taps(REQUEST, batch))  # layers 1 and 4 were not there
    assert len(ran) == 4 * 2


def test_the_row_is_its_tokens_not_its_number(store):
    trunk, (one, two) = cached(store), rows_of(5, 5)
    trunk.taps(REQUEST, padded([one], ids=(0,)))
    same(trunk.taps(REQUEST, padded([two], ids=(0,))), trunk.under.taps(REQUEST, padded([two], ids=(0,))))
    packed = Batch(torch.tensor([one]), position_ids=torch.tensor([[0, 1, 2, 0, 1]]), row_ids=(0,))
    same(trunk.taps(REQUEST, packed), trunk.under.taps(REQUEST, packed))
    assert len({row_key(row) for row in (Batch(torch.tensor([one])), Batch(torch.tensor([two])), packed)}) == 3


def test_what_does_not_come_from_a_data_set_goes_by_the_cache(store):
    trunk, batch = cached(store), padded(rows_of(5, 7))
    trunk.taps(REQUEST, Batch(batch.input_ids))
    trunk.taps(REQUEST, padded(rows_of(1), ids=(BLANK,)))
    assert store.used() == (0 if isinstance(store, MemoryStore) else size_of(store._folder))
    assert trunk.rows_read == 0


def test_eight_bits_round_each_token_by_its_largest_value(store):
    trunk, batch = cached(store, kept_as=CacheFormat.INT8), padded(rows_of(5, 9))
    exact = trunk.under.taps(REQUEST, batch)
    first = trunk.taps(REQUEST, batch)
    store.flush()
    same(trunk.taps(REQUEST, batch), first)  # given the first time what is given ever after
    for layer in (1, 4):
        step = exact.rungs[layer].abs().amax(-1, keepdim=True) / 127
        assert ((first.rungs[layer] - exact.rungs[layer]).abs() <= step * 0.5001).all()
    assert not torch.equal(first.rungs[4], exact.rungs[4])
    assert torch.equal(first.rungs[0], exact.rungs[0])  # looked up, not rounded


@pytest.mark.parametrize("kept_as", list(CacheFormat))
def test_the_bytes_are_as_planned(tmp_path, kept_as):
    store = DiskStore(tmp_path / "taps", SPACE, AMPLE)
    trunk, rows = cached(store, kept_as=kept_as), rows_of(60, 90, 120)
    trunk.taps(REQUEST, padded(rows))
    store.flush()
    planned = bytes_per_token(REQUEST, 4, 64, torch.float32, kept_as) * sum(map(len, rows))
    header = 300 * 3 * 2 * len(CODECS[kept_as].parts)
    assert planned <= store.used() <= planned + header + 1000


def test_a_limit_is_held_by_whole_rows(tmp_path, caplog):
    trunk, rows = cached(MemoryStore(0)), rows_of(*[20] * 10)
    size = bytes_per_token(REQUEST, 4, 64, torch.float32, CacheFormat.EXACT) * 20
    for store in (MemoryStore(3 * size), DiskStore(tmp_path / "taps", SPACE, 3 * size + 6000)):
        caplog.clear()
        trunk.store = store
        with caplog.at_level(logging.WARNING, "ladder_cli"):
            for row in rows:
                trunk.taps(REQUEST, padded([row]))
                store.flush()
        assert store.used() <= store.limit
        held = [trunk.holds(Batch(torch.tensor([row])), REQUEST) for row in rows]
        assert held == [True] * 3 + [False] * 7
        assert len([line for line in caplog.messages if "other rows are read anew" in line]) == 1
        same(trunk.taps(REQUEST, padded(rows)), trunk.under.taps(REQUEST, padded(rows)))


def test_another_precision_or_other_weights_are_another_space(tmp_path):
    trunk, batch = cached(DiskStore(tmp_path / "taps", SPACE, AMPLE)), padded(rows_of(5))
    trunk.taps(REQUEST, batch)
    trunk.store.flush()
    for changed in ({"weights": "abd"}, {"dtype": "bfloat16"}, {"passes": Passes.BATCH}, {"numerics": {"torch": "1"}}):
        other = DiskStore(tmp_path / "taps", TapSpace(**{**vars(SPACE), **changed}), AMPLE)
        assert not other.has(row_key(Batch(batch.input_ids)), "1")
    renamed = DiskStore(tmp_path / "taps", TapSpace(**{**vars(SPACE), "model": "else"}), AMPLE)
    assert renamed.has(row_key(Batch(batch.input_ids)), "1")


def test_another_process_finds_what_was_written_meanwhile(tmp_path):
    one, two = (cached(DiskStore(tmp_path / "taps", SPACE, AMPLE)) for _ in range(2))
    batch = padded(rows_of(5, 9))
    expected = one.taps(REQUEST, batch)
    one.store.flush()
    ran = layers_that_run(two)
    same(two.taps(REQUEST, batch), expected)
    assert not ran


def _write(root, worker, threads):
    torch.set_num_threads(threads)  # which decide how sums round
    trunk = cached(DiskStore(root, SPACE, AMPLE))
    rows = rows_of(*range(5, 25))
    for row in rows if worker % 2 else reversed(rows):
        trunk.taps(REQUEST, padded([row]))
        trunk.store.flush()


def test_two_writers_write_each_row_once(tmp_path):
    root = tmp_path / "taps"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(root, worker, torch.get_num_threads())) for worker in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    store = DiskStore(root, SPACE, AMPLE)
    trunk, batch = cached(store), padded(rows_of(*range(5, 25)))
    ran = layers_that_run(trunk)
    taps = trunk.taps(REQUEST, batch)
    assert not ran
    same(taps, trunk.under.taps(REQUEST, batch))
    names = [name for path in (root / SPACE.key).glob("*.safetensors") for name in Shard(path).names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("where", ["header", "tap", "end", "empty"])
def test_a_damaged_shard_is_told_and_its_rows_are_read_anew(tmp_path, caplog, where):
    root, batch = tmp_path / "taps", padded(rows_of(5, 9))
    trunk = cached(DiskStore(root, SPACE, AMPLE))
    expected = trunk.taps(REQUEST, batch)
    trunk.store.flush()
    (shard,) = (root / SPACE.key).glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    if where == "header":
        content[20] ^= 1
    elif where == "tap":
        content[-7] ^= 1
    content = {"end": content[:-64], "empty": bytearray()}.get(where, content)
    shard.write_bytes(content)
    again = cached(DiskStore(root, SPACE, AMPLE))
    with caplog.at_level(logging.WARNING, "ladder_cli"):
        # The store of before the damage has the file mapped, and one that is opened now reads it anew.
        same(again.taps(REQUEST, batch), expected)
        again.store.flush()
    assert [line for line in caplog.messages if shard.name in line and "is damaged" in line]
    assert again.rows_read >= 1
    assert not [name for name in os.listdir(root / SPACE.key) if name.endswith(".tmp")]
    third = cached(DiskStore(root, SPACE, AMPLE))
    ran = layers_that_run(third)
    same(third.taps(REQUEST, batch), expected)
    assert not ran


def read_all(path):
    shard = Shard(path)
    return [shard.tensor(name) for name in shard.names]


def test_every_flipped_byte_of_a_shard_is_noticed(tmp_path):
    tensors = {"row/1": torch.arange(6.0).view(2, 3), "row/2": torch.ones(2, 3, dtype=torch.int8)}
    path = write_shard(tmp_path, tensors)
    content = path.read_bytes()
    whole = Shard(path)
    assert all(torch.equal(whole.tensor(name), tensor) for name, tensor in tensors.items())
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises((DamagedShard, ValueError)):
            read_all(path)
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises((DamagedShard, ValueError)):
            read_all(path)


def test_a_disk_that_is_full_stops_the_cache_and_nothing_else(tmp_path, caplog, monkeypatch):
    trunk, batch = cached(DiskStore(tmp_path / "taps", SPACE, AMPLE)), padded(rows_of(5, 9))

    def full(folder, tensors):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ladder_cli.trunk.tap_store.write_shard", full)
    with caplog.at_level(logging.WARNING, "ladder_cli"):
        expected = trunk.taps(REQUEST, batch)
        trunk.store.flush()
        same(trunk.taps(REQUEST, batch), expected)
    assert [line for line in caplog.messages if "cannot be written" in line]


def test_a_folder_that_cannot_be_made_is_a_mistake_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    trunk = cached(DiskStore(tmp_path / "file" / "taps", SPACE, AMPLE))
    with pytest.raises(UserError, match=r"trunk\.cache_dir=.*file/taps cannot be written"):
        trunk.taps(REQUEST, padded(rows_of(5)))


def test_whoever_only_looks_makes_no_folder(tmp_path):
    store = DiskStore(tmp_path / "taps", SPACE, AMPLE)
    assert (store.used(), store.get("row", "1"), store.has("row", "1")) == (0, None, False)
    store.flush()
    assert not (tmp_path / "taps").exists()


def test_a_cache_that_is_pruned_while_it_is_in_use_is_written_anew(tmp_path):
    trunk, rows = cached(DiskStore(tmp_path / "taps", SPACE, AMPLE)), rows_of(5, 9)
    trunk.taps(REQUEST, padded(rows[:1]))
    trunk.store.flush()
    assert [report.count for report in prune_taps(tmp_path / "taps", 0)] == [1]
    same(trunk.taps(REQUEST, padded(rows)), trunk.under.taps(REQUEST, padded(rows)))
    trunk.store.flush()
    assert [report.count for report in tap_folders(tmp_path / "taps")] == [1]  # the other is still mapped here


def test_prune_deletes_what_was_not_used_for_longest(tmp_path):
    root = tmp_path / "taps"
    for number in range(3):
        space = TapSpace(**{**vars(SPACE), "weights": str(number)})
        trunk = cached(DiskStore(root, space, AMPLE))
        trunk.taps(REQUEST, padded(rows_of(50)))
        trunk.store.flush()
        os.utime(root / space.key / "space.json", (number, number))
    (root / SPACE.key).mkdir()
    leftover = root / space.key / "1-abc.tmp"
    leftover.write_text("half")
    found = tap_folders(root)
    assert [report.values["weights"] for report in found] == ["2", "1", "0"]
    assert [report.count for report in found] == [1, 1, 1]
    deleted = prune_taps(root, found[0].size)
    assert [report.values["weights"] for report in deleted] == ["0", "1"]
    assert not leftover.exists()
    assert [report.values["weights"] for report in tap_folders(root)] == ["2"]
    assert json.loads((root / space.key / "space.json").read_text())["weights"] == "2"


def test_the_cost_is_that_of_the_rows_that_are_read():
    trunk = cached(MemoryStore(AMPLE))
    whole = trunk.under.cost(REQUEST)
    layers = sum(weight.numel() for weight in trunk.parts.layers.parameters())
    assert trunk.cost(REQUEST).flops_per_token == whole.flops_per_token
    trunk.share_read = 0.25
    assert trunk.cost(REQUEST).flops_per_token == whole.flops_per_token - 0.75 * 2 * layers
