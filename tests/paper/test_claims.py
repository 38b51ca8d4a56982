"""The paper's claims judged from runs whose answer is known."""

import pytest

from ladder_cli.run.directory import write_json
from paper.claims import (
    FAILS,
    HOLDS,
    NOT_RUN,
    OPEN,
    chains,
    claims_table,
    critic,
    equal_parameters,
    measured_memory,
    predicted_memory,
    slopes,
)
from paper.memory_points import MemoryPoint
from paper.runs import read_runs
from paper.scaling_law import PowerLaw
from tests.paper.finished_runs import write_run, write_scores


@pytest.mark.parametrize(("exponent", "noise", "verdict"), [(0.4, 1e-6, HOLDS), (0.6, 1e-6, FAILS), (0.42, 4e-3, OPEN)])
def test_slopes_are_equal_unequal_or_open(tmp_path, exponent, noise, verdict):
    for method, law in (("ladder", PowerLaw(20.0, 0.4, 0.3)), ("qlora", PowerLaw(60.0, exponent, 0.3))):
        for number, rows in enumerate((1000, 2000, 4000, 8000, 16000)):
            write_run(tmp_path, method=method, rows=rows, loss=float(law(rows)) + noise * (-1) ** number)
    (judged,) = slopes(read_runs([tmp_path]), draws=40)
    assert judged.verdict == verdict, judged.evidence


def test_nothing_run_is_said_to_be_so():
    for judged in (slopes([]), measured_memory([]), chains([]), critic([])):
        assert [one.verdict for one in judged] == [NOT_RUN]


def points(**gigabytes):
    return [MemoryPoint(f"{name}, SDPA", 1, 2048, int(size * 1e9), {}) for name, size in gigabytes.items()]


def test_predicted_memory_is_judged_by_its_share_and_by_the_card():
    half, card = predicted_memory({"qwen2.5-7b, nf4": points(ladder=7.8, qlora=20.3)}, 12.0)
    assert (half.verdict, card.verdict) == (HOLDS, HOLDS)
    half, card = predicted_memory({"qwen2.5-7b, nf4": points(ladder=27.6, qlora=40.3)}, 12.0)
    assert (half.verdict, card.verdict) == (FAILS, FAILS)
    # A card that holds both methods does not tell them apart.
    assert predicted_memory({"qwen2.5-7b, nf4": points(ladder=5.0, qlora=11.0)}, 12.0)[1].verdict == FAILS
    assert len(predicted_memory({"qwen2.5-math-1.5b, nf4": points(ladder=2.4, qlora=8.2)}, 12.0)) == 1


def test_measured_peaks_are_compared_at_one_micro_batch(tmp_path):
    write_run(tmp_path, method="ladder", peak=4_000_000_000)
    write_run(tmp_path, method="qlora", peak=9_000_000_000)
    write_run(tmp_path, method="xladder", peak=8_000_000_000)
    judged = measured_memory(read_runs([tmp_path]))
    assert [(one.verdict, one.evidence.split("(")[0]) for one in judged] == [
        (HOLDS, "4.00 against 9.00 GB, 44% "),
        (OPEN, "8.00 against 9.00 GB, 89% "),
    ]


@pytest.mark.parametrize(("shorter", "verdict"), [(50, HOLDS), (0, OPEN), (-50, FAILS)])
def test_chains_are_shorter_longer_or_open(tmp_path, shorter, verdict):
    wobble = [3 * (-1) ** number for number in range(20)]
    for method, by in (("ladder-4", 0), ("xladder-4", shorter)):
        path = write_run(tmp_path, method=method)
        lengths = [200 + w * (1 if by == 0 and method == "ladder-4" else -1) - by for w in wobble]
        write_scores(path / "eval", "math500", {True: lengths, False: lengths})
    right, wrong = chains(read_runs([tmp_path]))
    assert (right.verdict, wrong.verdict) == (verdict, verdict), right.evidence


def test_chains_of_which_there_is_no_right_one_are_open(tmp_path):
    for method in ("ladder-4", "xladder-4"):
        write_scores(write_run(tmp_path, method=method) / "eval", "math500", {True: [], False: [10, 12]})
    assert [one.verdict for one in chains(read_runs([tmp_path]))] == [OPEN, OPEN]


def test_parameters_are_equal_or_not():
    judged = equal_parameters({"a": {"one": 5, "two": 5}, "b": {"one": 5, "two": 6}})
    assert [one.verdict for one in judged] == [HOLDS, FAILS]


@pytest.mark.parametrize(("interval", "verdict"), [([0.81, 0.9], HOLDS), ([0.7, 0.79], FAILS), ([0.75, 0.85], OPEN)])
def test_a_critic_is_above_80_percent_below_or_open(tmp_path, interval, verdict):
    score = {"pass_at_1": sum(interval) / 2, "ci95": interval}
    write_json(write_run(tmp_path) / "eval" / "summary.json", {"critic": score})
    write_json(tmp_path / "backbone-small" / "summary.json", {"critic": {"pass_at_1": 0.52, "ci95": [0.47, 0.57]}})
    alone, trained = critic(read_runs([tmp_path]))
    assert (alone.verdict, trained.verdict) == (HOLDS, verdict)


def test_claims_make_a_table():
    assert claims_table(critic([])).rows[0][1] == NOT_RUN
