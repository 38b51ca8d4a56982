"""Merges the samples of several processes into one file.

Process 0 appends to `samples.jsonl` itself, process n to `samples-n.jsonl` beside it.
"""

from collections.abc import Sequence
from pathlib import Path

from ladder_cli.evaluate.samples import Sample, append_samples, as_lines, read_samples
from ladder_cli.ranks import process_index
from ladder_cli.run.files import write_text


def own_path(path: Path) -> Path:
    """Return the file that this process appends to; `path` is the file of all samples."""
    return path if process_index() == 0 else path.with_name(f"{path.stem}-{process_index()}{path.suffix}")


def merged(path: Path) -> dict[str, Sample]:
    """Move the samples of other processes into `path` and return all by problem id. Only process 0 may call it.

    A kill at any moment leaves each sample in at least one of the files, and in `path` at most once.
    """
    samples = read_samples(path)
    for shard in sorted(path.parent.glob(f"{path.stem}-*{path.suffix}")):
        found = read_samples(shard)
        append_samples(path, [sample for name, sample in found.items() if name not in samples])
        samples |= {name: sample for name, sample in found.items() if name not in samples}
        shard.unlink()
    return samples


def write_in_order(path: Path, samples: dict[str, Sample], names: Sequence[str]) -> None:
    """Rewrite the file in the order of the benchmark; samples of other problems come last."""
    wanted = [samples[name] for name in names]
    others = [sample for name, sample in samples.items() if name not in set(names)]
    text = as_lines([*wanted, *others])
    if path.read_text() != text:
        write_text(path, text)
