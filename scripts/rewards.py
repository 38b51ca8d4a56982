"""Learning from rewards on the embedded task: a model that answers at once finds out that working it out is worth more.

    python scripts/rewards.py                                  make rewards: about 40 minutes on one core
    python scripts/rewards.py --methods suffix --seeds 0       one run

Makes rows of which 40% have the worked solution and the others the bare answer, trains on them, and merges what was
learned into a model: a start that answers at once, and mostly wrongly. From there preferences between its own right and
wrong answers (dpo) and rewards (grpo) are learned by the default settings of their presets. Prints Pass@1 of all on the
test problems, and draws the rewards. Called again it goes on where it was.
"""

import argparse
import json
import random
import re
import subprocess
import sys
from pathlib import Path

from _studied import refuse_repeats
from matplotlib.figure import Figure

from ladder_cli.config.catalogue import choices
from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.registry import load_examples
from ladder_cli.evaluate.report import interval
from ladder_cli.evaluate.samples import read_samples
from ladder_cli.run.directory import SUMMARY, RunDir, read_json

BOX = re.compile(r"\\boxed\{(-?\d+)\}")
WORKED = 0.4  # share of the rows
ASKED = "data.instruction='Please reason step by step, and put your final answer within \\boxed{}.'"
# The schedule of the figures in docs/rewards.md.
SCHEDULE = ("train.scheduler=cosine", "train.warmup_ratio=0.1")
DECODE = ("limit=200", "decode.max_new_tokens=64", "decode.batch_size=50")
OBJECTIVES = {
    "dpo": ("data=jsonl", "data.path={pairs}", "data.format=preference", "data.validation_samples=40", ASKED),
    "grpo": (
        *("data=arithmetic", "data.train_samples=8000", "train.global_batch_size=128", "train.micro_batch_size=32"),
        *("objective.max_new_tokens=48", "train.max_steps=60", "train.evaluations=5", "train.logging_steps=1"),
    ),
}


def command(module: str, *arguments: str) -> None:
    """Run a command and show it."""
    print(f"\n$ python -m ladder_cli.cli.{module} {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", f"ladder_cli.cli.{module}", *arguments], check=True)


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    """Rows as a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def start(folder: Path) -> Path:
    """The model that all begin from."""
    config = composed("train", TrainConfig, ["data.train_samples=24000"])
    drawn, rows = random.Random(0), []
    for example in load_examples(config.data, None, seed=7).train:
        answer = BOX.search(example.completion)
        assert answer is not None, "the generated rows box their answers"
        completion = example.completion if drawn.random() < WORKED else answer[0]
        rows.append({"question": example.question, "completion": completion})
    data = written(folder / "rows.jsonl", rows)
    words = ["data=jsonl", f"data.path={data}", "data.prompt=question", "data.completion=completion", ASKED]
    words += ["data.validation_samples=100", "train.micro_batch_size=16", f"output_dir={folder / 'sft'}"]
    command("train", "model=tiny", "method=qlora", *SCHEDULE, *words)
    merged = folder / "start"
    if not merged.exists():
        command("export", f"run={folder / 'sft'}", "format=merged", f"output={merged}")
    return merged


def pairs(folder: Path, model: Path) -> Path:
    """Right and wrong answers of the start to the same problems, sampled three times."""
    config = composed("train", TrainConfig, ["data.train_samples=600"])
    problems = [
        {"id": example.id, "question": example.question, "answer": BOX.search(example.completion)[1]}  # type: ignore[index]
        for example in load_examples(config.data, None, seed=5).train
    ]
    asked = written(folder / "problems.jsonl", problems)
    sampled = folder / "sampled"
    command(
        "evaluate",
        *("model=tiny", f"model.path={model}", f"benchmarks=[{asked}]", "decode.temperature=1", "repeats=3"),
        *("decode.max_new_tokens=64", "decode.batch_size=50", f"output_dir={sampled}"),
    )
    found: dict[str, dict[str, list[str]]] = {}
    for file in sorted(sampled.rglob("samples.jsonl")):
        for name, sample in read_samples(file).items():
            found.setdefault(name, {}).setdefault(str(sample.verdict), []).append(sample.completion)
    rows = [
        {"prompt": problem["question"], "chosen": right, "rejected": wrong}
        for problem in problems
        for right, wrong in zip(
            found[problem["id"]].get("correct", []), found[problem["id"]].get("incorrect", []), strict=False
        )
    ]
    print(f"\n{len(rows)} pairs of {len(problems)} problems")
    return written(folder / "pairs.jsonl", rows)


def draw(path: Path, runs: dict[str, list[Path]], before: float) -> None:
    """Rewards by step: of what was sampled as a line, of the held-out prompts answered greedily as points.

    Args:
        before: Pass@1 of the start.
    """
    figure = Figure(figsize=(5 * len(runs), 3.6), layout="constrained")
    for axes, (method, folders) in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
        for number, folder in enumerate(folders):
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            steps = {name: [line for line in lines if name in line] for name in ("reward", "eval_reward")}
            colour = f"C{number}"
            axes.plot(*zip(*((line["step"], line["reward"]) for line in steps["reward"]), strict=True), c=colour, lw=1)
            held_out = ((line["step"], line["eval_reward"]) for line in steps["eval_reward"])
            axes.plot(*zip(*held_out, strict=True), "o", c=colour, label=f"seed {folder.name.rpartition('-')[2]}")
        axes.axhline(before, c="0.4", ls="--", lw=1, label="the start, greedy, test")
        axes.set(title=method, xlabel="step", ylabel="mean reward", ylim=(0, 1))
        axes.grid(alpha=0.3)
    title = "dots: greedy, held out; lines: sampled"
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, title=title, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Make the start, learn from preferences and rewards, evaluate, tabulate and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/rewards"))
    parser.add_argument("--methods", nargs="+", default=["suffix", "ladder"], choices=choices("method"))
    parser.add_argument("--objectives", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    refuse_repeats(parser, args, ("methods", "objectives", "seeds"))
    args.output.mkdir(parents=True, exist_ok=True)
    model = start(args.output)
    command("evaluate", "model=tiny", f"model.path={model}", f"output_dir={args.output / 'before'}", *DECODE)
    found = {"the start": args.output / "before"}
    data = pairs(args.output, model) if "dpo" in args.objectives else None
    runs: dict[str, list[Path]] = {}
    for objective in args.objectives:
        words = [word.format(pairs=data) if word.startswith("data.path") else word for word in OBJECTIVES[objective]]
        for method in args.methods:
            for seed in args.seeds:
                run = args.output / f"{objective}-{method}-{seed}"
                chosen = (f"objective={objective}", f"method={method}", "model=tiny", f"model.path={model}")
                command("train", *chosen, *SCHEDULE, *words, f"seed={seed}", f"output_dir={run}")
                command("evaluate", f"run={run}", "benchmarks=[arithmetic]", *DECODE)
                found[f"{objective}, {method}, seed {seed}"] = RunDir(run).evaluation
                if objective == "grpo":
                    runs.setdefault(method, []).append(run)
    print("\n| | Pass@1 | 95% interval |\n|---|---:|---|")
    for name, folder in found.items():
        metrics = read_json(folder / SUMMARY)["arithmetic"]
        print(f"| {name} | {metrics['pass_at_1']:.1%} | {interval(metrics['ci95'])} |")
    if runs:
        before = read_json(found["the start"] / SUMMARY)["arithmetic"]["pass_at_1"]
        draw(args.output / "rewards.png", runs, before)
        print(f"\n{args.output / 'rewards.png'}")


if __name__ == "__main__":
    main()
