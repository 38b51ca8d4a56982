"""A search that can be trusted: every method with the same number of trials, and the same processor time in each.

    python scripts/search.py --timed 60                            the embedded model on its own task
    python scripts/search.py --model smollm2-135m --path DIR --rows FILE.jsonl --prompt question --completion answer

The time is that of so many steps of plain LoRA, or of LoRA with recomputed layers (`--time`). A trial draws its
settings from its method's space (a Latin hypercube, so that a rate is tried in every part of its range) and gets as
many steps as fit into that time, by what a step of its shape costs: alone, or on taps that are cached already
(`--cost`). All trials see one seed; what is reported are other seeds, whose rows for the validation nobody chose on.
Taps are shared by all runs, whatever the cost that is counted: the results are the same to the bit.

Every trial is in the table, failed ones too. A search that was interrupted goes on. Writes search.json and search.md
into the folder.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from _studied import add_studied, count, further, layers_of, refuse_repeats, studied
from scipy.stats import qmc

from ladder_cli.bench.study import RunCost, Study, mean_and_range
from ladder_cli.console import make_console
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.run.directory import OUTPUTS, write_json
from ladder_cli.run.files import write_text
from ladder_cli.streams import quiet_libraries

SEARCH_SEED, FINAL_SEEDS = 0, (1, 2, 3)
PLAIN, RECOMPUTED = "plain", "recomputed"
ALONE, CACHED = "alone", "cached"
REFERENCE = ("method=qlora", "method.rank=16")
TIMES = {PLAIN: REFERENCE, RECOMPUTED: (*REFERENCE, "method.gradient_checkpointing=true")}
# Steps of the two runs whose difference says what a step costs, the longer one where nothing is said.
FEW_STEPS, MANY_STEPS = 2, 10

Draw = Callable[[float], str]


@dataclass(frozen=True)
class Family:
    """A method and what of it is searched.

    Attributes:
        options: of every trial.
        shape: options that change what a step costs; `rest`: those that do not. Each maps [0, 1) to a value.
        cached: it reads taps, which can be cached.
    """

    name: str
    options: tuple[str, ...]
    shape: dict[str, Draw]
    rest: dict[str, Draw]
    cached: bool = True

    def draws(self, count: int) -> list[tuple[list[str], list[str]]]:
        """Options of shape and of the rest, for so many trials; the same ones every time."""
        names = [*self.shape, *self.rest]
        space = self.shape | self.rest
        points = qmc.LatinHypercube(len(names), rng=0).random(count)
        drawn = [
            [f"{name}={space[name](float(at))}" for name, at in zip(names, point, strict=True)] for point in points
        ]
        return [(words[: len(self.shape)], words[len(self.shape) :]) for words in drawn]


@dataclass
class Trial:
    """One run, or what became of it.

    Attributes:
        step_seconds: of the processor, counted as `--cost` says.
        loss: on the validation rows; None: it failed, as `failure` says.
        seconds: that the run took here, on shared taps, its start and validation included.
        alone_seconds: that it would at least have taken without the taps of others, by what a step costs alone; what
            the validation rows cost more then is not in them.
    """

    family: str
    settings: list[str]
    seed: int
    step_seconds: float = 0.0
    steps: int = 0
    loss: float | None = None
    seconds: float = 0.0
    alone_seconds: float = 0.0
    failure: str | None = None


@dataclass
class Search:
    """Runs the trials.

    Attributes:
        budget: processor seconds of each trial.
        cost: which cost of a step is counted.
        timed: steps of the longer run that says what a step costs.
    """

    study: Study
    budget: float
    cost: str
    timed: int = MANY_STEPS
    trials: list[Trial] = field(default_factory=list)

    def best(self, family: Family, count: int) -> Trial:
        """Every trial of a family; gives the one with the lowest loss.

        Raises:
            SystemExit: if all of them failed.
        """
        made = [self._trial(family, shape, rest, SEARCH_SEED) for shape, rest in family.draws(count)]
        done = [trial for trial in made if trial.loss is not None]
        if not done:
            sys.exit(f"every trial of {family.name} failed; the last one: {made[-1].failure}")
        return min(done, key=lambda trial: trial.loss or 0.0)

    def again(self, family: Family, best: Trial, seeds: Sequence[int]) -> list[Trial]:
        """The best settings with seeds, and so with validation rows, that nobody chose on."""
        shape = [word for word in best.settings if word.partition("=")[0] in family.shape]
        rest = [word for word in best.settings if word not in shape]
        return [self._trial(family, shape, rest, seed) for seed in seeds]

    def _trial(self, family: Family, shape: list[str], rest: list[str], seed: int) -> Trial:
        trial = Trial(family.name, [*shape, *rest], seed)
        self.trials.append(trial)
        try:
            options = (*family.options, *shape)
            # The cost of a shape is that of a run alone, unless taps that are there already are counted.
            alone = cost_of(self.study, options, False, self.timed)
            counted = cost_of(self.study, options, True, self.timed) if family.cached and self.cost == CACHED else alone
            trial.step_seconds = counted.step
            trial.steps = max(1, round(self.budget / trial.step_seconds))
            words = [*options, *rest, f"train.max_steps={trial.steps}", f"seed={seed}"]
            run = self.study.run(family.name, words, family.cached)
            trial.loss, trial.seconds = run.loss, run.seconds
            trial.alone_seconds = max(run.seconds, alone.of(trial.steps)) if family.cached else run.seconds
        except (UserError, RunFailed) as error:
            trial.failure = str(error)
        told = f"{trial.loss:.4f}" if trial.loss is not None else f"failed: {trial.failure}"
        print(f"{family.name:<10} seed {seed}, {trial.steps:>4} steps: {told}   {' '.join(trial.settings)}", flush=True)
        return trial


@cache
def cost_of(study: Study, options: tuple[str, ...], cached: bool, timed: int) -> RunCost:
    """What a run costs; of the same options measured once, whatever they are measured for."""
    cost = study.cost("cost", list(options), cached, (FEW_STEPS, timed))
    where = "on cached taps" if cached else "alone"
    print(f"a step takes {cost.step:.2f} processor seconds {where}: {' '.join(options)}", flush=True)
    return cost


def log(low: float, high: float) -> Draw:
    """Evenly over the logarithm."""
    return lambda at: f"{low * (high / low) ** at:.3g}"


def one_of(*values: object) -> Draw:
    """Each with the same share."""
    return lambda at: str(values[int(at * len(values))])


def families(layers: int) -> list[Family]:
    """What is searched, on a backbone of L layers."""
    third, half = max(1, layers // 3), max(1, layers // 2)
    schedule: dict[str, Draw] = {
        "train.scheduler": one_of("cosine", "linear"),
        "train.warmup_ratio": one_of(0.03, 0.1),
        "train.weight_decay": one_of(0.0, 0.01, 0.1),
    }
    rate: dict[str, Draw] = {"train.learning_rate": log(3e-4, 8e-3)}
    # Muon's step costs more than AdamW's.
    optimizer: dict[str, Draw] = {"train.optimizer": one_of("auto", "muon")}
    ladder: dict[str, Draw] = {"method.gate": one_of("sum", "learned"), "method.tap_norm": one_of("none", "rms")}
    return [
        Family(
            "qlora", ("method=qlora",), {"method.rank": one_of(8, 16, 64)} | optimizer, rate | schedule, cached=False
        ),
        Family(
            "suffix",
            ("method=suffix",),
            {"method.layers": one_of(third, half, 2 * layers // 3, 5 * layers // 6), "method.rank": one_of(16, 64)}
            | optimizer,
            rate | schedule,
        ),
        Family(
            "ladder",
            ("method=ladder",),
            {"method.layers": one_of(layers, third), "method.connections": one_of("even")} | optimizer,
            rate | ladder | schedule,
        ),
        Family(
            "ladder-suffix",
            ("method=ladder-suffix",),
            {"method.suffix_layers": one_of(third, half), "method.layers": one_of(4, max(1, layers // 6))} | optimizer,
            rate | schedule,
        ),
        Family("xladder", ("method=xladder",), optimizer, rate | ladder | schedule),
        Family(
            "branch",
            ("method=branch",),
            {"method.layers": one_of(max(1, layers // 6), third, half)} | optimizer,
            {"train.learning_rate": log(1e-4, 3e-3)} | schedule,
        ),
    ]


def table(search: Search, finals: dict[str, list[Trial]], time: str, steps: int) -> str:
    """As Markdown: the best of each family under other seeds, then every trial."""
    lines = [
        f"{search.budget:.0f} processor seconds a trial: {steps} steps of LoRA ({time}); a step is counted "
        f"{search.cost}.",
        "",
        "| method | trials | best settings | steps | s a step | validation loss of other seeds (mean, range) |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for name, again in finals.items():
        tried = [trial for trial in search.trials if trial.family == name and trial.seed == SEARCH_SEED]
        losses = [trial.loss for trial in again if trial.loss is not None]
        told = mean_and_range(losses) if len(losses) == len(again) else f"{len(again) - len(losses)} failed"
        best = again[0]
        lines.append(
            f"| {name} | {len(tried)} | {' '.join(best.settings)} | {best.steps} | {best.step_seconds:.2f} | {told} |"
        )
    lines += ["", "| method | settings | seed | steps | validation loss |", "|---|---|---:|---:|---:|"]
    for trial in search.trials:
        told = f"{trial.loss:.4f}" if trial.loss is not None else f"failed: {trial.failure}".replace("|", "\\|")
        lines.append(f"| {trial.family} | {' '.join(trial.settings)} | {trial.seed} | {trial.steps} | {told} |")
    seconds = sum(trial.seconds for trial in search.trials)
    alone = sum(trial.alone_seconds for trial in search.trials)
    lines += [
        "",
        f"All trials together: {seconds:.0f} processor seconds; without shared taps at least {alone:.0f} "
        f"({alone / max(seconds, 1e-9):.1f} times as much).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Search, repeat, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_studied(parser)
    parser.add_argument("--trials", type=count, default=8, help="of each method")
    parser.add_argument("--steps", type=count, default=60, help="of LoRA, whose time everything gets")
    parser.add_argument("--time", choices=list(TIMES), default=PLAIN, help="whose steps they are")
    parser.add_argument("--cost", choices=[ALONE, CACHED], default=ALONE, help="how a step is counted")
    parser.add_argument(
        "--timed",
        type=count,
        default=MANY_STEPS,
        help="steps of the run that says what a step costs: more where they are short",
    )
    parser.add_argument("--families", nargs="+", help="by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(FINAL_SEEDS), help=f"not {SEARCH_SEED}")
    parser.add_argument("--options", nargs="*", default=[], help="further options of every run")
    parser.add_argument("--folder", type=Path, help="by default outputs/search-MODEL")
    args = parser.parse_args()
    if SEARCH_SEED in args.seeds:
        parser.error(f"--seeds: {SEARCH_SEED} is the seed that settings are chosen on.")
    if args.timed <= FEW_STEPS:
        parser.error(f"--timed: more than {FEW_STEPS}, whose run it is compared with.")
    refuse_repeats(parser, args, ("seeds",))
    quiet_libraries(downloads=False)
    own = (
        *("method.", "train.optimizer", "train.learning_rate"),
        *("train.scheduler", "train.warmup_ratio", "train.weight_decay"),
    )
    common = [*studied(parser, args), "train.evaluations=1", *further(parser, args, (*own, "train.evaluations"))]
    all_families = {family.name: family for family in families(layers_of(common))}
    unknown = set(args.families or ()) - all_families.keys()
    if unknown:
        parser.error(f"--families: no {', '.join(sorted(unknown))}; there are {', '.join(all_families)}.")
    folder = (args.folder or OUTPUTS / f"search-{args.model}").absolute()
    study = Study(folder, common)
    budget = args.steps * cost_of(study, TIMES[args.time], False, args.timed).step
    search, finals = Search(study, budget, args.cost, args.timed), {}
    for name in args.families or all_families:
        family = all_families[name]
        finals[name] = search.again(family, search.best(family, args.trials), args.seeds)
        write_json(folder / "search.json", {"budget": budget, "trials": [asdict(trial) for trial in search.trials]})
    text = table(search, finals, args.time, args.steps)
    write_text(folder / "search.md", text)
    make_console().print(text, markup=False, highlight=False)
    print(f"written to {folder}")


if __name__ == "__main__":
    try:
        main()
    except (UserError, RunFailed) as error:
        sys.exit(f"error: {error}")
