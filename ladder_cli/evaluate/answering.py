"""Answering one benchmark with one model: what is missing is generated, graded and put on disk as it is finished."""

import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ladder_cli.config.ranks import is_main_process
from ladder_cli.config.schema import BenchmarkConfig, DecodeConfig
from ladder_cli.data.benchmarks import Problem
from ladder_cli.data.classification import LABELS
from ladder_cli.distributed import decided_by_main, wait_for_everyone
from ladder_cli.evaluate.answers.verdict import CORRECT, INCORRECT
from ladder_cli.evaluate.binding import graded_under, made_under, refuse_other_problems
from ladder_cli.evaluate.grading import Grader, Task
from ladder_cli.evaluate.modes import LABEL
from ladder_cli.evaluate.regrade import graded, other_grader_alone, regrade_folder
from ladder_cli.evaluate.samples import LENGTH, Sample, append_samples, same_settings
from ladder_cli.evaluate.shards import merged, own_path, write_in_order
from ladder_cli.evaluate.targets import Target
from ladder_cli.generate.classification import classify
from ladder_cli.generate.generation import (
    Completion,
    Prompt,
    batches,
    check_positions,
    check_vocabulary,
    computing_device,
    fitting_batch_size,
    generate,
    render_prompt,
)
from ladder_cli.run.claim import claimed
from ladder_cli.run.directory import SAMPLES, SETTINGS

# Where the batch size is left to the memory. More completions at a time make a CPU no faster.
_MOST_ON_GPU, _MOST_ON_CPU = 256, 32


@dataclass(frozen=True)
class Sheet:
    """A benchmark's problems as they are put to one model, and where its samples go.

    Attributes:
        repeat: 0 is the first answering; others are sampled anew or decoded in other batches.
    """

    benchmark: BenchmarkConfig
    problems: list[Problem]
    folder: Path
    repeat: int = 0


def answer(target: Target, sheet: Sheet, decode: DecodeConfig, seed: int, console: Console) -> list[Sample]:
    """The samples of all problems, in their order; those on disk are kept and the missing ones made.

    Raises:
        UserError: if the folder holds samples of other settings, weights, or another version of the benchmark.
    """
    renderer = target.renderer_for(sheet.benchmark)
    prompts = {problem.id: render_prompt(problem.id, problem.question, renderer) for problem in sheet.problems}
    path = sheet.folder / SAMPLES
    with claimed(sheet.folder) if is_main_process() else nullcontext():
        samples: dict[str, Sample] = {}
        if is_main_process():
            made = made_under(target, sheet.benchmark, decode, seed, sheet.repeat)
            settings = made | graded_under(sheet.benchmark, decode.grade_seconds)
            # Samples of another grader are graded anew, from their completions; a label task has none to grade.
            if sheet.benchmark.kind != LABEL and other_grader_alone(sheet.folder / SETTINGS, settings):
                samples = merged(path)
                refuse_other_problems(sheet.folder, sheet.benchmark, sheet.problems, prompts, samples)
                regrade_folder(sheet.folder, samples, sheet.problems, settings, decode.grade_seconds, console)
            same_settings(sheet.folder / SETTINGS, settings)
            samples = merged(path)
        samples = decided_by_main(samples)
        refuse_other_problems(sheet.folder, sheet.benchmark, sheet.problems, prompts, samples)
        if any(problem.id not in samples for problem in sheet.problems):
            new_tokens = 0 if sheet.benchmark.kind == LABEL else decode.max_new_tokens
            check_positions(list(prompts.values()), new_tokens, target.limits.positions, target.name)
            check_vocabulary(list(prompts.values()), renderer, target.limits.vocabulary, target.name)
            _answer_missing(target, sheet, list(prompts.values()), set(samples), decode, seed, console)
        wait_for_everyone()
        if is_main_process():
            samples = merged(path)
            write_in_order(path, samples, [problem.id for problem in sheet.problems])
        samples = decided_by_main(samples)
    return [samples[problem.id] for problem in sheet.problems]


def _answer_missing(
    target: Target,
    sheet: Sheet,
    prompts: list[Prompt],
    finished: set[str],
    decode: DecodeConfig,
    seed: int,
    console: Console,
) -> None:
    """Make what has no sample yet; of several processes, each its share."""
    size = decode.batch_size
    if size is None:
        most = _MOST_ON_CPU if computing_device(target.model).type == "cpu" else _MOST_ON_GPU
        size = fitting_batch_size(target.model, prompts, decode.max_new_tokens, most)
    todo = batches(prompts, finished, decided_by_main(size), sheet.repeat)
    missing = sum(prompt.id not in finished for batch in todo for prompt in batch)
    work = _by_label if sheet.benchmark.kind == LABEL else _by_completion
    repeated = f", repeat {sheet.repeat + 1}" if sheet.repeat else ""
    with _Watch(f"{target.name} on {sheet.benchmark.name}{repeated}", missing, console) as watch:
        for samples in work(target, sheet, todo, decode, seed):
            fresh = [sample for sample in samples if sample["id"] not in finished]
            append_samples(own_path(sheet.folder / SAMPLES), fresh)
            watch.finished(fresh)


def _by_completion(
    target: Target, sheet: Sheet, todo: list[list[Prompt]], decode: DecodeConfig, seed: int
) -> Iterator[list[Sample]]:
    """Generate and grade, a batch at a time."""
    problems = {problem.id: problem for problem in sheet.problems}
    # Greedy repeats differ in their batches alone.
    seed += 0 if decode.temperature == 0 else sheet.repeat
    with Grader(seconds=decode.grade_seconds, second_opinion=True) as grader:
        renderer = target.renderer_for(sheet.benchmark)
        for batch in generate(target.model, renderer, todo, decode, seed, target.limits, target.name):
            completions = {completion.prompt.id: completion for completion in batch}
            tasks = [
                Task(name, problems[name].gold, c.text, c.stop_reason == LENGTH, problems[name].rule)
                for name, c in completions.items()
            ]
            yield [
                graded(_ungraded(sheet, problems[grade.key], completions[grade.key]), grade)
                for grade in grader.grade(tasks)
            ]


def _ungraded(sheet: Sheet, problem: Problem, completion: Completion) -> Sample:
    return {
        "id": problem.id,
        "benchmark": sheet.benchmark.name,
        "question_digest": problem.question_digest,
        "prompt": completion.prompt.text,
        "completion": completion.text,
        "tokens": completion.tokens,
        "stop_reason": completion.stop_reason,
        "gold": problem.gold,
        "unit": problem.rule.unit,
        "error": problem.rule.tolerance,
    }


def _by_label(
    target: Target, sheet: Sheet, todo: list[list[Prompt]], decode: DecodeConfig, seed: int
) -> Iterator[list[Sample]]:
    """Compare the logits of the label words, a batch at a time."""
    problems = {problem.id: problem for problem in sheet.problems}
    for batch in classify(target.model, target.renderer_for(sheet.benchmark), todo, LABELS, target.name):
        yield [
            {
                "id": prediction.prompt.id,
                "benchmark": sheet.benchmark.name,
                "question_digest": problems[prediction.prompt.id].question_digest,
                "prompt": prediction.prompt.text,
                "completion": prediction.label,
                "tokens": 1,
                "stop_reason": None,
                "gold": problems[prediction.prompt.id].gold,
                "answer": prediction.label,
                "verdict": CORRECT if prediction.label == problems[prediction.prompt.id].gold else INCORRECT,
                "logits": prediction.logits,
            }
            for prediction in batch
        ]


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
            TextColumn("{task.fields[figures]}"),
        )
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._progress.start()
        self._bar = self._progress.add_task(self._title, total=self._total, figures="")
        self._started = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def finished(self, samples: Iterable[Sample]) -> None:
        """Count what has been put on disk."""
        for sample in samples:
            self._done += 1
            self._correct += sample["verdict"] == CORRECT
            self._tokens += sample["tokens"]
        seconds = time.perf_counter() - self._started
        figures = f"{self._correct} correct  {self._tokens / seconds:,.0f} tokens/s"
        self._progress.update(self._bar, completed=self._done, figures=figures)
        if not self._console.is_terminal:
            left = seconds / self._done * (self._total - self._done) / 60
            self._console.print(
                f"{self._title}: {self._done}/{self._total}  {figures}  about {left:.1f} min left", soft_wrap=True
            )
