"""No evaluation's samples or results appear as another's: files, questions, limits, repeats, folders, runs."""

import json
import shutil

import pytest
import torch
import yaml

from ladder_cli.config.compose import as_dict, composed
from ladder_cli.config.evaluation import DecodeConfig, EvaluateConfig
from ladder_cli.config.schema import HardwareConfig, ModelConfig, TrainConfig
from ladder_cli.console import make_console
from ladder_cli.data.benchmarks import benchmark_config, benchmark_names, load_problems, own_name, problems_digest
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.evaluate import binding
from ladder_cli.evaluate.completions import grade_completions
from ladder_cli.evaluate.results import Extent
from ladder_cli.evaluate.run import evaluate_models
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel

TINY = ModelConfig(name="tiny", path="builtin:tiny", dtype="float32", side_reduction=2)


def evaluate(folder, overrides=(), **changes):
    given = {
        "model": TINY,
        "hardware": HardwareConfig(name="cpu", device="cpu"),
        "decode": DecodeConfig(max_new_tokens=6, batch_size=4),
        "benchmarks": ["arithmetic"],
        "instruction": "Answer.",
        "output_dir": str(folder) if folder is not None else None,
    }
    evaluate_models(EvaluateConfig(**given | changes), list(overrides), make_console())


def read(path):
    return json.loads(path.read_text())


def samples_of(folder):
    return {s["id"]: s for s in map(json.loads, (folder / "samples.jsonl").read_text().splitlines())}


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def own(path, *questions, answer=2):
    return write_rows(path, [{"question": question, "answer": answer} for question in questions])


def mirror(folder, *sentences):
    write_rows(folder / "cola" / "validation.jsonl", [{"sentence": s, "label": n % 2} for n, s in enumerate(sentences)])
    return str(folder)


def test_two_files_of_one_name_are_two_benchmarks(tmp_path):
    paths = [own(tmp_path / "a" / "mine.jsonl", "1 + 1?"), own(tmp_path / "b" / "mine.jsonl", "4 - 2?")]
    evaluate(tmp_path / "out", benchmarks=paths)
    summary = read(tmp_path / "out" / "summary.json")
    assert len(summary) == 2
    asked = {next(iter(samples_of(tmp_path / "out" / name).values()))["prompt"] for name in summary}
    assert any("1 + 1?" in prompt for prompt in asked)
    assert any("4 - 2?" in prompt for prompt in asked)


def test_ones_own_file_is_never_reported_as_a_known_benchmark(tmp_path, capsys):
    path = own(tmp_path / "math500.jsonl", "1 + 1?")
    evaluate(tmp_path / "out", benchmarks=[path])
    (name,) = read(tmp_path / "out" / "summary.json")
    assert name == own_name(path)
    assert name.startswith("math500.jsonl@")
    assert read(tmp_path / "out" / name / "result.json")["file"] == path
    printed = capsys.readouterr().out
    assert "math500.jsonl" in printed.rpartition("Pass@1")[2], "the table shows the file"


def test_the_same_file_under_two_names_is_refused(tmp_path):
    paths = [own(tmp_path / folder / "mine.jsonl", "1 + 1?") for folder in "ab"]
    with pytest.raises(UserError, match="hold the same: name one"):
        benchmark_names(paths)


def test_all_leaves_out_nothing_that_is_named_beside_it(tmp_path):
    path = own(tmp_path / "mine.jsonl", "1 + 1?")
    names = benchmark_names(["all", "cola", path, "math500"])
    assert names[-2:] == ["cola", path]
    assert names.count("math500") == 1


def test_rows_whose_id_is_null_are_named_by_their_number(tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", [{"question": f"{n}?", "answer": 1, "id": None} for n in range(3)])
    assert [problem.id for problem in load_problems(benchmark_config(path), None)] == ["1", "2", "3"]


def test_an_edited_question_of_ones_own_file_is_answered_anew(tmp_path):
    path = own(tmp_path / "mine.jsonl", "1 + 1?")
    evaluate(tmp_path / "out", benchmarks=[path])
    before = own_name(path)
    own(tmp_path / "mine.jsonl", "9 - 7?")
    evaluate(tmp_path / "out", benchmarks=[path])
    assert "9 - 7?" in samples_of(tmp_path / "out" / own_name(path))["1"]["prompt"]
    assert "1 + 1?" in samples_of(tmp_path / "out" / before)["1"]["prompt"], "and the old answer stays with the old one"


def test_samples_of_ones_own_file_can_be_graded_again(tmp_path):
    path = own(tmp_path / "mine.jsonl", "1 + 1?")
    evaluate(tmp_path / "out", benchmarks=[path])
    again = EvaluateConfig(
        completions=str(tmp_path / "out" / own_name(path) / "samples.jsonl"), output_dir=str(tmp_path / "again")
    )
    grade_completions(again, make_console())
    assert list(samples_of(tmp_path / "again")) == ["1"]
    with pytest.raises(UserError, match=r"give the file itself, benchmarks=\[DIR/mine\.jsonl\]"):
        load_problems(benchmark_config(own_name(path)), None)


def test_an_edited_question_whose_gold_is_kept_is_refused_with_its_id(tmp_path):
    data = mirror(tmp_path / "data", "He sings.", "She swam.", "They run.")
    evaluate(tmp_path / "out", benchmarks=["cola"], data_dir=data)
    mirror(tmp_path / "data", "He sings.", "She swam.", "They walk.")
    with pytest.raises(UserError, match=r"another version of cola \(the question of '.*' differs\)"):
        evaluate(tmp_path / "out", benchmarks=["cola"], data_dir=data)


def test_a_mirror_with_other_rows_is_refused(tmp_path):
    evaluate(tmp_path / "out", benchmarks=["cola"], data_dir=mirror(tmp_path / "one", "He sings.", "She swam."))
    other = mirror(tmp_path / "two", "The cat slept.", "A dog barked.")
    with pytest.raises(UserError, match="another version of cola"):
        evaluate(tmp_path / "out", benchmarks=["cola"], data_dir=other)


@pytest.mark.parametrize("field", ["prompt", "unit", "error"])
def test_samples_are_bound_to_the_rendered_prompt_and_to_how_the_gold_is_read(field, tmp_path):
    evaluate(tmp_path, limit=2)
    path = tmp_path / "arithmetic" / "samples.jsonl"
    rows = [sample | {field: "stale"} for sample in samples_of(path.parent).values()]
    write_rows(path, rows)
    with pytest.raises(UserError, match=rf"\(the {field} of '.*' differs\)"):
        evaluate(tmp_path, limit=2)


def completions_marked(folder):
    rows = [sample | {"completion": "kept"} for sample in samples_of(folder).values()]
    write_rows(folder / "samples.jsonl", rows)


def test_a_smaller_limit_stands_beside_the_larger_result(tmp_path, capsys):
    evaluate(tmp_path, limit=5)
    before = [(tmp_path / name).read_text() for name in ("summary.json", "arithmetic/result.json")]
    capsys.readouterr()
    evaluate(tmp_path, limit=2)
    assert before == [(tmp_path / name).read_text() for name in ("summary.json", "arithmetic/result.json")]
    (beside,) = (tmp_path / "arithmetic").glob("result,problems=2,repeats=1,*.json")
    assert read(beside)["n_problems"] == 2
    assert len(samples_of(tmp_path / "arithmetic")) == 5
    assert beside.name in capsys.readouterr().out.replace("\n", "")


def test_a_larger_limit_extends_what_is_there(tmp_path):
    evaluate(tmp_path, limit=2)
    completions_marked(tmp_path / "arithmetic")
    evaluate(tmp_path, limit=5)
    assert read(tmp_path / "summary.json")["arithmetic"]["n_problems"] == 5
    kept = [sample["completion"] for sample in samples_of(tmp_path / "arithmetic").values()]
    assert kept.count("kept") == 2


def test_fewer_repeats_stand_beside_the_result_of_more(tmp_path):
    evaluate(tmp_path, limit=2, repeats=2)
    evaluate(tmp_path, limit=2)
    assert read(tmp_path / "summary.json")["arithmetic"]["n_repeats"] == 2
    (beside,) = (tmp_path / "arithmetic").glob("result,problems=2,repeats=1,*.json")
    assert read(beside)["std"] is None


def test_what_an_earlier_version_wrote_is_not_replaced_by_less(tmp_path):
    (problem,) = load_problems(benchmark_config("arithmetic"), None, 1)
    extent = Extent({"tiny": "w"}, repeats=1, problems=[problem])
    assert extent.covers({"n_problems": 1, "n_repeats": 1, "scores": {"tiny": 0.0}})
    assert not extent.covers({"n_problems": 2, "n_repeats": 1, "scores": {"tiny": 0.0}})
    assert not extent.covers({"n_problems": 1, "n_repeats": 1, "scores": {"a": 0.0, "b": 0.0}, "spread_over": "runs"})


def test_an_extent_covers_the_same_problems_in_any_order_and_no_others(tmp_path):
    problems = load_problems(benchmark_config("arithmetic"), None, 6)
    whole = Extent({"tiny": "w"}, 1, problems)
    assert whole.covers({"extent": Extent({"x": "w"}, 1, problems[::-1]).record()})
    assert whole.covers({"extent": Extent({"x": "w"}, 1, problems[:3]).record()})
    assert not whole.covers({"extent": Extent({"x": "w"}, 1, problems[2:4]).record()})
    assert not whole.covers({"extent": Extent({"x": "other"}, 1, problems).record()})
    assert problems_digest(problems) != problems_digest(problems[:-1])


@pytest.fixture
def other_model(tmp_path):
    return ModelConfig(name="tiny", path=str(shutil.copytree(TINY.location, tmp_path / "model")), dtype="bfloat16")


def test_a_folder_holds_the_results_of_one_model_on_whatever_benchmarks(tmp_path, other_model):
    evaluate(tmp_path / "out", limit=2)
    path = own(tmp_path / "mine.jsonl", "1 + 1?")
    with pytest.raises(UserError, match=r"samples of other settings \(weights of arithmetic: "):
        evaluate(tmp_path / "out", model=other_model, benchmarks=[path])
    assert list(read(tmp_path / "out" / "summary.json")) == ["arithmetic"]


def test_graded_completions_and_a_model_s_samples_never_share_a_folder(tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", [{"gold": "2", "completion": "\\boxed{2}"}])
    grade_completions(EvaluateConfig(completions=source, output_dir=str(tmp_path / "graded")), make_console())
    with pytest.raises(UserError, match="holds graded completions"):
        evaluate(tmp_path / "graded", limit=1)
    evaluate(tmp_path / "model", limit=1)
    with pytest.raises(UserError, match="holds samples of a model"):
        grade_completions(EvaluateConfig(completions=source, output_dir=str(tmp_path / "model")), make_console())


def test_settings_name_all_that_acts(tmp_path):
    evaluate(tmp_path, limit=1)
    settings = read(tmp_path / "arithmetic" / "settings.json")
    assert settings["strategy"] == "argmax"
    assert settings["engine"].startswith("transformers ")
    assert settings["instruction"] == "Answer."
    assert settings["end_tokens"]
    assert {"max_new_tokens", "stop", "pad_token", "tokenizer", "weights", "rule", "grader.math_verify"} <= set(
        settings
    )


@pytest.mark.parametrize(("key", "value"), [("engine", "vllm 1.0"), ("end_tokens", [1, 9]), ("tokenizer", "x")])
def test_samples_of_another_engine_or_end_are_never_mixed_in(key, value, tmp_path):
    evaluate(tmp_path, limit=1)
    path = tmp_path / "arithmetic" / "settings.json"
    path.write_text(json.dumps(read(path) | {key: value}))
    with pytest.raises(UserError, match=f"other settings .*{key}: "):
        evaluate(tmp_path, limit=1)


def test_a_label_task_is_not_bound_to_what_it_does_not_read(tmp_path):
    data = mirror(tmp_path / "data", "He sings.", "She swam.")
    evaluate(tmp_path / "out", benchmarks=["cola"], data_dir=data)
    evaluate(tmp_path / "out", benchmarks=["cola"], data_dir=data, seed=3, decode=DecodeConfig(max_new_tokens=99))
    settings = read(tmp_path / "out" / "cola" / "settings.json")
    assert "max_new_tokens" not in settings
    assert not [key for key in settings if key.startswith("grader.")]


def test_a_prompt_beyond_the_positions_is_refused_before_the_model_is_loaded(tmp_path, monkeypatch):
    model = shutil.copytree(TINY.location, tmp_path / "model")
    config = read(model / "config.json") | {"max_position_embeddings": 64}
    (model / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("ladder_cli.generate.backbones.load_backbone", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(UserError, match=r"has positions for 64, which leaves \d+ and not decode\.max_new_tokens=60"):
        evaluate(tmp_path / "out", model=ModelConfig(name="tiny", path=str(model)), limit=1,
                 decode=DecodeConfig(max_new_tokens=60))  # fmt: skip


@pytest.fixture
def sweep(tmp_path, tiny_backbone, tiny_tokenizer):
    """Three finished runs that differ in their seed and weights."""
    config = as_dict(composed("train", TrainConfig, ["model=tiny", "hardware=cpu"]))
    prompt = PromptRenderer(tiny_tokenizer, "Answer.")
    for seed in range(3):
        torch.manual_seed(seed)
        run = tmp_path / "sweep" / f"ladder,seed={seed}"
        side = LadderModel.on(tiny_backbone, connect(tiny_backbone.config.num_hidden_layers, "aligned"), reduction=2)
        for weight in side.side.parameters():
            weight.data.add_(0.01 * torch.randn_like(weight))
        side.save_pretrained(run / "adapter")
        (run / "adapter" / "prompt.json").write_text(json.dumps(prompt.as_dict()))
        (run / "config.yaml").write_text(yaml.safe_dump(config | {"seed": seed, "output_dir": str(run)}))
    return tmp_path / "sweep"


def test_an_adapter_of_unknown_day_is_refused_with_what_to_do_where_the_template_prints_it(sweep, tmp_path):
    model = shutil.copytree(TINY.location, tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }}" + template.read_text())
    run = sweep / "ladder,seed=0"
    record = json.loads((run / "adapter" / "prompt.json").read_text())
    del record["date"]  # as versions wrote it that recorded none
    (run / "adapter" / "prompt.json").write_text(json.dumps(record))
    told = {"run": str(run), "benchmarks": ["arithmetic"], "limit": 1, "model": ModelConfig(path=str(model))}
    with pytest.raises(UserError, match=r"recorded their date.*nobody knows which.*allow_prompt_mismatch=true"):
        evaluate(tmp_path / "out", **told, overrides=[f"model.path={model}"])
    evaluate(tmp_path / "out", **told, overrides=[f"model.path={model}"], allow_prompt_mismatch=True)


@pytest.mark.parametrize("record", [{}, {"instruction": "x"}, {"instruction": "x", "fingerprint": 1}])
def test_a_record_of_the_prompt_that_says_too_little_is_refused(record, sweep, tmp_path):
    (sweep / "ladder,seed=0" / "adapter" / "prompt.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="does not say which instruction, date and prompt"):
        evaluate(
            tmp_path / "out", run=str(sweep / "ladder,seed=0"), limit=1, model=ModelConfig(), benchmarks=["arithmetic"]
        )


def test_a_pattern_leaves_out_runs_that_were_set_aside_and_says_so(sweep, tmp_path, capsys):
    shutil.copytree(sweep / "ladder,seed=0", sweep / "ladder,seed=0.old-1")
    evaluate(tmp_path / "out", run=f"{sweep}/*", limit=2, model=ModelConfig())
    assert read(tmp_path / "out" / "summary.json")["arithmetic"]["n_runs"] == 3
    assert "set aside: ladder,seed=0.old-1" in capsys.readouterr().out
    evaluate(tmp_path / "old", run=str(sweep / "ladder,seed=0.old-1"), limit=2, model=ModelConfig())
    assert read(tmp_path / "old" / "summary.json")["arithmetic"]["n_runs"] == 1


def test_fewer_runs_stand_beside_the_result_of_more_and_other_runs_are_refused(sweep, tmp_path):
    evaluate(tmp_path / "out", run=f"{sweep}/*", limit=2, model=ModelConfig())
    evaluate(tmp_path / "out", run=f"{sweep}/*[01]", limit=2, model=ModelConfig())
    assert read(tmp_path / "out" / "summary.json")["arithmetic"]["n_runs"] == 3
    (beside,) = (tmp_path / "out" / "arithmetic").glob("result,runs=2,problems=2,*.json")
    assert read(beside)["n_runs"] == 2
    with pytest.raises(UserError, match="the common results of several runs"):
        evaluate(tmp_path / "out", run=str(sweep / "ladder,seed=0"), limit=2, model=ModelConfig())
    with pytest.raises(UserError, match="holds the results of other runs"):
        binding.refuse_other_runs(tmp_path / "out", {"a": "1", "b": "2"})


def test_runs_whose_folders_have_one_name_are_told_apart(sweep, tmp_path):
    for seed in range(2):
        (sweep / f"ladder,seed={seed}").rename(tmp_path.joinpath(f"s{seed}").absolute())
        (tmp_path / f"s{seed}").rename(tmp_path / f"parent{seed}")
        (tmp_path / "runs" / f"s{seed}").mkdir(parents=True)
        (tmp_path / f"parent{seed}").rename(tmp_path / "runs" / f"s{seed}" / "final")
    evaluate(tmp_path / "out", run=f"{tmp_path}/runs/*/final", limit=2, model=ModelConfig())
    figures = read(tmp_path / "out" / "summary.json")["arithmetic"]
    assert list(figures["scores"]) == ["s0/final", "s1/final"]


def test_runs_of_the_same_weights_are_pointed_out(sweep, tmp_path, capsys):
    for name in ("adapter_model.safetensors", "SHA256SUMS"):
        kept = sweep / "ladder,seed=0" / "adapter" / name
        if kept.is_file():
            shutil.copy(kept, sweep / "ladder,seed=1" / "adapter" / name)
    evaluate(tmp_path / "out", run=f"{sweep}/*", limit=1, model=ModelConfig())
    assert "ladder,seed=0 and ladder,seed=1 hold the same weights" in capsys.readouterr().out


def test_no_results_go_into_a_run_directory_or_among_those_of_another_run(sweep, tmp_path):
    one, other = sorted(path for path in sweep.iterdir() if path.is_dir())[:2]
    rows = write_rows(tmp_path / "rows.jsonl", [{"gold": "1", "completion": "\\boxed{1}"}])
    for folder, message in ((other, "is a run directory"), (other / "eval", f"results of the run {other.name}")):
        for evaluation in (
            lambda folder=folder: evaluate(folder, run=str(one), benchmarks=["arithmetic"], limit=2),
            lambda folder=folder: evaluate(folder, benchmarks=["arithmetic"], limit=2),
            lambda folder=folder: grade_completions(
                EvaluateConfig(completions=rows, output_dir=str(folder)), make_console()
            ),
        ):
            with pytest.raises(UserError, match=message):
                evaluation()
    # Of several runs each would go into OUT/<run>, which is the run directory itself where OUT holds them.
    with pytest.raises(UserError, match="is a run directory"):
        evaluate(sweep, run=f"{sweep}/*", benchmarks=["arithmetic"], limit=2)
    assert not (other / "eval").exists()


def test_a_file_as_output_dir_is_told_in_one_line(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"gold": "1", "completion": "\\boxed{1}"}])
    for folder in (rows, f"{rows}/below"):
        with pytest.raises(UserError, match="cannot be made a folder"):
            grade_completions(EvaluateConfig(completions=rows, output_dir=folder), make_console())


def test_tokens_without_an_embedding_are_refused_before_the_model_is_loaded(tmp_path, monkeypatch):
    config = tmp_path / "tiny"
    shutil.copytree(TINY.location, config)
    told = json.loads((config / "config.json").read_text())
    (config / "config.json").write_text(json.dumps(told | {"vocab_size": 40}))
    monkeypatch.setattr("ladder_cli.generate.backbones.load_backbone", lambda *_: pytest.fail("weights were read"))
    model = ModelConfig(name="cut", path=str(config), dtype="float32", side_reduction=2)
    with pytest.raises(UserError, match=r"a token of the prompt of '.*', has the number 361, .* have 40 rows"):
        evaluate(tmp_path / "out", model=model, benchmarks=["arithmetic"], limit=2)
