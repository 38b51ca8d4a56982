"""What stands in a report, as one JSON value: scores, tests, training, settings, samples.

Every figure is computed by the code that computes it for the terminal (`evaluate/summary.py`,
`evaluate/comparison.py`); the page only shows.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from ladder_cli import __version__
from ladder_cli.errors import UserError
from ladder_cli.evaluate.answers.verdict import VERDICTS
from ladder_cli.evaluate.comparison import Compared, Side, compare
from ladder_cli.evaluate.samples import Sample
from ladder_cli.evaluate.statistics import holm
from ladder_cli.evaluate.summary import INITIALISATIONS, RUNS, summarise
from ladder_cli.report.folders import LABEL_TASK, Reported

_COMPARED = (
    *("benchmark", "difference", "low", "high", "only_first", "only_second", "test", "p_value", "p_holm"),
    *("unpaired", "notes"),
)
# Settings of an evaluation that are the same for all models or stand elsewhere.
_OF_EVALUATION = "evaluation"


def content(folders: Sequence[Reported], left_out: Sequence[str]) -> dict[str, Any]:
    """Everything that the page shows.

    Args:
        left_out: lines on folders that a pattern matched and the report leaves out.
    """
    groups = _groups(folders)
    labels = short_names([each.name for each in folders])
    tests, untested = _tests(groups)
    return _plain(
        {
            "version": __version__,
            "runs": [_run(each, label) for each, label in zip(folders, labels, strict=True)],
            "scores": _scores(folders, groups),
            "tests": tests,
            "untested": untested,
            "left_out": list(left_out),
            "verdicts": list(VERDICTS),
            **_samples(folders),
        }
    )


def short_names(names: Sequence[str]) -> list[str]:
    """Each name without what all have: `ladder-tiny-sums,seed=0,epochs=3` beside `qlora-tiny-sums,seed=0,epochs=3` is
    `ladder`. Names that would then be the same keep as much as tells them apart.
    """
    if len(names) < 2:
        return list(names)
    parts = [name.split(",") for name in names]
    shared = set.intersection(*(set(each[1:]) for each in parts))
    options = [[part for part in each[1:] if part not in shared] for each in parts]
    heads = [each[0].split("-") for each in parts]
    while all(len(head) > 1 for head in heads) and len({head[-1] for head in heads}) == 1:
        heads = [head[:-1] for head in heads]
    short = [",".join(["-".join(head), *rest]) for head, rest in zip(heads, options, strict=True)]
    return short if len(set(short)) == len(short) else list(names)


def _groups(folders: Sequence[Reported]) -> dict[str, list[Reported]]:
    """The folders by experiment: name of the group -> its runs, which differ in the seed alone."""
    by_key: dict[str, list[Reported]] = {}
    for each in folders:
        by_key.setdefault(each.group, []).append(each)
    names = []
    for members in by_key.values():
        split = [member.name.split(",") for member in members]
        kept = [part for part in split[0] if all(part in other for other in split)]
        names.append(",".join(kept) or members[0].name)
    named: dict[str, list[Reported]] = {}
    for name, members in zip(short_names(names), by_key.values(), strict=True):
        counted = f"{name} ({len(members)} runs)" if len(members) > 1 else name
        # Experiments whose names say the same are told apart by their number.
        named[counted if counted not in named else f"{counted} #{len(named) + 1}"] = members
    return named


def _scores(folders: Sequence[Reported], groups: dict[str, list[Reported]]) -> list[dict[str, Any]]:
    """A row for each pair (run or experiment of several, benchmark)."""
    rows = [
        {"run": number, "several": False, "benchmark": name, "greedy": answered.greedy} | _figures(answered.figures)
        for number, each in enumerate(folders)
        for name, answered in each.evaluations.items()
    ]
    for name, members in groups.items():
        if len(members) > 1:
            rows += [{"label": name, "several": True} | row for row in _together(members)]
    return rows


def _together(members: list[Reported]) -> list[dict[str, Any]]:
    """Mean and spread of the runs of one experiment, over the problems that all have answered."""
    rows = []
    orders = {each.training.order_of_seed if each.training else None for each in members}
    differ_in = INITIALISATIONS if len(orders) == 1 and None not in orders else RUNS
    for name, first in members[0].evaluations.items():
        answered = [each.evaluations.get(name) for each in members]
        present = [each for each in answered if each is not None and not each.several]
        if len(present) < len(members) or first.settings.get("kind") == LABEL_TASK:
            continue
        repeats = min(len(each.repeats) for each in present)
        by_id = [[{sample.id: sample for sample in repeat} for repeat in each.repeats[:repeats]] for each in present]
        shared = [
            sample.id for sample in first.repeats[0] if all(sample.id in repeat for run in by_id for repeat in run)
        ]
        if not shared:
            continue
        answers = {
            member.name: [[repeat[problem] for problem in shared] for repeat in run]
            for member, run in zip(members, by_id, strict=True)
        }
        figures = summarise(answers, first.greedy, differ_in)
        rows.append({"benchmark": name, "greedy": first.greedy} | _figures(figures))
    return rows


def _figures(figures: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a benchmark's figures; the ids on which Math-Verify disagrees are among the samples."""
    shown = {name: value for name, value in figures.items() if name not in ("scores", "math_verify")}
    found = figures.get("math_verify")
    by_math_verify = {key: found[key] for key in ("pass_at_1", "disagreements")} if found else None
    return shown | {"math_verify": by_math_verify}


def _tests(groups: dict[str, list[Reported]]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Every two experiments on every benchmark that both have answered, with Holm's correction over all of them; and
    the pairs that cannot be tested, with the reason.
    """
    sides = {name: _joined(name, members) for name, members in groups.items()}
    tests: list[tuple[str, str, Compared]] = []
    untested: list[dict[str, str]] = []
    for first, second in combinations(sides, 2):
        try:
            tests += [(first, second, each) for each in compare(sides[first], sides[second], True)]
        except UserError as error:
            untested.append({"first": first, "second": second, "why": str(error).removeprefix("compare: ")})
    corrected = holm([each.p_value for _, _, each in tests])
    rows = []
    for (first, second, each), p_holm in zip(tests, corrected, strict=True):
        named = {name: getattr(replace(each, p_holm=p_holm), name) for name in _COMPARED}
        scores = {"first_score": each.first["pass_at_1"], "second_score": each.second["pass_at_1"]}
        rows.append({"first": first, "second": second, "n_problems": each.first["n_problems"]} | scores | named)
    return rows, untested


def _joined(name: str, members: list[Reported]) -> Side:
    samples: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for side in (member.side() for member in members):
        for benchmark, by_run in side.samples.items():
            samples.setdefault(benchmark, {}).update(by_run)
            settings.setdefault(benchmark, {}).update(side.settings[benchmark])
    return Side(name, samples, settings)


def _run(each: Reported, label: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": each.name, "label": label, "path": str(each.path), "training": None}
    settings = {
        f"{_OF_EVALUATION}.{benchmark}.{key}": value
        for benchmark, answered in each.evaluations.items()
        for key, value in answered.settings.items()
    }
    trained = each.training
    if trained is not None:
        shown["training"] = {
            **{"curves": trained.curves, "thinned": trained.thinned},
            **{"memory": trained.memory, "figures": trained.figures},
        }
        settings = {
            **{f"identity.{key}": value for key, value in trained.identity.items()},
            **trained.settings,
        } | settings
    shown["settings"] = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return shown


def _samples(folders: Sequence[Reported]) -> dict[str, Any]:
    """Problems, and for each its samples as rows; texts that occur again (prompts) stand once, in `texts`."""
    texts: dict[str, int] = {}
    problems: dict[tuple[Any, ...], int] = {}
    listed: list[dict[str, Any]] = []
    rows: list[list[Any]] = []

    def text(value: Any) -> int | None:
        if value is None:
            return None
        return texts.setdefault(value if isinstance(value, str) else json.dumps(value), len(texts))

    for number, folder in enumerate(folders):
        for benchmark, answered in folder.evaluations.items():
            for repeat, samples in enumerate(answered.repeats, start=1):
                for sample in samples:
                    key = (benchmark, sample.id, sample.gold, sample.question_digest)
                    if key not in problems:
                        problems[key] = len(problems)
                        units = {"unit": sample.unit or None, "error": sample.error}
                        listed.append({"benchmark": benchmark, "id": sample.id, "gold": sample.gold} | units)
                    rows.append(_row(problems[key], number, repeat, sample, text))
    return {"problems": listed, "samples": rows, "texts": list(texts)}


def _row(problem: int, run: int, repeat: int, sample: Sample, text: Any) -> list[Any]:
    """In the order in which page.js names them."""
    return [
        problem,
        run,
        sample.number if sample.number is not None else repeat,
        sample.verdict,
        sample.answer,
        sample.tokens,
        sample.stop_reason,
        sample.math_verify,
        text(sample.prompt),
        text(sample.reading if sample.reading is not None else sample.logits),
        sample.completion,
    ]


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity: None stands for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
