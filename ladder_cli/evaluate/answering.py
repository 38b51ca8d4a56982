"""Answering one benchmark with one model: what is missing is generated, graded and put on disk as it is finished."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ladder_cli.config.choices import BenchmarkKind
from ladder_cli.config.evaluation import BenchmarkConfig, DecodeConfig
from ladder_cli.data.benchmarks import Problem
from ladder_cli.data.classification import LABELS
from ladder_cli.distributed import decided_by_main, wait_for_everyone
from ladder_cli.evaluate.answers.verdict import CORRECT, INCORRECT
from ladder_cli.evaluate.binding import graded_under, made_under, refuse_other_problems
from ladder_cli.evaluate.grading import Grade, Grader, Task
from ladder_cli.evaluate.regrade import other_grader_alone, regrade_folder
from ladder_cli.evaluate.samples import Sample, append_samples, same_settings
from ladder_cli.evaluate.shards import merged, own_path, write_in_order
from ladder_cli.evaluate.targets import Target
from ladder_cli.generate.batching import render_prompt
from ladder_cli.generate.engine import LENGTH, Completion, LabelScores, Prompt
from ladder_cli.ranks import is_main_process, processes
from ladder_cli.run.claim import claimed
from ladder_cli.run.directory import SAMPLES, SETTINGS


@dataclass(frozen=True)
class EvalTask:
    """A benchmark as it is put to one model, and where its samples go.

    Attributes:
        repeat: 0 is the first answering; others are sampled anew or decoded in other batches.
    """

    benchmark: BenchmarkConfig
    problems: list[Problem]
    folder: Path
    repeat: int = 0


def answer(target: Target, task: EvalTask, decode: DecodeConfig, seed: int, console: Console) -> list[Sample]:
    """The samples of all problems, in their order; those on disk are kept and the missing ones computed.

    Raises:
        UserError: if the folder holds samples of other settings, weights, or another version of the benchmark.
    """
    renderer = target.renderer_for(task.benchmark)
    prompts = {problem.id: render_prompt(problem.id, problem.question, renderer) for problem in task.problems}
    path = task.folder / SAMPLES
    with claimed(task.folder) if is_main_process() else nullcontext():
        samples: dict[str, Sample] = {}
        if is_main_process():
            made = made_under(target, task.benchmark, decode, seed, task.repeat)
            settings = made | graded_under(task.benchmark, decode.grade_seconds)
            # Samples of another grader are graded anew, from their completions; a label task has none to grade.
            if task.benchmark.kind is not BenchmarkKind.LABEL and other_grader_alone(task.folder / SETTINGS, settings):
                samples = merged(path)
                refuse_other_problems(task.folder, task.benchmark, task.problems, prompts, samples)
                regrade_folder(task.folder, samples, task.problems, settings, decode.grade_seconds, console)
            same_settings(task.folder / SETTINGS, settings)
            samples = merged(path)
        samples = decided_by_main(samples)
        refuse_other_problems(task.folder, task.benchmark, task.problems, prompts, samples)
        if any(problem.id not in samples for problem in task.problems):
            _answer_missing(target, task, list(prompts.values()), set(samples), decode, seed, console)
        wait_for_everyone()
        if is_main_process():
            samples = merged(path)
            write_in_order(path, samples, [problem.id for problem in task.problems])
        samples = decided_by_main(samples)
    return [samples[problem.id] for problem in task.problems]


def _answer_missing(
    target: Target,
    task: EvalTask,
    prompts: list[Prompt],
    finished: set[str],
    decode: DecodeConfig,
    seed: int,
    console: Console,
) -> None:
    """Compute what has no sample yet; of several processes, each its share."""
    missing = sum(prompt.id not in finished for prompt in prompts)
    answers = _ANSWERS[task.benchmark.kind]
    repeated = f", repeat {task.repeat + 1}" if task.repeat else ""
    # How an engine shares the work out is its own affair; about evenly.
    share = -(-missing // processes())
    with _Watch(f"{target.name} on {task.benchmark.name}{repeated}", share, console) as watch:
        for samples in answers(target, task, prompts, finished, decode, seed):
            append_samples(own_path(task.folder / SAMPLES), samples)
            watch.finished(samples)


def _by_completion(
    target: Target, task: EvalTask, prompts: list[Prompt], finished: set[str], decode: DecodeConfig, seed: int
) -> Iterator[list[Sample]]:
    """Generate and grade, some at a time."""
    problems = {problem.id: problem for problem in task.problems}
    # Greedy repeats differ in their batches alone.
    seed += 0 if decode.temperature == 0 else task.repeat
    with Grader(seconds=decode.grade_seconds, second_opinion=True) as grader:
        for batch in target.engine.complete(prompts, decode, seed, finished=finished, repeat=task.repeat):
            completions = {completion.prompt.id: completion for completion in batch}
            tasks = [
                Task(name, problems[name].gold, c.text, c.stop_reason == LENGTH, problems[name].rule)
                for name, c in completions.items()
            ]
            yield [_sample(task, problems[grade.key], completions[grade.key], grade) for grade in grader.grade(tasks)]


def _sample(task: EvalTask, problem: Problem, completion: Completion, grade: Grade) -> Sample:
    return Sample(
        id=problem.id,
        benchmark=task.benchmark.name,
        question_digest=problem.question_digest,
        prompt=completion.prompt.text,
        completion=completion.text,
        tokens=completion.tokens,
        stop_reason=completion.stop_reason,
        gold=problem.gold,
        unit=problem.rule.unit,
        error=problem.rule.tolerance,
        answer=grade.answer,
        verdict=grade.verdict,
        reading=grade.reading,
        math_verify=grade.math_verify,
    )


def _by_label(
    target: Target, task: EvalTask, prompts: list[Prompt], finished: set[str], decode: DecodeConfig, seed: int
) -> Iterator[list[Sample]]:
    """Compare the logits of the label words, some prompts at a time; nothing is drawn, so that no seed is read."""
    problems = {problem.id: problem for problem in task.problems}
    for batch in target.engine.label_scores(
        prompts, LABELS, batch_size=decode.batch_size, finished=finished, repeat=task.repeat
    ):
        yield [_label_sample(task, problems[scores.prompt.id], scores) for scores in batch]


def _label_sample(task: EvalTask, problem: Problem, scores: LabelScores) -> Sample:
    return Sample(
        id=problem.id,
        benchmark=task.benchmark.name,
        question_digest=problem.question_digest,
        prompt=scores.prompt.text,
        completion=scores.label,
        tokens=1,
        stop_reason=None,
        gold=problem.gold,
        unit=problem.rule.unit,
        error=problem.rule.tolerance,
        answer=scores.label,
        verdict=CORRECT if scores.label == problem.gold else INCORRECT,
        logits=scores.logits,
    )


_ANSWERS: dict[BenchmarkKind, Callable[..., Iterator[list[Sample]]]] = {
    BenchmarkKind.BOXED: _by_completion,
    BenchmarkKind.LABEL: _by_label,
}


class _Watch:
    """Progress: a bar in a terminal, a line per batch in a log file."""

    def __init__(self, title: str, total: int, console: Console) -> None:
        self._title, self._total, self._console = title, total, console
        self._done = self._correct = self._tokens = 0

    def __enter__(self) -> "_Watch":
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
        )
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._progress.start()
        self._bar = self._progress.add_task(self._title, total=self._total, metrics="")
        self._started = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def finished(self, samples: Iterable[Sample]) -> None:
        """Count what has been put on disk."""
        for sample in samples:
            self._done += 1
            self._total = max(self._total, self._done)
            self._correct += sample.verdict == CORRECT
            self._tokens += sample.tokens or 0
        seconds = time.perf_counter() - self._started
        metrics = f"{self._correct} correct  {self._tokens / seconds:,.0f} tokens/s"
        self._progress.update(self._bar, total=self._total, completed=self._done, metrics=metrics)
        if not self._console.is_terminal:
            left = seconds / self._done * (self._total - self._done) / 60
            self._console.print(
                f"{self._title}: {self._done}/{self._total}  {metrics}  about {left:.1f} min left", soft_wrap=True
            )
