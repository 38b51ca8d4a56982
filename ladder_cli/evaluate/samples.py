"""`samples.jsonl`: one graded completion a line, written as it comes, read back to resume.

{"id", "benchmark", "prompt", "completion", "tokens", "stop_reason", "gold", "unit", "error", "answer", "verdict"}

Those of `ladder-eval completions=` also have "rule" and "sample", the number of the completion among those of its
problem, from 1. A finished file is also what `completions=` reads, to grade it anew.
"""

import json
import os
from pathlib import Path
from typing import Any

from ladder_cli.errors import UserError
from ladder_cli.run.directory import read_json, write_json
from ladder_cli.run.files import write_text

Sample = dict[str, Any]
# Why a completion ended: at an end token or a stop string, or at the limit of new tokens.
STOP, LENGTH = "stop", "length"
# What a line must have; others may join it.
FIELDS = ("id", "prompt", "completion", "tokens", "stop_reason", "gold", "answer", "verdict")


def read_samples(path: Path) -> dict[str, Sample]:
    """Finished samples by problem id. A last line that a kill cut short is taken off the file.

    Raises:
        UserError: if a line that is not the last one is broken, or the file holds several completions of a problem.
    """
    samples = read_completion_samples(path)
    for problem, number in samples:
        if number != 1:
            raise UserError(
                f"{path} holds several completions of problem '{problem}', which `completions={path}` reads, and "
                "nothing that pairs problems."
            )
    return {problem: sample for (problem, _), sample in samples.items()}


def read_completion_samples(path: Path) -> dict[tuple[str, int], Sample]:
    """Finished samples by problem id and number of the completion. A last line that a kill cut short is taken off.

    Raises:
        UserError: if a line that is not the last one is broken.
    """
    if not path.is_file():
        return {}
    samples: dict[tuple[str, int], Sample] = {}
    content = path.read_bytes()
    whole, newline, rest = content.rpartition(b"\n")
    if rest:
        with path.open("r+b") as file:
            file.truncate(len(whole) + len(newline))
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            sample = json.loads(line)
            missing = [field for field in FIELDS if field not in sample]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            samples[sample["id"], sample.get("sample", 1)] = sample
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not a sample ({error}): delete the line or the file.") from error
    return samples


def write_samples(path: Path, samples: list[Sample]) -> None:
    """Write a whole file, or leave the one that is there."""
    write_text(path, "".join(json.dumps(sample) + "\n" for sample in samples))


def append_samples(path: Path, samples: list[Sample]) -> None:
    """Append whole lines and flush them to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write("".join(json.dumps(sample) + "\n" for sample in samples).encode())
        file.flush()
        os.fsync(file.fileno())


def same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings that samples are made under; or refuse to add to samples that were made under others.

    Raises:
        UserError: with every setting that differs.
    """
    if not path.is_file():
        write_json(path, settings)
        return
    before = read_json(path)
    changed = [f"{key}: {before.get(key)} -> {value}" for key, value in settings.items() if before.get(key) != value]
    if changed:
        raise UserError(
            f"{path.parent} holds samples of other settings ({'; '.join(changed)}): give another output_dir, or delete "
            f"that folder. Without a model its completions are graded anew by ladder-eval "
            f"completions={path.parent / 'samples.jsonl'} output_dir=NEW."
        )
