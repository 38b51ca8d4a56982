"""The paper's tables out of run directories."""

import csv
import io
import json

import pytest

from ladder_cli.errors import UserError
from ladder_cli.run.directory import write_json
from paper.reported import paper_tables
from paper.runs import read_runs
from paper.scaling_law import PowerLaw
from paper.table import Table
from paper.tables import build_tables, scaling_fits
from tests.paper.finished_runs import write_run, write_scores

LAWS = {"ladder": PowerLaw(40.0, 0.5, 0.4), "qlora": PowerLaw(8.0, 0.3, 0.35)}
BUDGETS = (1000, 2000, 4000, 8000, 16000)


@pytest.fixture
def scaling_runs(tmp_path):
    for method, law in LAWS.items():
        for number, rows in enumerate(BUDGETS):
            write_run(tmp_path, method=method, rows=rows, loss=float(law(rows)) + 1e-5 * (-1) ** number)
    return read_runs([tmp_path])


def row(table: Table, label: str) -> dict[str, str]:
    return next(dict(zip(table.headings, cells, strict=True)) for cells in table.rows if cells[0] == label)


def test_runs_are_read_back_with_what_they_were(tmp_path):
    path = write_run(tmp_path, method="qlora", rows=500, seed=3)
    write_scores(path / "eval", "math500", {True: [10], False: [30]})
    (run,) = read_runs([tmp_path])
    assert (run.label, run.rows, run.config["seed"]) == ("small qlora", 500, 3)
    # 200 tokens a row over two epochs, so 100 a row and epoch.
    assert run.flops_per_row == {"paper": 5000, "actual": 3000}
    assert run.scores["math500"]["pass_at_1"] == 0.5
    assert [sample["tokens"] for sample in run.samples("math500")] == [10, 30]


def test_the_compute_of_a_row_is_that_of_the_passes_that_were_made(tmp_path):
    """Of a run that `max_steps` ended after half a pass, over fewer rows than it asked for."""
    path = write_run(tmp_path, rows=500)
    metrics = json.loads((path / "metrics.json").read_text())
    known = {"rows": {"train": 40, "validation": 5}, "epochs": 0.5, "tokens_seen": 20 * 100}
    write_json(path / "metrics.json", metrics | known)
    (run,) = read_runs([tmp_path])
    assert run.rows == 40
    assert run.flops_per_row == {"paper": 5000, "actual": 3000}


def test_unfinished_and_set_aside_runs_do_not_count(tmp_path):
    write_run(tmp_path, status="failed")
    write_run(tmp_path, seed=1).rename(tmp_path / "ladder.old-1")
    assert read_runs([tmp_path]) == []
    with pytest.raises(UserError, match="is no folder of runs"):
        read_runs([tmp_path / "nowhere"])


def test_table_1_recovers_the_laws_of_its_runs(scaling_runs):
    laws, meetings, _ = build_tables(paper_tables()[1], scaling_runs, draws=30)
    for method, law in LAWS.items():
        cells = row(laws, f"small {method}")
        assert float(cells["λ"].split()[0]) == pytest.approx(law.exponent, rel=0.02)
        assert float(cells["E"].split()[0]) == pytest.approx(law.floor, rel=0.02)
        # zeta is 3,000 FLOPs a row.
        assert float(cells["B"]) == pytest.approx(law.amplitude * 3000**law.exponent, rel=0.1)
        assert float(cells["loss at twice the rows"].split()[0]) == pytest.approx(float(law(32000)), rel=0.01)
        assert cells["runs"] == "5"
        assert not [heading for heading in cells if heading.startswith("paper")]
    where = {cells[1]: float(cells[2].split()[0].replace(",", "")) for cells in meetings.rows}
    assert float(LAWS["ladder"](where["rows"])) == pytest.approx(float(LAWS["qlora"](where["rows"])), rel=0.01)
    assert where["FLOPs"] == pytest.approx(3000 * where["rows"], rel=0.01)


def test_a_method_with_two_budgets_gets_no_law(tmp_path):
    for rows in BUDGETS[:2]:
        write_run(tmp_path, rows=rows, loss=1 / rows)
    runs = read_runs([tmp_path])
    assert scaling_fits(runs) == {}
    laws, _ = build_tables(paper_tables()[1], runs)
    assert row(laws, "small ladder")["λ"] == ""
    assert "small ladder: runs of 2 budget(s); a law needs three." in laws.notes


def test_scores_are_means_and_sample_deviations_over_runs_beside_the_paper(tmp_path):
    for seed, right in enumerate((1, 2, 3)):
        path = write_run(tmp_path, model="qwen2.5-math-1.5b", seed=seed)
        write_scores(path / "eval", "math500", {True: [100] * right, False: [200] * (4 - right)})
    write_scores(tmp_path / "backbone-qwen2.5-math-1.5b", "math500", {True: [], False: [50, 70]})
    table, beside, rest = build_tables(paper_tables()[2], read_runs([tmp_path]))
    trained = row(table, "qwen2.5-math-1.5b ladder")
    assert trained["math500, %"] == "50.0 ± 25.0"
    assert trained["math500: tokens right / wrong"] == "100 / 200"
    assert trained["runs"] == "3"
    alone = row(table, "qwen2.5-math-1.5b backbone")
    assert alone["math500, %"] == "0.0 (10.0 to 90.0)"
    assert alone["math500: tokens right / wrong"] == "- / 60"
    ours = row(beside, "qwen2.5-math-1.5b ladder")
    assert (ours["number"], ours["ours"], ours["paper"], ours["ours - paper"]) == (
        "math500",
        "50",
        "67.2 ± 1.4",
        "-17.2",
    )
    assert ours["inside the noise"] == "no"
    assert row(beside, "qwen2.5-math-1.5b backbone")["inside the noise"].startswith("another protocol")
    assert len(rest.rows) == len(paper_tables()[2].reported) - 2
    assert "32,768" in row(rest, "qwen2.5-7b s1.1-7B")["protocol"]


def test_a_label_task_has_no_lengths_and_cola_is_told_by_matthews_correlation(tmp_path):
    path = write_run(tmp_path, model="qwen2.5-1.5b")
    scores = {"pass_at_1": 0.7, "ci95": [0.6, 0.8], "matthews": 0.6, "matthews_ci95": [0.5, 0.7]}
    write_json(path / "eval" / "summary.json", {"cola": scores})
    table, beside, _ = build_tables(paper_tables()[6], read_runs([tmp_path]))
    assert table.headings == ("", "runs", "cola, MCC")
    assert table.rows == [("qwen2.5-1.5b ladder", "1", "0.600 (0.500 to 0.700)")]
    assert beside.rows == [("qwen2.5-1.5b ladder", "cola", "0.6", "0.58 ± 0.03", "+0.02", "yes")]


def test_table_5_stands_beside_the_reproduction_and_the_original(tmp_path):
    path = write_run(tmp_path, model="opt-1.3b", method="lst")
    write_json(path / "eval" / "summary.json", {"cola": {"pass_at_1": 0.7, "ci95": [0.6, 0.8], "matthews": 0.6}})
    _, beside, _ = build_tables(paper_tables()[5], read_runs([tmp_path]))
    assert [line[1:] for line in beside.rows] == [
        ("cola", "0.6", "0.579", "+0.021", "no noise printed"),
        ("cola, original", "0.6", "0.595 ± 0.031", "+0.005", "yes"),
    ]
    assert "1 of 1 cells" in beside.notes[0]


def test_table_1_stands_beside_the_printed_intervals(tmp_path):
    for number, rows in enumerate(BUDGETS):
        loss = float(PowerLaw(3.0, 0.25, 0.21)(rows)) + 1e-6 * (-1) ** number
        write_run(tmp_path, model="qwen2.5-7b", rows=rows, loss=loss)
    tables = build_tables(paper_tables()[1], read_runs([tmp_path]), draws=20)
    beside = {line[1]: line for line in tables[1].rows}
    assert set(beside) == {"λ", "B", "E", "λ, Huber", "B, Huber", "E, Huber"}
    assert beside["λ"][3:] == ("0.26 (0.1 to 0.48)", beside["λ"][4], "yes")
    assert float(beside["λ"][2]) == pytest.approx(0.25, abs=0.005)
    # By the paper's count a row costs 5,000 FLOPs here.
    assert float(beside["B"][2]) == pytest.approx(3.0 * 5000**0.25, rel=0.05)
    assert beside["B"][-1] == "no noise printed"


def test_table_7_says_what_ran_beside_what_the_paper_states(tmp_path):
    write_run(tmp_path, model="qwen2.5-7b", peak=9_876_000_000)
    table, beside, rest = build_tables(paper_tables()[7], read_runs([tmp_path]))
    ours = row(table, "qwen2.5-7b ladder")
    assert (ours["micro-batch"], ours["accumulation"], ours["learning rate"]) == ("4", "3", "0.002")
    assert ours["peak memory, GB"] == "9.88"
    assert {line[1]: line[2:5] for line in beside.rows} == {
        "micro-batch": ("4", "4", "+0"),
        "accumulation": ("3", "3", "+0"),
        "batch": ("12", "12", "+0"),
        "learning rate": ("0.002", "2e-05", "+0.00198"),
    }
    assert row(rest, "qwen2.5-7b qlora")["micro-batch"] == "2"


TABLE = Table("Title", ("", "A, %", "b_c"), [("x|y", "1.0 ± 0.5", "2"), ("z", "", "3")], ["A note."])


def test_the_forms_of_a_table_hold_the_same_cells():
    assert TABLE.markdown().splitlines()[2] == "| x\\|y | 1.0 ± 0.5 | 2 |"
    assert TABLE.markdown().endswith("\nA note.\n")
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [list(TABLE.headings), *map(list, TABLE.rows)]
    latex = TABLE.latex().splitlines()
    assert latex[2] == r"\begin{tabular}{lrr}"
    assert latex[4] == r" & A, \% & b\_c \\"
    assert latex[6] == r"x|y & 1.0 $\pm$ 0.5 & 2 \\"
    assert TABLE.terminal().row_count == 2


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="a row of 2 cells under 3 headings"):
        Table("", ("a", "b", "c"), [("1", "2")])
