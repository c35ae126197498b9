"""The page on speed: recorded results, its tables, and what it says of files that are none."""

import copy
import json

import pytest

from llbook.figures import speed as figures
from llbook.report import speed as report


def test_the_recorded_results_are_whole():
    results = report.load_results()
    assert results["machine"] and results["versions"]["torch"]
    assert str(report.machine_line(results)).startswith(results["machine"])
    growth = {k: v for k, v in results["parts"]["growth"].items() if isinstance(v, dict)}
    assert len(figures.growth(growth).axes) == 12
    for make in (
        *(report.phase_table, report.floor_table),
        *(report.seeds_table, report.growth_table),
    ):
        lines = make(results).splitlines()
        assert len(lines) > 3
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_targets_are_judged_by_their_own_side():
    results = copy.deepcopy(report.load_results())
    results["parts"]["perceptron"] |= {"times_faster": 399.0, "times_floor": 2.4}
    rows = report.target_table(results).splitlines()
    assert next(row for row in rows if "search epoch: times faster" in row).endswith(
        "**not met** |"
    )
    assert next(row for row in rows if "search epoch: times its floor" in row).endswith("| met |")
    growth = results["parts"]["growth"]
    growth["language model, T"]["seconds"] = [1.0, 2.0]
    growth["language model, T, checkpoints"]["seconds"] = [1.5, 2.0]
    (row,) = (row for row in report.target_table(results).splitlines() if "parameters do" in row)
    assert row.endswith("| 1.2 (1.00 to 1.50) | met |")  # 3.5 / 3
    results["parts"]["perceptron"] |= {"times_faster": 400.0, "times_floor": 2.6}
    rows = report.target_table(results).splitlines()
    assert next(row for row in rows if "search epoch: times faster" in row).endswith("| met |")
    assert next(row for row in rows if "times its floor" in row).endswith("**not met** |")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "does not hold results of a benchmark"),
        ("[]", "does not hold results of a benchmark"),
        (json.dumps({"parts": {"machine": {}}}), "lacks the part 'perceptron'"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    file = tmp_path / "bench.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        report.load_results(file)


def test_bars_carry_their_ratio():
    figure = figures.ratios({"a": 2.0, "b": 300.0})
    assert [text.get_text() for text in figure.axes[0].texts] == ["2×", "300×"]
