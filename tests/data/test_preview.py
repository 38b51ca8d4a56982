"""What a dry run shows of the data, and the scripts that make data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ladder_cli.data.encoding import IGNORED_LABEL
from ladder_cli.data.preview import histogram, marked_example
from tests.train.test_run import ladder_train

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str, *arguments: str, **options):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / name), *arguments], capture_output=True, text=True, check=False, timeout=300,
        **options,
    )  # fmt: skip


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_histogram_counts_every_row_and_its_longest_bar_is_the_fullest_bin():
    lines = histogram([10, 11, 11, 12, 30])
    counts = [int(line.split()[-2]) for line in lines]
    assert sum(counts) == 5
    assert [line.count("█") for line in lines].index(40) == counts.index(max(counts))
    assert lines[0].split()[:3] == ["10", "to", "12"]
    assert histogram([]) == []


@pytest.mark.parametrize("answer", ["13.50 ÷ 0.50 = 27", "答えは二", "\N{FAMILY}\u200d", " a space before"])
def test_an_example_is_shown_with_its_characters_whole(tiny_tokenizer, answer):
    asked, told = (tiny_tokenizer.encode(text, add_special_tokens=False) for text in ("naïve?", answer))
    row = {"input_ids": asked + told, "labels": [IGNORED_LABEL] * len(asked) + told}
    assert marked_example(row, tiny_tokenizer).plain == f"naïve?»{answer}«"


def test_an_example_sends_nothing_that_a_terminal_would_obey(tiny_tokenizer):
    told = tiny_tokenizer.encode("\x1b]0;red\x07 1\n", add_special_tokens=False)
    assert marked_example({"input_ids": told, "labels": told}, tiny_tokenizer).plain == "»\\x1b]0;red\\x07 1\n«"


@pytest.mark.slow
def test_a_dry_run_shows_lengths_examples_and_the_questions_that_a_benchmark_asks_too(tmp_path):
    asked = [f"What is {n} plus {n}?" for n in range(40)]
    write_rows(
        tmp_path / "mirror" / "amc23" / "test.jsonl",
        [{"id": n, "question": q, "answer": 2.0 * n} for n, q in enumerate(asked)],
    )
    mine = write_rows(
        tmp_path / "mine.jsonl",
        [{"q": f"what is  {n} plus {n}?" if n == 3 else f"Is {n} even?", "a": str(n)} for n in range(30)],
    )
    result = ladder_train(
        "dry_run=true", "data=jsonl", f"data.path={mine}", "data.prompt=q", "data.completion=a",
        "data.train_samples=null", f"data_dir={tmp_path / 'mirror'}", f"output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "tokens of the training rows" in result.stdout
    assert "example 3" in result.stdout
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["rows"] == {"train": 22, "validation": 8}
    shared = plan["overlap"]["benchmarks"]["amc23"]
    assert (shared["exact"], shared["normalised"]) == (0, 1)
    assert "math500" in plan["overlap"]["not_checked"]
    assert "not checked, for want of a mirror" in result.stdout


def test_ready_candidates_become_balanced_critic_rows_split_by_question(tmp_path):
    rows = [
        {"question": f"What is {n} + {n}?", "gold": str(2 * n), "completion": rf"\boxed{{{2 * n + wrong}}}"}
        for n in range(20) for wrong in (0, 0, 1)
    ]  # fmt: skip
    rows.append({"question": "What is 1 + 1?", "gold": "2", "completion": "no box"})
    candidates = write_rows(tmp_path / "candidates.jsonl", rows)
    result = script("build_critic.py", "--candidates", str(candidates), "--data-dir", str(tmp_path / "mirror"))
    assert result.returncode == 0, result.stderr
    parts = {
        split: [json.loads(line) for line in (tmp_path / "mirror/critic" / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "test")
    }
    for part in parts.values():
        labels = [row["label"] for row in part]
        assert labels.count(1) == labels.count(0) >= 8
    questions = {split: {row["question"] for row in part} for split, part in parts.items()}
    assert questions["train"].isdisjoint(questions["test"])
    assert not any("no box" in row["completion"] for part in parts.values() for row in part)


def test_a_missing_candidates_file_is_one_line(tmp_path):
    result = script("build_critic.py", "--candidates", str(tmp_path / "none.jsonl"), "--data-dir", str(tmp_path))
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_prefetch_keeps_what_is_there_and_says_what_it_could_not_get(tmp_path):
    """Without a network: a set that is in the mirror already, and one that is not."""
    write_rows(tmp_path / "math500" / "test.jsonl", [{"problem": "1+1?", "answer": "2"}])
    result = script(
        "prefetch.py", "--data-dir", str(tmp_path), "--only", "math500", "--only", "amc23",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert result.returncode == 1
    assert "already there" in result.stdout
    assert "amc23" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "amc23").exists()
