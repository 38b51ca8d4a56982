"""The critic's data (appendix A.1): is a maths solution right?

From questions to balanced, labelled solutions, split by question:

    python scripts/build_critic.py --solver qwen2.5-0.5b --solver qwen2.5-1.5b --questions math500 --data-dir MIRROR
    python scripts/build_critic.py --candidates FILE.jsonl --data-dir MIRROR

With solvers, each one answers every question through `ladder-eval` (greedy, 2,048 new tokens, resumed where it was
stopped); the questions come from the hub, or from another mirror (--questions-dir). With ready candidates (rows of
question, gold, completion) nothing is generated. Either way the grader labels the completions; those without a box
stay out. Writes MIRROR/critic/train.jsonl and test.jsonl.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import _repository  # noqa: F401  (paper/)

from ladder_cli.data.benchmarks import benchmark_config, load_problems
from ladder_cli.data.sources import read_file, read_jsonl, text_column
from ladder_cli.errors import UserError
from ladder_cli.evaluate.answers.verdict import CORRECT, INCORRECT
from ladder_cli.evaluate.grading import Grader, Task
from ladder_cli.run.directory import OUTPUTS, SAMPLES
from paper.critic import Candidate, build, write


def graded(rows: list[dict]) -> list[Candidate]:
    """Rows of question, gold and completion as labelled candidates."""
    keyed = {str(number): row for number, row in enumerate(rows)}
    tasks = [Task(key, str(row["gold"]), row["completion"], False) for key, row in keyed.items()]
    with Grader() as grader:
        verdicts = {grade.key: grade.verdict for grade in grader.grade(tasks)}
    return [
        Candidate(row["question"], row["completion"], verdicts[key] == CORRECT)
        for key, row in keyed.items()
        if "\\boxed" in row["completion"] and verdicts[key] in (CORRECT, INCORRECT)
    ]


def solved(solver: str, benchmark: str, mirror: Path | None, extra: list[str]) -> list[dict]:
    """What a solver answered, from the samples that `ladder-eval` wrote.

    Args:
        mirror: that holds the benchmark; None: the hub does.

    Raises:
        UserError: if the evaluation did not succeed; it has said why.
    """
    folder = OUTPUTS / "critic" / solver
    where = [f"data_dir={mirror}"] if mirror else []
    command = [f"model={solver}", f"benchmarks=[{benchmark}]", f"output_dir={folder}", *where, *extra]
    status = subprocess.run([sys.executable, "-m", "ladder_cli.evaluate", *command]).returncode
    if status:
        raise UserError(f"{solver} did not answer {benchmark} (exit status {status}).")
    problems = load_problems(benchmark_config(benchmark), str(mirror) if mirror else None)
    questions = {problem.id: problem.question for problem in problems}
    return [
        {"question": questions[sample["id"]], "gold": sample["gold"], "completion": sample["completion"]}
        for sample in read_jsonl(folder / benchmark / SAMPLES)
    ]


def main() -> None:
    """Collect, label, balance, split, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=Path, help="JSONL of question, gold and completion")
    parser.add_argument("--solver", action="append", default=[], help="a model of conf/model; may be repeated")
    parser.add_argument("--questions", help="benchmark that the solvers answer; math500 by default")
    parser.add_argument("--questions-dir", type=Path, help="mirror that holds the benchmark; default: the hub")
    parser.add_argument("--data-dir", type=Path, required=True, help="mirror that gets critic/{train,test}.jsonl")
    parser.add_argument("--train", type=int, default=380, help="training rows (appendix A.1: 380)")
    parser.add_argument("--test", type=int, default=396, help="test rows (appendix A.1: 396)")
    parser.add_argument("overrides", nargs="*", help="further options of ladder-eval, such as limit=100")
    args = parser.parse_args()
    if bool(args.candidates) == bool(args.solver):
        parser.error("give either --candidates FILE or --solver MODEL")
    if args.candidates and (args.questions or args.questions_dir or args.overrides):
        parser.error("--questions, --questions-dir and options of ladder-eval are for --solver")
    rows: list[dict] = []
    if args.candidates:
        for number, row in enumerate(read_file(args.candidates), start=1):
            where = f"{args.candidates}, row {number}"
            rows.append({name: text_column(row, name, where) for name in ("question", "gold", "completion")})
    for solver in args.solver:
        rows += solved(solver, args.questions or "math500", args.questions_dir, args.overrides)
    train, test = build(graded(rows), args.train, args.test)
    write(args.data_dir / "critic", train, test)
    print(
        f"{len(rows)} completions -> {len(train)} for training, {len(test)} for testing, in {args.data_dir / 'critic'}"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
