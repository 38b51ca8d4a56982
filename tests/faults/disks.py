"""Disks that are full, directories that cannot be written, bytes that are not what was written."""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.faults.interrupted import Interrupted, contents
from tests.faults.processes import Command, Limits
from tests.faults.table import Row
from tests.faults.twins import DECODED, Difference, compare_runs, compare_samples, train_arguments


def full(half: Interrupted, folder: Path) -> Iterator[Row]:
    """No space while a checkpoint, the adapter or samples are written; then space again."""
    found, tried = Difference(), 0
    # Less than the adapter, less than the optimizer's state, and less than a log.
    for limit in (4_000_000, 1_000_000, 5_000):
        ours = half.copy()
        before = contents(ours / "run" / "checkpoints" / "checkpoint-12")
        outcome = half.again(ours, Limits(file_bytes=limit))
        told = outcome.status == 2 and len(outcome.err.splitlines()) == 1
        spoiled = contents(ours / "run" / "checkpoints" / "checkpoint-12") != before
        found += Difference(damaged=int(not told) + int(spoiled)) + half.mended(ours)
        tried += 1
    yield Row("disk full while training", tried, found.lost, found.damaged, "limit on the size of a file")

    with _small_disk(folder / "disk", "14m") as disk:
        if disk is not None:
            arguments = train_arguments("ladder", disk)
            outcome = Command(folder / "on-disk", "train", *arguments).finish()
            told = outcome.status == 2 and len(outcome.err.splitlines()) == 1
            subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
            Command(folder / "on-disk", "train", *arguments).finish()
            found = compare_runs(disk / "run", half.twin / "run") + Difference(damaged=int(not told))
            yield Row("disk full while training", 1, found.lost, found.damaged, "tmpfs of 14 MB")

    twin, ours = folder / "samples-twin", folder / "samples"
    arguments = ("model=tiny", *DECODED)
    assert Command(twin, "evaluate", *arguments, f"output_dir={twin / 'eval'}").finish().status == 0
    found, tried = Difference(), 0
    for limit in (1_000, 1_800, 2_600):
        again = (*arguments, f"output_dir={ours / 'eval'}")
        outcome = Command(ours, "evaluate", *again, limits=Limits(file_bytes=limit)).finish()
        found += Difference(damaged=int(outcome.status != 2 or len(outcome.err.splitlines()) != 1))
        tried += 1
    Command(ours, "evaluate", *again).finish()
    found += compare_samples(ours / "eval" / "arithmetic", twin / "eval" / "arithmetic")
    yield Row("disk full while evaluating", tried, found.lost, found.damaged, "limit on the size of a file")


def read_only(half: Interrupted) -> Iterator[Row]:
    """A run directory that this user may not write; then may."""
    ours = half.copy()
    inside = [ours / "run", *(path for path in (ours / "run").rglob("*") if path.is_dir())]

    def close(folder: Path) -> None:
        for path in inside:
            path.chmod(0o555)

    found = half.refused(ours, close, Limits(unprivileged=True))
    for path in inside:
        path.chmod(0o755)
    found += half.mended(ours)
    yield Row("directory not writable", 1, found.lost, found.damaged, "permissions, as an ordinary user")


def corrupted(half: Interrupted, seed: int = 3) -> Iterator[Row]:
    """A bit of every file of a checkpoint changed, or its end cut off: an earlier one is taken, the end is the same."""
    rng = random.Random(seed)
    found, tried = Difference(), 0
    names = sorted(path.name for path in (half.copy() / "run" / "checkpoints" / "checkpoint-12").iterdir())
    for name in names:
        ours = half.copy()
        spoil = _flip if rng.random() < 0.5 else _cut
        spoil(ours / "run" / "checkpoints" / "checkpoint-12" / name, rng)
        found += half.mended(ours)
        tried += 1
    ours = half.copy()
    for step in (8, 12):
        _flip(ours / "run" / "checkpoints" / f"checkpoint-{step}" / "optimizer.safetensors", rng)
    _cut(ours / "run" / "metrics.jsonl", rng)
    found += half.mended(ours)
    yield Row("bytes of a checkpoint corrupted", tried + 1, found.lost, found.damaged)

    found = Difference()
    for name in ("config.yaml", "run.json"):
        ours = half.copy()
        kept = (ours / "run" / name).read_bytes()
        found += half.refused(ours, lambda folder, name=name: _cut(folder / "run" / name, rng))  # type: ignore[misc]
        (ours / "run" / name).write_bytes(kept)
        found += half.mended(ours)
    yield Row("config.yaml or run.json corrupted", 2, found.lost, found.damaged, "refused; then restored")


def corrupted_results(half: Interrupted, folder: Path, seed: int = 4) -> Iterator[Row]:
    """Bytes of a finished adapter and of samples: refused in one line, and left as they are."""
    rng = random.Random(seed)
    found, tried = Difference(), 0
    for name in ("adapter_model.safetensors", "adapter_config.json", "prompt.json"):
        for spoil in (_flip, _cut):
            ours = folder / f"adapter-{tried}"
            shutil.copytree(half.twin, ours)
            spoil(ours / "run" / "adapter" / name, rng)
            before = contents(ours / "run")
            outcome = Command(ours, "evaluate", f"run={ours / 'run'}", *DECODED).finish()
            told = outcome.status == 2 and len(outcome.err.splitlines()) == 1
            found += Difference(damaged=int(not told) + int(contents(ours / "run") != before))
            tried += 1
    yield Row("bytes of an adapter corrupted", tried, found.lost, found.damaged, "refused")

    twin, ours = folder / "spoiled-twin", folder / "spoiled"
    arguments = ("model=tiny", *DECODED)
    assert Command(twin, "evaluate", *arguments, f"output_dir={twin / 'eval'}").finish().status == 0
    samples = ours / "eval" / "arithmetic" / "samples.jsonl"
    shutil.copytree(twin / "eval", ours / "eval")
    good = samples.read_bytes()
    lines = good.splitlines(keepends=True)
    found = Difference()
    again = (*arguments, f"output_dir={ours / 'eval'}")
    # A line that is no JSON is refused and stays; a last line that was cut off is recomputed.
    for content, status in ((b"".join([lines[0][:40] + b"\n", *lines[1:]]), 2), (good[:-60], 0)):
        samples.write_bytes(content)
        outcome = Command(ours, "evaluate", *again).finish()
        found += Difference(damaged=int(outcome.status != status))
        if status == 2:
            found += Difference(damaged=int(samples.read_bytes() != content))
    found += compare_samples(ours / "eval" / "arithmetic", twin / "eval" / "arithmetic")
    yield Row("lines of samples corrupted", 2, found.lost, found.damaged, "refused, or recomputed where cut off")


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


@contextlib.contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Path | None]:
    """A file system of a few megabytes; None where mounting is not allowed."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
