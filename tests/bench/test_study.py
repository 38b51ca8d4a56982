"""Runs of a study are made once, are known by their options, and say what they cost; the search that stands on it."""

import importlib
import math
from pathlib import Path

import pytest

from ladder_cli.bench.study import RunCost, Study, Trained
from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import RunFailed, UserError

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL = ["model=tiny", "hardware=cpu", "data.train_samples=8", "data.validation_samples=2", "train.evaluations=1"]
SMALL += ["train.global_batch_size=4", "train.micro_batch_size=4", "data.cache=false"]


@pytest.fixture(scope="module")
def search():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("search")


def test_a_run_is_known_by_its_options(tmp_path):
    study = Study(tmp_path, SMALL)
    first = study.run("one", ["method=suffix", "train.max_steps=1"], cached=True)
    assert first.seconds > 0
    assert first.curve == {1: first.loss}
    assert (tmp_path / "taps").is_dir()
    adapter = Path(first.path, "adapter", "adapter_model.safetensors")
    made = adapter.stat().st_mtime_ns
    # The same options in another order, one of them given twice.
    again = study.run("one", ["train.max_steps=2", "train.max_steps=1", "method=suffix"], cached=True)
    assert again == first
    assert adapter.stat().st_mtime_ns == made
    # The cache changes no bit, and is another run.
    alone = study.run("one", ["method=suffix", "train.max_steps=1"], cached=False)
    assert alone.path != first.path
    assert alone.loss == first.loss
    with pytest.raises(UserError, match=r"method.layers=99.*(error: .*)"):
        study.run("one", ["method=suffix", "method.layers=99"], cached=True)


class Constant(Study):
    """A study whose runs all take the same time."""

    def run(self, name, options, cached):
        return Trained(name, 1.0, {}, 8.0, 0)


def test_a_step_that_seems_to_cost_nothing_is_not_believed(tmp_path):
    with pytest.raises(RunFailed, match=r"10 steps took no longer than 2 \(method=suffix\): time more of them"):
        Constant(tmp_path, SMALL).cost("cost", ["method=suffix"], False, (2, 10))


class Priced(Study):
    """A study whose runs are worked out: the loss is the distance of the rate from 2e-3."""

    def run(self, name, options, cached):
        given = dict(word.split("=", 1) for word in options)
        if given["train.weight_decay"] == "0.1":
            raise RunFailed("it diverged | badly")
        rate, steps = float(given["train.learning_rate"]), int(given["train.max_steps"])
        return Trained(name, abs(math.log(rate / 2e-3)), {}, 1.0 * steps, 0)

    def cost(self, name, options, cached, steps):
        given = dict(word.split("=", 1) for word in options)
        return RunCost(0.5 * int(given.get("method.layers", 6)) * (0.5 if cached else 1.0), rest=7.0)


def test_the_search_gives_every_trial_the_same_time_and_keeps_the_failed_ones(search, tmp_path):
    family = {family.name: family for family in search.families(6)}["suffix"]
    tried = search.Search(Priced(tmp_path, []), budget=30.0, cost=search.ALONE)
    best = tried.best(family, 12)
    assert len(tried.trials) == 12
    failed = [trial for trial in tried.trials if trial.failure]
    assert failed
    assert all(trial.loss is None for trial in failed)
    done = [trial for trial in tried.trials if not trial.failure]
    assert best.loss == min(trial.loss for trial in done)
    for trial in done:
        layers = next(int(word.partition("=")[2]) for word in trial.settings if word.startswith("method.layers="))
        assert trial.steps == 60 // layers
        assert trial.seed == search.SEARCH_SEED
        # What is saved is the difference to runs that read the backbone themselves.
        assert trial.alone_seconds == 7.0 + trial.steps * trial.step_seconds
        assert trial.seconds == trial.steps
    again = tried.again(family, best, search.FINAL_SEEDS)
    assert [trial.seed for trial in again] == list(search.FINAL_SEEDS)
    assert all(trial.settings == best.settings for trial in again)
    text = search.table(tried, {"suffix": again}, search.PLAIN, 60)
    assert text.count("it diverged \\| badly") == len(failed)
    assert f"| suffix | 12 | {' '.join(best.settings)} |" in text
    ran, alone = sum(trial.seconds for trial in tried.trials), sum(trial.alone_seconds for trial in tried.trials)
    assert f"{ran:.0f} processor seconds; without shared taps at least {alone:.0f}" in text
    # On cached taps the same time buys more steps.
    cached = search.Search(Priced(tmp_path, []), budget=30.0, cost=search.CACHED)
    assert cached.best(family, 12).steps == 2 * best.steps


def test_every_draw_of_every_family_is_a_run_that_composes(search):
    for family in search.families(6):
        draws = family.draws(8)
        assert draws == family.draws(8)
        rates = []
        for shape, rest in draws:
            config = composed("train", TrainConfig, [*SMALL, *family.options, *shape, *rest])
            rates.append(config.peak_learning_rate)
        # One in every eighth of the range, on a logarithmic scale.
        low, high = (float(family.rest["train.learning_rate"](at)) for at in (0.0, 1.0))
        eighths = {int(8 * math.log(rate / low) / math.log(high / low)) for rate in rates}
        assert eighths == set(range(8))
