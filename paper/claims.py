"""Judges the paper's claims by our runs and predictions: a verdict and its evidence for each.

A claim holds or fails only if the numbers leave no doubt; otherwise it is open, or not run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean

import numpy as np

from paper.memory_points import MemoryPoint
from paper.runs import BACKBONE, Run, by_label
from paper.scaling_law import Fit
from paper.table import Table
from paper.tables import scaling_fits

HOLDS, FAILS, OPEN, NOT_RUN = "holds", "does not hold", "open", "not run"
# Ours: the paper calls slopes "very similar" and memory "about half" without a number.
SLOPE_MARGIN = 0.05
HALF = 0.55
QLORA = "qlora"  # the preset that the claims compare with
_DRAWS = 2000


@dataclass(frozen=True)
class Judged:
    """One claim.

    Attributes:
        claim: in our words, with its place in the paper.
        verdict: HOLDS, FAILS, OPEN or NOT_RUN.
        evidence: the numbers.
    """

    claim: str
    verdict: str
    evidence: str


def slopes(runs: Sequence[Run], draws: int = 400) -> list[Judged]:
    """Judge section 4.2: a ladder's exponent equals QLoRA's, that is, to within SLOPE_MARGIN."""
    claim = "the exponents of the scaling laws are equal (section 4.2, abstract)"
    fits = scaling_fits(runs, draws)
    models = {run.label: run.model for run in runs}
    found = [
        _slopes(f"{claim}: {one}, {other}", fits[one], fits[other])
        for one, other in combinations(fits, 2)
        if models[one] == models[other]
    ]
    return found or [Judged(claim, NOT_RUN, "no backbone has runs of three budgets under two methods")]


def _slopes(claim: str, one: Fit, other: Fit) -> Judged:
    difference = one.law.exponent - other.law.exponent
    # Two fits of one seed draw the same noise. Reversing one order makes the draws independent.
    drawn = [a.exponent - b.exponent for a, b in zip(one.draws, other.draws[::-1], strict=False)]
    if not drawn:
        return Judged(claim, OPEN, f"difference {difference:+.3f}; three points leave no interval")
    low, high = (float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    verdict = OPEN
    if low >= -SLOPE_MARGIN and high <= SLOPE_MARGIN:
        verdict = HOLDS
    elif low > 0 or high < 0:
        verdict = FAILS
    unsure = "" if one.identified and other.identified else "; an exponent is not identified"
    return Judged(
        claim,
        OPEN if unsure else verdict,
        f"difference {difference:+.3f} (95%: {low:+.3f} to {high:+.3f}); equal means within {SLOPE_MARGIN}{unsure}",
    )


def predicted_memory(points: Mapping[str, Sequence[MemoryPoint]], card_gb: float) -> list[Judged]:
    """Judge the abstract and section 4.3: half of the peak, and 7B on a small card, for each kind of attention.

    Args:
        points: by backbone; methods are named "ladder, <attention>" and "<other>, <attention>".
        card_gb: of the card, in 10^9 bytes.
    """
    judged = []
    for backbone, one in points.items():
        sizes = {point.method: point.bytes / 1e9 for point in one}
        for kind in dict.fromkeys(name.partition(", ")[2] for name in sizes):
            pair = [name for name in sizes if name.partition(", ")[2] == kind]
            if len(pair) != 2:
                continue
            side, full = (sizes[name] for name in pair)
            judged.append(
                Judged(
                    f"a ladder needs about half of QLoRA's peak (introduction, section 4.3): {backbone}, {kind}",
                    HOLDS if side / full <= HALF else FAILS,
                    f"predicted {side:.1f} against {full:.1f} GB, {side / full:.0%}; about half: at most {HALF:.0%}",
                )
            )
            if "7b" in backbone:
                judged.append(
                    Judged(
                        f"7B trains in {card_gb:g} GB at 2k tokens without checkpointing, and QLoRA does not (arXiv "
                        f"abstract): {backbone}, {kind}",
                        HOLDS if side <= card_gb < full else FAILS,
                        f"predicted {side:.1f} and {full:.1f} GB",
                    )
                )
    return judged


def measured_memory(runs: Sequence[Run]) -> list[Judged]:
    """Judge section 4.3 by measured peaks, where a ladder and QLoRA ran with one micro-batch on one backbone."""
    claim = "a ladder needs about half of QLoRA's peak (section 4.3), measured"
    groups: dict[tuple, dict[str, list[float]]] = {}
    for run in runs:
        if run.metrics and run.metrics["peak_memory_bytes"]["measured"]:
            key = (run.model, run.config["train"]["micro_batch_size"], run.config["data"].get("max_length"))
            peak = run.metrics["peak_memory_bytes"]["measured"] / 1e9
            groups.setdefault(key, {}).setdefault(run.method, []).append(peak)
    judged = []
    for (model, rows, tokens), methods in groups.items():
        sizes = {name: max(peaks) for name, peaks in methods.items()}
        for ladder in sorted(sizes.keys() - {QLORA} if QLORA in sizes else ()):
            share = sizes[ladder] / sizes[QLORA]
            judged.append(
                Judged(
                    f"{claim}: {model}, {ladder} against {QLORA}, {rows} x {tokens or '?'} tokens",
                    HOLDS if share <= HALF else OPEN,
                    f"{sizes[ladder]:.2f} against {sizes[QLORA]:.2f} GB, {share:.0%} (on a CPU the whole process, "
                    "Python and PyTorch with it)",
                )
            )
    return judged or [Judged(claim, NOT_RUN, "no backbone ran under a ladder and QLoRA with one micro-batch")]


def chains(runs: Sequence[Run], seed: int = 0) -> list[Judged]:
    """Judge section 5.2, figure 4: xLadder@4's completions are shorter than Ladder@4's, both right and wrong."""
    claim = "xLadder@4 answers in fewer tokens than Ladder@4 (section 5.2, figure 4)"
    judged = []
    for one, other in _pairs_of_backbone(runs, suffix="-4"):
        for benchmark in sorted({name for run in one + other for name in run.scores}):
            for right in (True, False):
                words = "right" if right else "wrong"
                name = f"{claim}: {one[0].model}, {benchmark}, {words} answers"
                lengths = [_lengths(group, benchmark, right) for group in (one, other)]
                if not all(lengths):
                    judged.append(Judged(name, OPEN, f"no {words} answers under one of the two"))
                    continue
                difference, low, high = _difference(lengths[1], lengths[0], seed)
                evidence = f"{difference:+.0f} tokens (95%: {low:+.0f} to {high:+.0f})"
                judged.append(Judged(name, _signed(low, high), evidence))
    return judged or [Judged(claim, NOT_RUN, "no backbone was evaluated under both")]


def _pairs_of_backbone(runs: Iterable[Run], suffix: str) -> list[tuple[list[Run], list[Run]]]:
    """Yield for every backbone the runs of the two methods whose names end so, the one without x first."""
    groups = {label: group for label, group in by_label(runs).items() if group[0].method.endswith(suffix)}
    found = []
    for one, other in combinations(groups.values(), 2):
        if one[0].model == other[0].model:
            first, second = sorted((one, other), key=lambda group: group[0].method.startswith("x"))
            found.append((first, second))
    return found


def _lengths(runs: Iterable[Run], benchmark: str, right: bool) -> dict[str, list[float]]:
    """Return the tokens of completions by problem."""
    lengths: dict[str, list[float]] = {}
    for run in runs:
        for sample in run.samples(benchmark) if benchmark in run.scores else ():
            if (sample["verdict"] == "correct") == right:
                lengths.setdefault(str(sample["id"]), []).append(sample["tokens"])
    return lengths


def _difference(first: dict[str, list[float]], second: dict[str, list[float]], seed: int) -> tuple[float, float, float]:
    """Return the difference of the means over all completions, with a 95% bootstrap over problems."""
    names = sorted(set(first) | set(second))
    # A row for each problem: tokens of the first and of the second, completions of the first and of the second.
    table = np.zeros((len(names), 4))
    for row, name in enumerate(names):
        for side, lengths in enumerate((first.get(name, []), second.get(name, []))):
            table[row, side], table[row, 2 + side] = sum(lengths), len(lengths)

    def contrast(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums[..., 0] / sums[..., 2] - sums[..., 1] / sums[..., 3]

    weights = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), _DRAWS)
    low, high = np.nanquantile(contrast(weights @ table), [0.025, 0.975])
    return float(contrast(table.sum(axis=0))), float(low), float(high)


def _signed(low: float, high: float) -> str:
    """Judge the claim that an interval lies below zero."""
    return HOLDS if high < 0 else FAILS if low > 0 else OPEN


def equal_parameters(counts: Mapping[str, Mapping[str, int]]) -> list[Judged]:
    """Judge section 5.2: both @4 variants train equally many parameters.

    Args:
        counts: trained parameters by reading and method; two methods each.
    """
    return [
        Judged(
            f"Ladder@4 and xLadder@4 train equally many parameters (section 5.2): {reading}",
            HOLDS if len(set(methods.values())) == 1 else FAILS,
            ", ".join(f"{name} {count:,}" for name, count in methods.items()),
        )
        for reading, methods in counts.items()
    ]


def critic(runs: Sequence[Run], threshold: float = 0.8) -> list[Judged]:
    """Judge appendix A.1: from near chance to above 80%."""
    judged = []
    for label, group in by_label(run for run in runs if "critic" in run.scores).items():
        alone = group[0].method == BACKBONE
        metrics = [run.scores["critic"] for run in group]
        score = mean(each["pass_at_1"] for each in metrics)
        low, high = (mean(each["ci95"][end] for each in metrics) for end in (0, 1))
        if alone:
            claim, verdict = f"a base model's critic is near chance (appendix A.1): {label}", OPEN
            verdict = HOLDS if low <= 0.5 <= high else FAILS
        else:
            claim = f"a trained critic is right in more than {threshold:.0%} (appendix A.1): {label}"
            verdict = HOLDS if low > threshold else FAILS if high < threshold else OPEN
        judged.append(Judged(claim, verdict, f"{score:.1%} (95%: {low:.1%} to {high:.1%})"))
    return judged or [Judged("the critic, from near chance to above 80% (appendix A.1)", NOT_RUN, "no run of table 4")]


def claims_table(judged: Sequence[Judged]) -> Table:
    """Make a table of all judged claims."""
    return Table(
        "The paper's claims, as far as runs and predictions judge them",
        ("claim", "verdict", "evidence"),
        [(one.claim, one.verdict, one.evidence) for one in judged],
        [f"{HOLDS} and {FAILS}: the 95% interval leaves no doubt; {OPEN}: it does."],
    )
