"""Problems shared by processes, and their samples brought together."""

import json
import subprocess
import sys

import pytest

from ladder_cli.evaluate.samples import Sample, append_samples
from ladder_cli.evaluate.shards import merged, own_path, write_in_order
from ladder_cli.generate import batching
from ladder_cli.generate.engine import Prompt

PROMPTS = [Prompt(str(n), "", [0] * (1 + n % 5)) for n in range(11)]


def sample(name: str) -> Sample:
    return Sample(id=name, completion="", gold="", answer=None, verdict="no_answer", tokens=1, stop_reason=None)


def batches(size, finished=frozenset()):
    return [tuple(prompt.id for prompt in batch) for batch in batching.batches(PROMPTS, finished, size)]


@pytest.fixture
def rank(monkeypatch):
    def become(index: int, count: int) -> None:
        monkeypatch.setenv("RANK", str(index))
        monkeypatch.setenv("WORLD_SIZE", str(count))

    return become


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_processes_share_the_very_batches_that_one_would_make(rank, processes):
    whole = batches(2)
    assert sorted(name for batch in whole for name in batch) == sorted(prompt.id for prompt in PROMPTS)
    shared = []
    for index in range(processes):
        rank(index, processes)
        shared += batches(2)
    assert sorted(shared) == sorted(whole)


def test_a_batch_of_which_one_sample_is_missing_is_made_again_in_the_same_company():
    whole = batches(3)
    finished = {name for batch in whole[:2] for name in batch} - {whole[1][0]}
    assert batches(3, finished) == whole[1:]


def test_shards_are_merged_once_whatever_was_merged_before(rank, tmp_path):
    path = tmp_path / "samples.jsonl"
    rank(2, 3)
    assert own_path(path).name == "samples-2.jsonl"
    append_samples(own_path(path), [sample("b"), sample("c")])
    rank(0, 3)
    # A merge that was killed has moved one of the two, and half of the other.
    append_samples(own_path(path), [sample("a"), sample("b")])
    with path.open("a") as file:
        file.write('{"id": "c", "pro')
    assert sorted(merged(path)) == ["a", "b", "c"]
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b", "c"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.jsonl"]


def test_the_file_ends_in_the_order_of_the_benchmark(tmp_path):
    path = tmp_path / "samples.jsonl"
    append_samples(path, [sample("c"), sample("other"), sample("a")])
    write_in_order(path, merged(path), ["a", "c"])
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "c", "other"]


def test_two_processes_leave_the_samples_and_figures_of_one(tmp_path):
    options = ["model=tiny", "hardware=cpu", "limit=14", "decode.batch_size=4", "decode.max_new_tokens=12"]
    one = [sys.executable, "-m"]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for name, launcher in {"one": one, "two": two}.items():
        command = [*launcher, "ladder_cli.evaluate", *options, f"output_dir={tmp_path / name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    for file in ("arithmetic/samples.jsonl", "summary.json"):
        assert (tmp_path / "two" / file).read_text() == (tmp_path / "one" / file).read_text()
    assert not list((tmp_path / "two").rglob("samples-*"))
