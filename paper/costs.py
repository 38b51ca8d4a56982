"""Computes what runs and tables cost: parameters and FLOPs of a configuration, hours on the paper's card.

Parameters and FLOPs come from shapes alone, without weights and without a download.

No GPU was available for measurements, so the rate is the paper's own: a ladder trains on 100,000 rows of EvoLM in about
an hour and QLoRA in about two (table 7). The paper does not name the backbone. The ratio of the hours is that of the
actual arithmetic (2N + 6n to 4N + 6n, 1 to 2.0). At 7B they would need half of an A100's peak on quantised weights, so
we read them as 1.5B.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import torch
from transformers import AutoModelForCausalLM

from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.benchmarks import benchmark_config
from ladder_cli.methods.registry import method_for
from ladder_cli.trunk.base import WHOLE
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import architecture, parameter_count
from paper.commands import evaluations_of, runs_of
from paper.laws import TOKENS_A_ROW
from paper.reported import PAPER, PaperTable
from paper.table import Table

# Training rows of data sets that are used whole, and mean tokens of a row. EvoLM's length is an assumption that cancels
# for table 1; s1K's solutions were counted with Qwen2.5's tokenizer; the critic's 600 is stated (appendix A.1); CoLA's
# sentences are short and stand within a prompt.
_ROWS = {"s1k": 950, "critic": 340, "cola": 8151}
_TOKENS = {"evolm": TOKENS_A_ROW, "s1k": 600, "critic": 600, "cola": 40}
_LABEL_TASKS = ("critic", "cola")


@dataclass(frozen=True)
class Sizes:
    """What a run holds and computes.

    Attributes:
        backbone: N, parameters of the frozen backbone with its embeddings.
        trained: n, trained parameters.
        flops: of one training token, by each way of counting (`methods.base.Cost`).
    """

    backbone: int
    trained: int
    flops: dict[str, int]


def sizes_of(config: TrainConfig) -> Sizes:
    """Return the sizes of one configuration.

    Raises:
        UserError: if the backbone's shape cannot be read, or the method does not fit it.
    """
    method, shape = method_for(config.method), architecture(config.model)
    with torch.device("meta"):
        trunk = LiveTrunk(AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16))
        model = method.shape(trunk)
    cost = trunk.cost(model.request or WHOLE)
    trained = parameter_count(model, trained=True)
    return Sizes(cost.parameters, trained, method.cost(cost).flops_per_token(trained))


@dataclass(frozen=True)
class Cost:
    """Training of one backbone and method within a table.

    Attributes:
        runs: how many.
        per_token: FLOPs of one token.
        flops: actual FLOPs of all runs.
        hours: at the rate of the paper's own runs.
    """

    label: str
    runs: int
    per_token: float
    flops: float
    hours: float


@cache
def rate() -> float:
    """Return the FLOPs a second of the paper's hour for 100,000 rows, for a ladder on 1.5B."""
    config = composed("train", TrainConfig, ["experiment=scaling"])
    return sizes_of(config).flops["actual"] * TOKENS_A_ROW * 100_000 / 3600


def costs(table: PaperTable) -> list[Cost]:
    """Return the cost of training for one table, by backbone and method."""
    found: dict[str, Cost] = {}
    for words, times in _runs(table).items():
        config = composed("train", TrainConfig, list(words))
        label = f"{config.model.name} {config.method.name}"
        before = found.get(label)
        per_token = before.per_token if before else sizes_of(config).flops["actual"]
        flops = times * per_token * _tokens(config) + (before.flops if before else 0.0)
        runs = times + (before.runs if before else 0)
        found[label] = Cost(label, runs, per_token, flops, flops / rate() / 3600)
    return list(found.values())


def _runs(table: PaperTable) -> Counter[tuple[str, ...]]:
    """Count a table's training runs by their options without seeds."""
    return Counter(
        tuple(word for word in run if not word.startswith("seed="))
        for command in table.filled(PAPER) or ()
        for run in runs_of(command)
    )


def _tokens(config: TrainConfig) -> float:
    name = config.data.name
    rows = _ROWS.get(name, config.data.train_samples)
    assert rows is not None
    return rows * config.train.epochs * _TOKENS[name]


def completions(table: PaperTable) -> int:
    """Count the completions that the evaluations of a table generate; label tasks generate none."""
    total = 0
    runs = _runs(table).total()
    for evaluation in evaluations_of(table.filled(PAPER) or ()):
        problems = sum(benchmark_config(name).rows or 0 for name in evaluation.benchmarks if name not in _LABEL_TASKS)
        total += problems * evaluation.repeats * (runs if evaluation.run else 1)
    return total


def costs_table(tables: dict[int, PaperTable]) -> Table:
    """Make the table of hours for every table."""
    rows: list[tuple[str, ...]] = []
    for number, table in tables.items():
        if table.runs_of:
            continue
        for cost in costs(table):
            rows.append((f"{number}: {cost.label}", str(cost.runs), f"{cost.flops:.1e}", f"{cost.hours:.1f}", ""))
        rows.append((f"{number}: evaluation", "", "", "", f"{completions(table):,}"))
    note = (
        f"At {rate() / 1e12:.0f} TFLOP/s, which is the paper's hour for 100,000 rows read as a ladder on 1.5B and rows "
        f"of {TOKENS_A_ROW} tokens (ours); runs that stop early cost less. Not measured: no GPU was at hand."
    )
    headings = ("table and row", "runs", "FLOPs", "hours of training", "completions of at most 2,048 tokens")
    return Table("What the tables cost on the paper's card", headings, rows, [note])
