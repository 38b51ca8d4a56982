"""A layer file gives back what was written, from where it is mapped, or says that it does not."""

import ctypes
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ladder_cli.errors import UserError
from ladder_cli.trunk.layer_files import Contents, DamagedLayer, LayerFile, write_contents

TENSORS = {
    "a.weight": torch.randn(7, 5),
    "a.weight:offset": torch.tensor(0.25),
    "b.weight": torch.randn(3, 33).to(torch.bfloat16),
    "c.weight": torch.randint(-128, 127, (4099,), dtype=torch.int8),
    "d.weight": torch.randint(0, 255, (70_001, 1), dtype=torch.uint8),
}
FACTS = {"d.weight": {"shape": [70_001, 2], "dtype": "bfloat16"}}


@pytest.fixture
def path(tmp_path):
    write_contents(tmp_path / "layer-001.bin", Contents(TENSORS, FACTS))
    return tmp_path / "layer-001.bin"


def mapped_bytes(path, counted="Rss:") -> int:
    """Of this process's resident set, what is of a file."""
    blocks = Path("/proc/self/smaps").read_text().split("VmFlags")
    return sum(int(block.split(counted)[1].split()[0]) for block in blocks if str(path) in block) * 1024


def test_what_was_written_comes_back_bit_for_bit(path):
    contents = LayerFile(path).contents
    assert contents.facts == FACTS
    assert list(contents.tensors) == list(TENSORS)
    for name, tensor in TENSORS.items():
        found = contents.tensors[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor), name
        assert found.data_ptr() % 64 == 0  # as PyTorch allocates, so that products round alike


def test_another_copy_of_the_body_gives_the_same_tensors(path):
    file = LayerFile(path)
    views = file.views(file.body.clone())
    assert all(torch.equal(views[name], tensor) for name, tensor in TENSORS.items())


def test_every_flipped_byte_is_refused_by_the_name_of_its_file(path):
    whole = path.read_bytes()
    file = LayerFile(path)
    body = len(whole) - file.nbytes
    ends = [body + place for place in file.places.values()]
    # Magic, length, checksum, header, its padding, the first and last byte of the body, and between tensors.
    for place in [
        0,
        9,
        20,
        60,
        body - 1,
        body,
        len(whole) - 1,
        *ends,
        *(end - 1 for end in ends),
        *range(body, len(whole), 997),
    ]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedLayer, match=r"layer-001\.bin is not as it was written: delete it"):
            LayerFile(path).fetch()
    path.write_bytes(whole)
    LayerFile(path).fetch()


def test_a_file_that_was_cut_off_or_is_gone_is_refused_by_name(path):
    whole = path.read_bytes()
    for size in (0, 10, 5000, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedLayer, match=r"layer-001\.bin"):
            LayerFile(path)
    path.unlink()
    with pytest.raises(UserError, match=r"layer-001\.bin cannot be read"):
        LayerFile(path)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_contents(tmp_path / "layer-001.bin", Contents(TENSORS, FACTS))
    assert list(tmp_path.iterdir()) == []


def _hold(path, held, done):
    file = LayerFile(path)
    file.fetch()
    held.set()
    done.wait()


def test_processes_of_one_machine_share_one_copy(tmp_path):
    path = tmp_path / "layer-001.bin"
    write_contents(path, Contents({"weight": torch.ones(2**20)}, {}))
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(path, held, done))
    process.start()
    assert held.wait(60)
    try:
        file = LayerFile(path)
        file.fetch()
        # The kernel's share of this process: a page that two have mapped counts half for each.
        assert mapped_bytes(path) >= 2**22
        assert mapped_bytes(path, "Pss:") <= 0.55 * mapped_bytes(path)
    finally:
        done.set()
        process.join()


def test_pages_come_and_go(tmp_path):
    path = tmp_path / "layer-001.bin"
    write_contents(path, Contents({"weight": torch.ones(2**20)}, {}))
    file = LayerFile(path)
    assert mapped_bytes(path) < 2**16
    file.fetch()
    assert mapped_bytes(path) >= 2**22
    file.release()
    assert mapped_bytes(path) == 0
    assert file.contents.tensors["weight"].sum() == 2**20  # they come again by themselves
    file.forget()
    assert mapped_bytes(path) == 0


GIVEN_BACK = """
import re, sys, torch
from pathlib import Path
from ladder_cli.trunk.layer_files import give_freed_blocks_back
def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
if sys.argv[1] == "ours":
    give_freed_blocks_back()
torch.ones(6 << 18); torch.ones(8 << 18)  # 6 and 8 MiB: as they are freed glibc raises the size that it maps alone
before = held()
large, small = [], []
for _ in range(40):
    large.append(torch.ones(5 << 18))
    small.append(torch.ones(1 << 12))  # lies between them, and keeps the heap from shrinking
del large
print((held() - before) // 2**20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_blocks_go_back_to_the_system():
    kept = {}
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_MMAP_THRESHOLD_"}
    for whose in ("glibc's", "ours"):
        command = [sys.executable, "-c", GIVEN_BACK, whose]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        kept[whose] = int(done.stdout)
    assert kept["ours"] < 20  # of 200 MiB
    assert kept["glibc's"] > 150  # or this test says nothing
