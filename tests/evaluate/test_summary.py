import pytest

from ladder_cli.errors import UserError
from ladder_cli.evaluate.samples import Sample, append_samples, read_samples
from ladder_cli.evaluate.statistics import wilson_interval
from ladder_cli.evaluate.summary import summarise


def sample(name, verdict, tokens=10, stop_reason="stop"):
    return Sample(id=name, completion="", gold="", answer=None, verdict=verdict, tokens=tokens, stop_reason=stop_reason)


def test_figures_of_a_benchmark_are_counted_by_hand():
    samples = [
        sample("1", "correct", 10),
        sample("2", "correct", 20),
        sample("3", "incorrect", 50),
        sample("4", "no_answer", 100, "length"),
        sample("5", "timeout", 30),
    ]
    figures = summarise({"run": [samples]})
    assert figures["pass_at_1"] == pytest.approx(0.4)
    assert figures["std"] is None
    assert (figures["n_runs"], figures["n_problems"]) == (1, 5)
    assert figures["truncated_rate"] == figures["no_answer_rate"] == figures["timeout_rate"] == pytest.approx(0.2)
    assert figures["mean_tokens_correct"] == 15
    assert figures["mean_tokens_incorrect"] == 60


def test_means_of_nothing_are_null():
    assert summarise({"run": [[sample("1", "correct")]]})["mean_tokens_incorrect"] is None


@pytest.mark.parametrize(
    # Brown, Cai and DasGupta (2001) and R's prop.test(correct=FALSE).
    ("successes", "trials", "interval"),
    [(0, 10, (0.0, 0.2775)), (8, 10, (0.4902, 0.9433)), (250, 500, (0.4563, 0.5437)), (500, 500, (0.9924, 1.0))],
)
def test_the_wilson_interval_has_its_published_values(successes, trials, interval):
    assert wilson_interval(successes, trials) == pytest.approx(interval, abs=2e-4)


def test_samples_survive_a_kill_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "samples.jsonl"
    append_samples(path, [sample("1", "correct"), sample("2", "incorrect")])
    with path.open("a") as file:
        file.write('{"id": "3", "verd')
    assert list(read_samples(path)) == ["1", "2"]
    append_samples(path, [sample("3", "correct")])
    assert list(read_samples(path)) == ["1", "2", "3"]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "samples.jsonl"
    append_samples(path, [sample("1", "correct")])
    with path.open("a") as file:
        file.write("nonsense\n")
    append_samples(path, [sample("2", "correct")])
    with pytest.raises(UserError, match="line 2"):
        read_samples(path)
