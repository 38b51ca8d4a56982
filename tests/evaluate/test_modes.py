"""Options that what is asked for does not read."""

import subprocess
import sys

import pytest

from ladder_cli.cli.evaluate import results_path
from ladder_cli.config.compose import composed
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.options import option_names
from ladder_cli.errors import UserError
from ladder_cli.evaluate.modes import READ, mode_of, refuse_unread, refuse_unread_by_labels

MODES = {
    "audit": ["audit=true"],
    "completions": ["completions=answers.jsonl"],
    "compare": ["compare=[a,b]"],
    "report": ["report=[a,b]"],
    "run": ["run=outputs/a"],
    "model": [],
}


def check(*words):
    refuse_unread(composed("evaluate", EvaluateConfig, list(words)), list(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare=[a,b] limit=5", "option 'limit': compare=[DIR,DIR] does not read it"),
        ("compare=[a,b] benchmarks=[math500]", "option 'benchmarks': compare="),
        ("compare=[a,b] decode.max_new_tokens=5", "option 'decode.max_new_tokens': compare="),
        ("completions=F benchmarks=[math500]", "option 'benchmarks': completions=FILE does not read it"),
        ("completions=F repeats=3", "option 'repeats'"),
        ("completions=F data_dir=.", "option 'data_dir'"),
        ("completions=F decode=sampling", "option 'decode'"),
        ("completions=F model=tiny", "option 'model'"),
        ("completions=F hardware=cpu", "option 'hardware'"),
        ("audit=true repeats=2", "option 'repeats': audit=true does not read it (it is for run=DIR and model=NAME)"),
        ("audit=true decode.temperature=1", "option 'decode.temperature'"),
        ("run=a hardware.workers=2", "option 'hardware.workers': run=DIR does not read it (no evaluation does)"),
        ("run=a model.name=x", "option 'model.name': run=DIR does not read it (it is for model=NAME)"),
        ("run=a allow_settings_mismatch=true", "option 'allow_settings_mismatch'"),
        ("model=tiny allow_prompt_mismatch=true", "(it is for run=DIR)"),
        ("model=tiny model.side_reduction=2", "option 'model.side_reduction'"),
        ("model=tiny decode.top_p=0.9", "option 'decode.top_p': greedy decoding does not read it"),
        ("model=tiny seed=3", "option 'seed': greedy decoding does not read it"),
        ("audit=true run=a", "audit=true and run=DIR are different things to do"),
        ("completions=F compare=[a,b]", "completions=FILE and compare=[DIR,DIR] are different things"),
        ("report=a limit=5", "option 'limit': report=DIR does not read it"),
        ("report=a output_dir=x", "option 'output_dir': report=DIR does not read it"),
        ("run=a output=x.html", "option 'output': run=DIR does not read it (it is for report=DIR)"),
        ("report=a compare=[a,b]", "compare=[DIR,DIR] and report=DIR are different things"),
        ("completions=F run=a", "completions=FILE and run=DIR are different things"),
    ],
)
def test_an_option_that_is_not_read_is_refused_with_what_reads_it(words, message):
    with pytest.raises(UserError) as raised:
        check(*words.split(" "))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "words",
    [
        "compare=[a,b] output_dir=x allow_settings_mismatch=true",
        "completions=F limit=3 decode.grade_seconds=2 output_dir=x",
        "audit=true benchmarks=all data_dir=. limit=2",
        "run=a benchmarks=[math500] decode=sampling repeats=5 hardware=cpu model.path=builtin:tiny limit=2 seed=3",
        "model=tiny hardware=cpu model.mlp_chunk=64 decode.temperature=0.5 decode.top_p=0.9 instruction=x",
        "compare=[a,b] limit=null audit=false",
        "report=a output=x.html",
        "report=[a,b]",
        "",
    ],
)
def test_what_is_read_passes_and_so_does_an_option_that_is_set_to_nothing(words):
    check(*words.split())


def test_values_that_nobody_gave_on_the_command_line_are_not_refused():
    refuse_unread(composed("evaluate", EvaluateConfig, ["compare=[a,b]", "limit=5"]), ["compare=[a,b]"])


def test_the_table_of_options_names_none_that_does_not_exist():
    groups = {"model", "hardware", "trunk", "decode"}
    known = set(option_names(EvaluateConfig)) | groups
    assert {option for options in READ.values() for option in options} <= known
    assert {mode_of(composed("evaluate", EvaluateConfig, words)) for words in MODES.values()} == set(READ)
    # Whoever adds an option says who reads it.
    own = {name for name in option_names(EvaluateConfig) if "." not in name}
    assert own - set(READ) - groups <= {option for options in READ.values() for option in options}


def test_the_command_says_it_in_one_line_and_writes_nothing(tmp_path):
    words = ["compare=[a,b]", "limit=5", f"output_dir={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-m", "ladder_cli.evaluate", *words], capture_output=True, text=True,
                          check=False, timeout=120)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: option 'limit': compare=[DIR,DIR] does not read it (it is for audit=true and completions=FILE and "
        "run=DIR and model=NAME): leave it out."
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "word", ["decode=sampling", "decode.max_new_tokens=5", "decode.stop=[x]", "seed=3", "decode.grade_seconds=2"]
)
def test_label_tasks_alone_refuse_options_of_generation(word):
    option = word.partition("=")[0]
    with pytest.raises(UserError, match=f"option '{option}': label tasks alone do not read it"):
        refuse_unread_by_labels(["label", "label"], ["model=tiny", word])
    refuse_unread_by_labels(["label", "boxed"], ["model=tiny", word])
    refuse_unread_by_labels(["label"], ["model=tiny", "decode.batch_size=4", "repeats=2", "limit=3"])


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["completions=a/mine.jsonl"], "outputs/eval-mine"),
        (["completions=a/mine.jsonl", "output_dir=x"], "x"),
        (["compare=[a,b]", "output_dir=x"], "x"),
        (["audit=true", "limit=3"], "audit=true limit=3"),
        (["run=gone/ladder-*"], "outputs/eval-ladder"),
        (["model=tiny"], "outputs/eval-tiny"),
    ],
)
def test_a_sweep_names_the_folder_that_the_evaluation_writes_to(words, folder):
    assert str(results_path(composed("evaluate", EvaluateConfig, words), words)) == folder
