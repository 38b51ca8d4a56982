"""One file of samples in the end, however many processes made them.

Process 0 appends to `samples.jsonl` itself, process n to `samples-n.jsonl` beside it.
"""

from collections.abc import Sequence
from pathlib import Path

from ladder_cli.config.ranks import process_index
from ladder_cli.evaluate.samples import Sample, append_samples, as_lines, read_samples
from ladder_cli.run.files import write_text


def own_path(path: Path) -> Path:
    """The file that this process appends to, where `path` is the one of all samples."""
    return path if process_index() == 0 else path.with_name(f"{path.stem}-{process_index()}{path.suffix}")


def merged(path: Path) -> dict[str, Sample]:
    """All samples by problem id, with those of other processes moved into `path`; for process 0 alone.

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
    """Write the file anew in the order of the benchmark, whoever finished what first; other problems come after."""
    wanted = [samples[name] for name in names]
    others = [sample for name, sample in samples.items() if name not in set(names)]
    text = as_lines([*wanted, *others])
    if path.read_text() != text:
        write_text(path, text)
