"""Several runs of one experiment, repeats, and what may not be mixed; in one process, on the embedded model."""

import json
import shutil
import statistics

import numpy as np
import pytest
import yaml

from ladder_cli.config.compose import as_dict, composed
from ladder_cli.config.evaluation import DecodeConfig, EvaluateConfig
from ladder_cli.config.schema import HardwareConfig, ModelConfig, TrainConfig
from ladder_cli.console import make_console
from ladder_cli.data.benchmarks import own_name
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.evaluate.completions import grade_completions
from ladder_cli.evaluate.run import evaluate_models
from ladder_cli.evaluate.statistics import score_interval
from ladder_cli.generate import backbones
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel

PROBLEMS = 6


def options(model=None, **changes):
    given = {
        "model": model or ModelConfig(),
        "hardware": HardwareConfig(name="cpu", device="cpu"),
        "decode": DecodeConfig(max_new_tokens=8, batch_size=PROBLEMS),
        "limit": PROBLEMS,
        "benchmarks": ["arithmetic"],
        "instruction": "Please put your final answer within \\boxed{}.",
    }
    return EvaluateConfig(**given | changes)


def evaluate(**changes):
    evaluate_models(options(**changes), [], make_console())


def read(path):
    return json.loads(path.read_text())


def samples_of(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def set_verdicts(folder, right):
    """Rewrite the verdicts on disk: the first `right` problems are correct, the others not."""
    kept = sorted(samples_of(folder), key=lambda sample: sample["id"])
    marked = [sample | {"verdict": "correct" if n < right else "incorrect"} for n, sample in enumerate(kept)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in marked))


@pytest.fixture
def sweep(tmp_path, tiny_backbone, tiny_tokenizer):
    """Three finished runs that differ in their seed alone."""
    config = as_dict(composed("train", TrainConfig, ["model=tiny", "hardware=cpu"]))
    prompt = PromptRenderer(tiny_tokenizer, "Answer.")
    for seed in range(3):
        run = tmp_path / "sweep" / f"ladder-tiny,seed={seed}"
        side = LadderModel.on(tiny_backbone, connect(tiny_backbone.config.num_hidden_layers, "aligned"), reduction=2)
        side.save_pretrained(run / "adapter")
        (run / "adapter" / "prompt.json").write_text(json.dumps(prompt.as_dict()))
        (run / "config.yaml").write_text(yaml.safe_dump(config | {"seed": seed, "output_dir": str(run)}))
    return tmp_path / "sweep"


def test_several_runs_have_mean_and_sample_deviation_and_each_its_score(sweep, tmp_path, capsys, monkeypatch):
    evaluate(run=f"{sweep}/*", output_dir=str(tmp_path / "out"))
    runs = sorted(path.name for path in sweep.iterdir())
    for run, right in zip(runs, (1, 3, 5), strict=True):
        set_verdicts(tmp_path / "out" / run / "arithmetic", right)

    def no_weights(*arguments):
        raise AssertionError("weights were loaded, and there was nothing left to answer")

    monkeypatch.setattr(backbones, "load_backbone", no_weights)
    evaluate(run=f"{sweep}/*", output_dir=str(tmp_path / "out"))
    figures = read(tmp_path / "out" / "summary.json")["arithmetic"]
    scores = [right / PROBLEMS for right in (1, 3, 5)]
    assert figures["scores"] == pytest.approx(dict(zip(runs, scores, strict=True)))
    assert figures["pass_at_1"] == pytest.approx(0.5)
    assert figures["std"] == pytest.approx(statistics.stdev(scores))
    assert (figures["n_runs"], figures["n_problems"], figures["spread_over"]) == (3, PROBLEMS, "runs")
    expected = score_interval(np.array([[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]], dtype=float))
    assert figures["ci95"] == pytest.approx(expected, abs=0.05)
    assert read(tmp_path / "out" / "arithmetic" / "result.json")["std"] == figures["std"]
    single = read(tmp_path / "out" / runs[0] / "summary.json")["arithmetic"]
    assert (single["std"], single["n_runs"]) == (None, 1)
    printed = capsys.readouterr().out
    assert "±33.3 (3 runs)" in printed
    assert "n/a (1 run, greedy)" in printed
    assert "±0.0" not in printed.rpartition("evaluated")[2]


def test_runs_of_different_experiments_are_never_averaged(sweep, tmp_path):
    other = sweep / "ladder-tiny,layers=2"
    shutil.copytree(sweep / "ladder-tiny,seed=0", other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["train"]["epochs"] = 7.0
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    evaluate(run=f"{sweep}/*", output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out" / "summary.json").exists()
    assert read(tmp_path / "out" / "ladder-tiny,runs=3" / "summary.json")["arithmetic"]["n_runs"] == 3
    assert read(tmp_path / "out" / other.name / "summary.json")["arithmetic"]["n_runs"] == 1


def test_without_output_dir_each_run_keeps_its_samples_and_the_summary_is_named_after_the_pattern(
    sweep, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    evaluate(run="sweep/*")
    assert all((run / "eval" / "summary.json").is_file() for run in sweep.iterdir())
    assert read(tmp_path / "outputs" / "eval-sweep" / "summary.json")["arithmetic"]["n_runs"] == 3


@pytest.mark.parametrize(("temperature", "label"), [(0.0, "batch orders"), (1.5, "sampling seeds")])
def test_repeats_of_one_run_say_what_their_spread_is_over(temperature, label, tiny_config, tmp_path, capsys):
    decode = DecodeConfig(max_new_tokens=8, batch_size=2, temperature=temperature)
    evaluate(model=tiny_config, decode=decode, repeats=3, output_dir=str(tmp_path))
    figures = read(tmp_path / "summary.json")["arithmetic"]
    assert (figures["n_runs"], figures["n_repeats"], figures["spread_over"]) == (3, 3, label)
    assert figures["std"] is not None
    folders = [tmp_path / "arithmetic" / name for name in (".", "repeat-2", "repeat-3")]
    first, second, third = ({s["id"]: s["completion"] for s in samples_of(folder)} for folder in folders)
    assert first.keys() == second.keys() == third.keys()
    if temperature:
        assert first != second != third != first, "every repeat is drawn anew"
    assert f"(3 {label})" in capsys.readouterr().out
    # Repeats that are there already are kept, and so is their result when the first one alone is asked for again.
    evaluate(model=tiny_config, decode=decode, output_dir=str(tmp_path))
    assert read(tmp_path / "summary.json")["arithmetic"]["std"] == figures["std"]


def test_samples_whose_gold_answer_is_no_longer_that_of_the_benchmark_are_refused(tiny_config, tmp_path):
    evaluate(model=tiny_config, output_dir=str(tmp_path))
    path = tmp_path / "arithmetic" / "samples.jsonl"
    first, *others = samples_of(path.parent)
    path.write_text("".join(json.dumps(sample) + "\n" for sample in [first | {"gold": "stale"}, *others]))
    with pytest.raises(UserError, match=r"another version of arithmetic \(the gold answer of '.*' differs\)"):
        evaluate(model=tiny_config, output_dir=str(tmp_path))


def test_a_bare_backbone_is_asked_for_a_label_without_the_instruction_of_mathematics(tiny_config, tmp_path):
    rows = [{"sentence": f"The book number {n} was read.", "label": n % 2} for n in range(PROBLEMS)]
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(model=tiny_config, benchmarks=["cola", "arithmetic"], data_dir=str(tmp_path), output_dir=str(tmp_path))
    for sample in samples_of(tmp_path / "cola"):
        assert "\\boxed" not in sample["prompt"]
        assert "grammatically acceptable" in sample["prompt"]
    assert all("\\boxed" in sample["prompt"] for sample in samples_of(tmp_path / "arithmetic"))
    figures = read(tmp_path / "summary.json")["cola"]
    assert figures["matthews_ci95"][0] <= figures["matthews"] <= figures["matthews_ci95"][1]
    assert figures["wald95"][0] <= figures["pass_at_1"] <= figures["wald95"][1]


def test_ones_own_jsonl_is_a_benchmark(tiny_config, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"question": f"What is {n} + 1?", "answer": n + 1}) + "\n" for n in range(3)))
    evaluate(model=tiny_config, benchmarks=[str(path)], output_dir=str(tmp_path / "out"))
    folder = tmp_path / "out" / own_name(str(path))
    assert [sample["gold"] for sample in sorted(samples_of(folder), key=lambda s: s["id"])] == list("123")


def test_rows_with_a_benchmark_are_graded_by_its_rule_and_reported_apart(tmp_path, capsys):
    rows = [
        {"id": 1, "gold": "4.5e33", "completion": "\\boxed{4.5 \\times 10^{33}}", "benchmark": "minerva"},
        {"id": 2, "gold": "6.6e-27", "completion": "\\boxed{3.1e-21}", "benchmark": "minerva"},
        {"id": 3, "gold": "$69$,$84$", "completion": "\\boxed{69}, and\n\n\\boxed{84}", "benchmark": "olympiadbench"},
        {"id": 4, "gold": "4.2", "completion": "\\boxed{4.25}", "benchmark": "olympiadbench", "error": "1e-1"},
        # `e33` is read as an exponent by every rule; only `physical` grants a tolerance.
        {"id": 5, "gold": "4.5e33", "completion": "\\boxed{4.5 \\times 10^{33}}"},
        {"id": 7, "gold": "4.5e33", "completion": "\\boxed{4.51 \\times 10^{33}}"},
        {"id": 8, "gold": "4.5e33", "completion": "\\boxed{4.51 \\times 10^{33}}", "benchmark": "minerva"},
        {"id": 6, "gold": "7", "completion": "and so it is 7", "stop_reason": "length", "benchmark": "math500"},
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    grade_completions(options(completions=str(source), output_dir=str(tmp_path / "out"), limit=None), make_console())
    verdicts = {sample["id"]: sample["verdict"] for sample in samples_of(tmp_path / "out")}
    assert verdicts == {
        "1": "correct", "2": "incorrect", "3": "correct", "4": "correct", "5": "correct", "6": "no_answer",
        "7": "incorrect", "8": "correct",
    }  # fmt: skip
    result = read(tmp_path / "out" / "result.json")
    assert result["benchmarks"]["minerva"]["pass_at_1"] == pytest.approx(2 / 3)
    assert result["grader"]["math_verify"]
    assert "olympiadbench" in capsys.readouterr().out
    # What was written can be graded again as it stands.
    again = options(completions=str(tmp_path / "out" / "samples.jsonl"), output_dir=str(tmp_path / "again"), limit=None)
    grade_completions(again, make_console())
    assert {sample["id"]: sample["verdict"] for sample in samples_of(tmp_path / "again")} == verdicts


def test_a_row_of_an_unknown_benchmark_is_named(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"gold": "1", "completion": "\\boxed{1}", "benchmark": "minrva"}))
    with pytest.raises(UserError, match=r"row 1: no benchmark 'minrva'. Did you mean 'minerva'"):
        grade_completions(options(completions=str(source), output_dir=str(tmp_path / "out")), make_console())
