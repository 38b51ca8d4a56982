"""Files and folders that are whole or absent, and the claim on a folder."""

import errno
import hashlib
import os
import subprocess
import sys
import time

import pytest

from ladder_cli.errors import UserError
from ladder_cli.run.claim import LOCK_FILE, claimed
from ladder_cli.run.files import SUMS, damage, move_into_place, seal, temporary_for, verified, write_failure, write_text


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one_and_no_leftover(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_two_that_write_one_file_at_a_time_each_write_a_whole_one(tmp_path, monkeypatch):
    path, texts = tmp_path / "summary.csv", ["one", "two"]
    flush, started = os.fsync, []

    def second_in_between(descriptor: int) -> None:
        if not started:
            started.append(True)
            write_text(path, texts[1])
            assert path.read_text() == texts[1]
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", second_in_between)
    write_text(path, texts[0])
    assert path.read_text() == texts[0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.csv"]


def test_a_temporary_name_says_what_it_stands_for(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "replace", lambda source, target: seen.append(source.name))
    write_text(tmp_path / "run.json", "text")
    assert seen[0] != "run.json"
    assert temporary_for(seen[0]) == "run.json"
    assert [temporary_for(name) for name in ("run.json.tmp", "run.json", "notes.txt")] == [
        "run.json", "run.json", "notes.txt"
    ]  # fmt: skip


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "checkpoint"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_bytes(b"weights")
    (folder / "inner" / "b").write_bytes(b"state")
    seal(folder)
    return folder


def test_a_sealed_folder_is_whole_and_sha256sum_agrees(sealed):
    assert damage(sealed) is None
    assert verified(sealed)["inner/b"] == hashlib.sha256(b"state").hexdigest()
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=sealed, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "a").write_bytes(b"weighty"), "a is not as it was written"),
        (lambda folder: (folder / "inner" / "b").unlink(), "b is missing"),
        (lambda folder: (folder / SUMS).unlink(), "SHA256SUMS is missing"),
        (lambda folder: (folder / SUMS).write_text(""), "SHA256SUMS is empty"),
        (lambda folder: (folder / SUMS).write_text("0" * 64 + "  ../secret\n"), "cannot be read"),
    ],
)
def test_damage_is_named(sealed, spoil, told):
    spoil(sealed)
    assert told in damage(sealed)


def test_a_folder_takes_the_place_of_another(sealed, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    move_into_place(sealed, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target"]
    assert damage(target) is None


def test_failures_to_write_are_told_from_other_errors():
    assert "No space left" in write_failure(OSError(errno.ENOSPC, "No space left on device", "file"))
    assert write_failure(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 5 vs 4"))
    assert write_failure(FileNotFoundError(errno.ENOENT, "No such file")) is None
    assert write_failure(ValueError("shapes do not match")) is None


HOLD = "import sys, time; from pathlib import Path; from ladder_cli.run.claim import claimed\n"
HOLD += "with claimed(Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_claimed_folder_is_refused_and_its_holder_named(holder, tmp_path):
    with pytest.raises(UserError, match=f"is being written by process {holder.pid} on "), claimed(tmp_path / "run"):
        pass


def test_a_killed_holder_lets_go_and_the_file_it_leaves_means_nothing(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / LOCK_FILE).exists()
    with claimed(tmp_path / "run"):
        pass


def test_waiting_for_a_claim_ends_when_it_is_free(holder, tmp_path):
    waiter = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("])):", "]), wait=True):"), tmp_path / "run"],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)
    assert waiter.poll() is None
    holder.kill()
    assert waiter.stdout.readline() == "held\n"
    waiter.kill()
    waiter.communicate()


def test_a_claim_leaves_no_lock_behind_nor_a_folder_that_nothing_was_written_to(tmp_path):
    with claimed(tmp_path / "empty"):
        pass
    with claimed(tmp_path / "used"):
        (tmp_path / "used" / "file").touch()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["used", "used/file"]
