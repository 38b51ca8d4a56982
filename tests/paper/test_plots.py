"""The paper's figures out of run directories."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig
from paper.memory_points import MemoryPoint, memory_points
from paper.plots import length_figure, memory_bars, memory_figure, memory_score_figure, save
from paper.runs import read_runs
from paper.scaling_law import PowerLaw
from paper.scaling_plots import scaling_figure
from tests.paper.finished_runs import write_run, write_scores


def drawn(axis):
    return {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}


def test_figure_2_shows_every_run_over_rows_and_over_flops(tmp_path):
    for rows in (1000, 2000, 4000, 8000):
        write_run(tmp_path, rows=rows, loss=0.4 + 40 / rows**0.5)
    figure = scaling_figure(read_runs([tmp_path]), draws=5)
    over_rows, over_flops = figure.axes
    points = [collection.get_offsets().tolist() for collection in over_rows.collections][-1]
    assert sorted(points) == [[rows, pytest.approx(0.4 + 40 / rows**0.5)] for rows in (1000, 2000, 4000, 8000)]
    assert sorted(over_flops.collections[-1].get_offsets()[:, 0]) == [
        3000.0 * rows for rows in (1000, 2000, 4000, 8000)
    ]
    # The fitted curve runs through them.
    curve = dict(drawn(over_rows)["small ladder"])
    assert curve[min(curve)] == pytest.approx(0.4 + 40 / 1000**0.5, rel=1e-3)


def rings(axis):
    return [line.get_xydata()[0].tolist() for line in axis.get_lines() if line.get_label() == "_meeting"]


def test_figure_2_puts_a_ring_where_two_laws_meet(tmp_path):
    # 40 / sqrt(D) + 0.4 = 20 / sqrt(D) + 0.7 at D = (20 / 0.3)^2.
    for method, law in (("ladder", PowerLaw(40.0, 0.5, 0.4)), ("qlora", PowerLaw(20.0, 0.5, 0.7))):
        for number, rows in enumerate((1000, 2000, 4000, 8000, 16000)):
            write_run(tmp_path, method=method, rows=rows, loss=float(law(rows)) + 1e-6 * (-1) ** number)
    over_rows, over_flops = scaling_figure(read_runs([tmp_path]), draws=20).axes
    assert rings(over_rows) == [[pytest.approx((20 / 0.3) ** 2, rel=1e-3), pytest.approx(1.0, rel=1e-3)]]
    assert rings(over_flops)[0][0] == pytest.approx(3000 * (20 / 0.3) ** 2, rel=1e-3)


def test_no_runs_make_no_figure():
    assert scaling_figure([]) is None
    assert memory_score_figure([], "math500") is None
    assert length_figure([], "math500") is None


def test_figure_3a_puts_the_mean_score_over_the_mean_peak(tmp_path):
    for seed, right in enumerate((1, 3)):
        path = write_run(tmp_path, seed=seed, peak=(seed + 2) * 10**9)
        write_scores(path / "eval", "math500", {True: [5] * right, False: [5] * (4 - right)})
    (axis,) = memory_score_figure(read_runs([tmp_path]), "math500").axes
    (container,) = axis.containers
    assert container.lines[0].get_xydata().tolist() == [[2.5, 50.0]]
    assert container.get_label() == "small ladder (n = 2)"


def test_figure_3a_shows_all_of_a_score_as_its_table_reports_it(tmp_path):
    for seed, matthews in enumerate((0.6, 0.8)):
        path = write_run(tmp_path, seed=seed, peak=10**9)
        write_scores(path / "eval", "cola", {True: [1] * 9, False: [1]})
        summary = path / "eval" / "summary.json"
        scores = json.loads(summary.read_text())
        scores["cola"]["matthews"] = matthews
        summary.write_text(json.dumps(scores))
    (axis,) = memory_score_figure(read_runs([tmp_path]), "cola").axes
    assert axis.get_ylabel() == "cola, MCC"
    assert axis.containers[0].lines[0].get_ydata().tolist() == [pytest.approx(0.7)]
    assert axis.get_ylim()[1] > 0.7 + 0.1414  # mean and deviation


def test_figure_3b_draws_a_line_for_each_method(tmp_path):
    points = [
        MemoryPoint(method, rows, tokens, factor * rows * tokens * 10**7, {})
        for method, factor in (("one", 1), ("two", 2))
        for rows, tokens in ((1, 512), (1, 2048), (4, 2048))
    ]
    over_context, over_rows = memory_figure(points, "huge").axes
    assert drawn(over_context)["two"] == [[512, pytest.approx(10.24)], [2048, pytest.approx(40.96)]]
    assert drawn(over_rows)["one"] == [[1, pytest.approx(20.48)], [4, pytest.approx(81.92)]]


def test_the_memory_axis_has_a_bar_for_each_method_and_a_line_for_the_card():
    axis, other = memory_bars({"one": {"a": 8.0, "b": 20.0}, "two": {"a": 3.0, "b": 5.0}}, card=12).axes
    assert [bar.get_width() for bar in axis.patches] == [8.0, 20.0]
    assert axis.patches[0].get_facecolor() != axis.patches[1].get_facecolor()
    assert other.patches[0].get_facecolor() == other.patches[1].get_facecolor()
    assert axis.get_lines()[0].get_xdata()[0] == 12


def test_memory_points_grow_with_the_context_and_are_computed_once():
    configs = {"ladder": composed("train", TrainConfig, ["method=ladder", "model=tiny"])}
    told: list[MemoryPoint] = []
    points = memory_points(configs, [(1, 64), (1, 256)], progress=told.append)
    assert points == told
    assert points[0].bytes < points[1].bytes
    assert sum(points[1].parts.values()) == points[1].bytes
    assert memory_points(configs, [(1, 256)], points, pytest.fail) == points[1:]


def test_figure_4_has_a_box_of_right_and_one_of_wrong_completions(tmp_path):
    path = write_run(tmp_path)
    write_scores(path / "eval", "math500", {True: [10, 20, 30], False: [100, 300]})
    (axis,) = length_figure(read_runs([tmp_path]), "math500").axes
    assert [text.get_text() for text in axis.texts] == ["n=3", "n=2"]
    means = [line.get_ydata()[0] for line in axis.get_lines() if line.get_marker() == "D"]
    assert means == [20, 200]


def test_a_figure_is_saved_as_png_and_svg(tmp_path):
    points = [MemoryPoint("one", 1, 512, 10**10, {}), MemoryPoint("one", 1, 1024, 2 * 10**10, {})]
    save(memory_figure([*points, MemoryPoint("one", 2, 1024, 4 * 10**10, {})], "huge"), tmp_path / "new", "figure")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "new" / "figure.svg").getroot().tag.endswith("svg")
