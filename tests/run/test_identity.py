"""What identifies a run, how its directory is named, and which folders are no run's."""

from dataclasses import fields

import pytest

from ladder_cli.config.compose import as_dict, composed
from ladder_cli.config.methods import ADDED_TO_KIND
from ladder_cli.config.options import Role, covers, option_names, options_of
from ladder_cli.config.schema import ADDED, TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.run.directory import RunDir, default_path, safe_name, write_json
from ladder_cli.run.identity import RunIdentity

INCIDENTAL = {
    "output_dir", "resume", "dry_run", "preflight", "tracking", "train.logging_steps", "data.cache", "hardware.name",
    "hardware.workers", "hardware.memory_gb", "objective.engine_memory", "hardware.shard_backbone",
    "hardware.tflops", "hardware.host_gb_s", "hardware.disk_gb_s", "prepare", "cache", "train.together",
    "trunk.passes", "trunk.cache", "trunk.cache_dir", "trunk.cache_limit_gb",
    "trunk.residency", "trunk.window", "trunk.layer_files",
    "model.default_data", "model.default_benchmarks",
}  # fmt: skip
PLACES = {
    "model.name", "model.hub_id", "model.path", "model.revision", "model.shape", "data.hub_id", "data.hub_config",
    "data.split", "data.path", "data_dir",
}  # fmt: skip
CONTENT = {"weights": "w", "rows": "r", "tokenizer": "t", "prompt": "p", "reward": "c", "rows_follow_seed": False}


def config(*overrides):
    return as_dict(composed("train", TrainConfig, list(overrides)))


def identity(*overrides, **content):
    return RunIdentity.of_config(config(*overrides), CONTENT | content)


def test_every_option_but_those_listed_here_can_change_the_result():
    assert set(options_of(TrainConfig, Role.INCIDENTAL)) == INCIDENTAL
    assert set(options_of(TrainConfig, Role.PLACE)) == PLACES
    assert {*option_names(TrainConfig)} > INCIDENTAL | PLACES
    settings = RunIdentity.of_config(config()).settings
    for group in ("model", "data", "hardware", "train"):
        typed = {item.name: item for item in fields(TrainConfig)}[group].default_factory
        for item in fields(typed):
            key = f"{group}.{item.name}"
            in_settings = covers([key], key) and any(covers([key], setting) for setting in settings)
            # An empty mapping has no value to compare.
            expected = key not in INCIDENTAL | PLACES and getattr(typed(), item.name) != {}
            assert in_settings == expected, key


def test_an_option_whose_name_only_begins_like_an_incidental_one_is_a_setting():
    before = config()
    assert RunIdentity.of_config(before).differences(RunIdentity.of_config(before | {"resume_x": 1})) == [
        "resume_x: None -> 1"
    ]
    assert RunIdentity.of_config(before).differences(RunIdentity.of_config(before | {"resume": {"x": 1}})) == []
    assert not covers(["model.path"], "model.path_of_mine")


@pytest.mark.parametrize("method", ["ladder", "suffix", "qlora"])
def test_a_config_of_before_an_option_came_is_one_with_what_was_done_then(method):
    now = config(f"method={method}")
    later = {*ADDED, *ADDED_TO_KIND.get(now["method"]["kind"], {})}
    before = {group: _without(values, group, later) for group, values in now.items() if group != "objective"}
    assert before != now
    assert RunIdentity.of_config(before).differences(RunIdentity.of_config(now)) == []
    other = config(f"method={method}", "objective=dpo", "data=jsonl", "data.path=x", "data.format=preference")
    assert RunIdentity.of_config(before).differences(RunIdentity.of_config(other)) != []


def _without(values, group, options):
    if not isinstance(values, dict):
        return values
    return {name: value for name, value in values.items() if f"{group}.{name}" not in options}


def test_each_part_that_differs_is_named_with_before_and_now():
    before = identity()
    assert before.differences(identity("tracking.wandb=offline", "data.cache=false", "hardware.workers=3")) == []
    assert before.differences(identity("seed=1", "train.epochs=2", weights="v", prompt="q")) == [
        "weights of the backbone: w -> v",
        "rendered prompt: p -> q",
        "seed: 0 -> 1",
        "train.epochs: 1.0 -> 2.0",
    ]
    for part, words in (("rows", "rows of the data"), ("tokenizer", "tokenizer")):
        (difference,) = before.differences(identity(**{part: "other"}))
        assert difference.startswith(f"{words}: ")


def test_content_that_has_moved_is_the_same_and_its_places_can_be_told():
    before, now = identity("model.path=/a/x"), identity("model.path=/b/y", "data_dir=/c")
    assert before.differences(now) == []
    assert before.moved(now) == ["data_dir: None -> /c", "model.path: /a/x -> /b/y"]


def test_content_comes_back_from_a_run_directory_as_it_was_written(tmp_path):
    run = RunDir(tmp_path)
    run.write_config(config("seed=3", "train.learning_rate=0.004"))
    write_json(run.run, {"status": "done", "identity": identity(weights="v").content_as_dict()})
    assert run.identity().differences(identity("seed=3", "train.learning_rate=0.004", weights="v")) == []
    with pytest.raises(UserError, match=r"holds another run \(weights of the backbone: v -> w; seed: 3 -> 0;"):
        run.refuse_other(identity())
    write_json(run.run, {"status": "done", "identity": ["weights"]})
    with pytest.raises(UserError, match="'identity' is not as it was written"):
        run.identity()


def test_runs_of_other_weights_or_rows_are_other_experiments_and_other_seeds_are_not(tmp_path):
    def experiment(*overrides, **content):
        run = RunDir(tmp_path / "run")
        run.write_config(config(*overrides))
        write_json(run.run, {"status": "done"} | ({"identity": CONTENT | content} if content != {"old": 1} else {}))
        return run.experiment()

    assert experiment() == experiment("seed=1") == experiment("model.path=/moved", "train.logging_steps=3")
    for part in ("weights", "rows", "tokenizer", "prompt", "reward"):
        assert experiment() != experiment("seed=1", **{part: "other"})
    # Rows that the seed draws differ with it.
    assert experiment(rows_follow_seed=True) == experiment("seed=1", rows="other", rows_follow_seed=True)
    # A directory from before content was recorded: its places tell it apart.
    assert experiment("model.path=/a", old=1) != experiment("model.path=/b", old=1)
    assert experiment("model.path=/a", old=1) == experiment("model.path=/a", "seed=2", old=1)


def name(*overrides):
    return default_path("ladder", "tiny", "arithmetic", list(overrides)).name


DIFFERENT = [
    [], ["seed=1"], ["seed=2"], ["data.instruction='Why?'"], ["data.instruction='Why!'"], ["data.instruction=_Why_"],
    ["train.learning_rate=0.1"], ["method.learning_rate=0.1"], ["model.path=/x/model"], ["model.path=/y/model"],
    ["data.path=/x/model"], ["data_dir=/x/model"], ["data_dir=/y/model"], ["hardware=cpu"], ["hardware=rtx-6gb"],
    ["data.instruction=" + "x" * 300 + "a"], ["data.instruction=" + "x" * 300 + "b"], ["data.prompt=" + "数" * 100],
    ["data.prompt=" + "数" * 101], ["data.prompt=a", "data.completion=b"], ["data.prompt='a,completion=b'"],
    ["data.prompt=a.b"], ["data.prompt=a/b"], ["data.prompt=a_b"], ["data.prompt=@12345678"], ["experiment=maths"],
    ["~train.epochs"], ["train.epochs=null"], ["method=own"], ["model=own"], ["data=own"],
]  # fmt: skip


def test_different_options_give_different_names_and_the_same_options_the_same():
    names = [name(*overrides) for overrides in DIFFERENT]
    assert len(set(names)) == len(names)
    assert names == [name(*overrides) for overrides in DIFFERENT]
    assert name("seed=1", "train.epochs=2") == name("train.epochs=2", "seed=1")
    assert all(len(named.encode()) <= 180 for named in names)


@pytest.mark.parametrize(
    ("bare", "quoted"),
    [
        ("data.split=test", 'data.split="test"'),
        ("data.path=/rows/2026_11_25", 'data.path="/rows/2026_11_25"'),
        ("model.path=/models/a", "model.path='/models/a'"),
        ('data.instruction="Why (\\"é\\")?"', "data.instruction='Why (\"é\")?'"),
        ("data.target=trace", "data.target='trace'"),
    ],
)
def test_quotes_around_a_value_are_no_part_of_a_name(bare, quoted):
    assert name(bare) == name(quoted)
    assert '"' not in name(quoted)
    assert "'" not in name(quoted)


def test_a_name_is_readable_where_nothing_had_to_be_changed():
    assert name("train.max_steps=30", "seed=1") == "ladder-tiny-arithmetic,max_steps=30,seed=1"
    assert name("method=ladder", "resume=false", "tracking.project=x", "train.logging_steps=1") == name()
    assert name("+seed=1") == name("seed=1") == name("seed=0", "seed=1")
    named, mark = name("model.path=/models/B", "seed=1").split("@")
    assert named == "ladder-tiny-arithmetic,model.path=B,seed=1"
    assert len(mark) == 8


def test_a_safe_name_of_other_text_is_another_name():
    names = ["a b", "a_b", "a/b", "a\nb", ".a b", "a" * 200, "a" * 201]
    assert len({safe_name(text) for text in names}) == len(names)
    assert safe_name("eval-tiny") == "eval-tiny"


def test_a_folder_that_is_no_run_is_neither_written_into_nor_set_aside(tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    run = RunDir(mine)
    run.refuse_other_folder()
    assert run.set_aside() is None
    (mine / "photo.jpg").write_text("precious")
    (mine / "config.yaml").write_text("of another program")
    for refused in (run.refuse_other_folder, run.set_aside):
        with pytest.raises(UserError, match=r"other things in it \(photo.jpg\) and no run"):
            refused()
    write_json(run.run, {"name": "of another program"})
    (mine / "config.yaml").unlink()
    with pytest.raises(UserError, match="no run"):
        run.set_aside()
    write_json(run.run, {"status": "failed"})
    monkeypatch.chdir(mine)
    with pytest.raises(UserError, match="cannot be set aside from inside"):
        RunDir(".").set_aside()
    monkeypatch.chdir(tmp_path)
    assert run.set_aside() == tmp_path / "mine.old-1"
    assert (tmp_path / "mine.old-1" / "photo.jpg").read_text() == "precious"
    with pytest.raises(UserError, match="is a file"):
        RunDir(tmp_path / "mine.old-1" / "photo.jpg").refuse_other_folder()


def test_home_is_expanded_in_every_option_that_names_a_path(monkeypatch):
    from ladder_cli.config.evaluation import EvaluateConfig

    monkeypatch.setenv("HOME", "/home/someone")
    typed = composed(
        "train", TrainConfig, ["output_dir='~/o'", "data_dir='~/d'", "data.path='~/p'", "model.path='~/m'"]
    )
    assert [typed.output_dir, typed.data_dir, typed.data.path, typed.model.path] == [
        f"/home/someone/{name}" for name in "odpm"
    ]
    typed = composed(
        "evaluate",
        EvaluateConfig,
        ["run='~/r*'", "completions='~/c'", "output_dir='~/o'", "data_dir='~/d'", "compare=['~/a','~/b']"],
    )
    assert [typed.run, typed.completions, typed.output_dir, typed.data_dir, *typed.compare] == [
        f"/home/someone/{name}" for name in ("r*", "c", "o", "d", "a", "b")
    ]
