"""Makes balanced, labelled solutions for training a critic (appendix A.1)."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder_cli.errors import UserError


@dataclass(frozen=True)
class Candidate:
    """One solver's completion for a question, and whether its answer is right."""

    question: str
    completion: str
    correct: bool


def build(candidates: Iterable[Candidate], train: int, test: int) -> tuple[list[Candidate], list[Candidate]]:
    """Choose train and test rows, half of each right and half wrong; no question is in both.

    Questions are ordered by their hash and fill the test set first, then the training set. If there are too few
    right or wrong completions for these sizes, both sets shrink in proportion. The same completion of the same
    question counts once.

    Raises:
        UserError: if there is no right or no wrong completion at all.
    """
    by_question: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in dict.fromkeys(candidates):
        by_question[candidate.question].append(candidate)
    everything = [candidate for group in by_question.values() for candidate in group]
    right = sum(candidate.correct for candidate in everything)
    per_label = min(right, len(everything) - right)
    if per_label == 0:
        raise UserError(
            f"of {len(everything)} completions {right} are right: a critic needs both right and wrong ones. Add "
            "solvers of other strength."
        )
    share = min(1.0, 2 * per_label / (train + test))
    questions = sorted(by_question, key=lambda question: hashlib.sha256(question.encode()).hexdigest())
    tested, rest = _fill(questions, by_question, int(test * share) // 2)
    trained, _ = _fill(rest, by_question, int(train * share) // 2)
    return trained, tested


def _fill(
    questions: list[str], by_question: dict[str, list[Candidate]], per_label: int
) -> tuple[list[Candidate], list[str]]:
    """Choose as many right as wrong completions, at most `per_label` of each; also return the unused questions."""
    chosen: dict[bool, list[Candidate]] = {True: [], False: []}
    used = 0
    for question in questions:
        if all(len(group) >= per_label for group in chosen.values()):
            break
        used += 1
        for candidate in by_question[question]:
            chosen[candidate.correct].append(candidate)
    count = min(per_label, *map(len, chosen.values()))
    rows = chosen[True][:count] + chosen[False][:count]
    rows.sort(key=lambda row: hashlib.sha256((row.question + row.completion).encode()).hexdigest())
    return rows, questions[used:]


def write(folder: Path, train: list[Candidate], test: list[Candidate]) -> None:
    """Write `train.jsonl` and `test.jsonl` of `data=critic`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        lines = [json.dumps(_row(f"{name}-{number}", row)) for number, row in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def _row(name: str, row: Candidate) -> dict[str, Any]:
    return {"id": name, "question": row.question, "completion": row.completion, "label": int(row.correct)}
