"""Every row is passed as often as asked, whatever the batches."""

import json

import pytest

from ladder_cli.data.passes import rows_after, steps_for
from ladder_cli.train.bad_batch import BadBatch
from tests.malformed import run_command


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "steps"),
    [
        (20, 16, 10, 20),
        (1, 4, 10, 10),
        (16, 16, 3, 3),
        (17, 16, 1, 2),
        (30, 1, 0.1, 3),  # 0.1 x 30 is a little more than 3 in binary
        (20, 16, 0.5, 1),
        (20, 16, 0.6, 2),
        (20, 16, 1e-5, 1),
        (100, 10, 1.25, 13),
    ],
)
def test_steps_are_whole_epochs_of_as_many_steps_as_pass_every_row(rows, batch, epochs, steps):
    assert steps_for(rows, batch, epochs, None) == steps
    assert steps_for(rows, batch, epochs, 7) == 7


def test_rows_passed_are_counted_to_the_row():
    assert [rows_after(step, 20, 16) for step in range(5)] == [0, 16, 20, 36, 40]
    assert rows_after(10, 1, 4) == 10


@pytest.mark.parametrize("packing", ["false", "true"])
def test_a_run_passes_each_row_once_an_epoch_and_its_log_says_so(packing, tmp_path, monkeypatch):
    passed: list[list[int]] = []

    def seen(self, step, rows):
        passed.extend([] for _ in range(step + 1 - len(passed)))
        passed[step] += rows

    monkeypatch.setattr(BadBatch, "seen", seen)
    options = [
        *("hardware=cpu", "data.train_samples=7", "data.validation_samples=2", "data.cache=false", "train.epochs=2.5"),
        *("train.global_batch_size=4", "train.micro_batch_size=2", "train.evaluations=1", "train.logging_steps=1"),
        *(f"data.packing={packing}", "data.max_length=128", f"output_dir={tmp_path / 'run'}"),
    ]
    status, out, errors = run_command("train", options)
    assert status == 0, errors
    rows = sorted({row for step in passed for row in step})
    per_epoch = -(-len(rows) // 4)
    assert len(passed) == -(-5 * per_epoch // 2), "two epochs and a half"
    assert f"{len(passed)} of 4 rows" in out
    for epoch in range(2):
        steps = passed[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(row for step in steps for row in step) == rows
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    total = 0
    for line, step in zip((line for line in lines if "loss" in line), passed, strict=True):
        total += len(step)
        assert line["rows_seen"] == total
        assert line["epoch"] == pytest.approx(total / len(rows))
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert figures["rows_seen"] == total
    assert figures["epochs"] == pytest.approx(total / len(rows))
    assert f"{total / len(rows):.2f} epochs" in out
