"""The page "Paper and companion": every item of the paper, on the recorded runs and on made-up ones."""

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, parameter_cell

from llbook.experiments import language_model, perceptron
from llbook.publish.profiles import PROFILES, overrides
from llbook.report import companion as report
from llbook.report import perceptron as perceptron_report
from llbook.report.companion import CompanionConfig
from llbook.runs.run import Run

PERCEPTRON, LANGUAGE = perceptron.load_records(), language_model.load_records()
LIVE = PERCEPTRON["headline"][0]


# records at the paper's scale are welcome, and would be judged otherwise
SMALLER = {name: LANGUAGE[name] for name in language_model.LADDER}


def language_entries(records=SMALLER):
    return report.language_entries(records, LANGUAGE["short"][0], "smoke")


def changed(runs, config=None, **arrays):
    """The runs with other arrays."""
    return [
        replace(run, config=run.config | (config or {}), arrays=run.arrays | arrays) for run in runs
    ]


@pytest.fixture(scope="module")
def entries():
    claims = report.claims(PERCEPTRON, report.code(2), report.gradient_difference())
    return [
        *claims,
        *report.pictures(PERCEPTRON),
        *report.perceptron_entries(PERCEPTRON, LIVE, "laptop"),
        *language_entries(),
        *report.scaling_entries(LANGUAGE, language_model.LADDER, 1e7),
    ]


def test_nothing_of_the_paper_is_left_out(entries):
    text = " ".join(entry.item for entry in entries)
    wanted = ["Theorem A.1", "Theorem 3.1", "Lemma B.1", "Table 1", "Table 2", "Eq. 9", "Eq. 22"]
    wanted += [f"Property 4.{i}" for i in (1, 2, 3)]
    wanted += [f"Fig. {i}" for i in (1, 2, "3A", "3B", 9, 11, 12)]
    wanted += [f"{i}{part}" for i in (4, 5, 6, 7, 8) for part in "ab"]
    assert [name for name in wanted if name not in text] == []


def test_every_entry_has_a_place_a_value_and_a_verdict(entries):
    for entry in entries:
        assert entry.place and entry.paper and all(entry.ours)
        assert entry.verdict in report.MARKS
        cell = entry.row()[-1]
        assert cell.startswith(report.MARKS[entry.verdict]) and entry.verdict in cell
    places = " ".join(entry.place for entry in entries)
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.md"))
    for role, name in re.findall(r"\{(numref|prf:ref|ref|eq)\}`([^`]+)`", places):
        label = {"numref": f"name: {name}", "prf:ref": f":label: {name}"}.get(role, f"({name})")
        assert label in pages, name


def test_what_did_not_come_out_as_printed_is_not_called_reproduced():
    by_item = {entry.item: entry for entry in report.perceptron_entries(PERCEPTRON, LIVE, "laptop")}
    ratio = by_item["Fig. 5a: AR"]
    assert ratio.verdict == report.CHANGED
    assert ratio.ours[0].endswith("`as-printed`")
    assert any("`headline`" in line for line in ratio.ours)
    assert by_item["Fig. 8a: γ = 0 where CT ≤ 0"].verdict == report.FAILED
    # as printed SIM_t rises, but the area does not fall
    assert by_item["Fig. 6a: largest SIM_t of the last policy"].verdict == report.CHANGED


def test_a_setting_as_printed_that_gains_is_reproduced():
    better = PERCEPTRON | {"as-printed": PERCEPTRON["noise-3-linear-512"]}
    by_item = {entry.item: entry for entry in report.perceptron_entries(better, LIVE, "laptop")}
    assert by_item["Fig. 5a: AR"].verdict == report.REPRODUCED


@pytest.mark.parametrize(
    ("weight", "steps", "verdict"),
    [
        (0.0, 2000, report.CHANGED),
        (1.0, 2000, report.FAILED),
        (0.0, 60, report.SMALLER),
    ],
)
def test_the_heat_map_is_judged_where_there_is_one(weight, steps, verdict):
    (live,) = changed(
        [LIVE],
        {"training": LIVE.config["training"] | {"steps": steps}},
        heat_map=np.full((4, 5), weight / LIVE.config["data"]["size"]),
    )
    last = report.perceptron_entries(PERCEPTRON, live, "laptop")[-1]
    assert last.item.startswith("Fig. 10a")
    assert last.verdict == verdict


def test_a_smaller_language_model_reproduces_at_most_under_changes():
    assert {entry.verdict for entry in language_entries()} <= {report.CHANGED, report.SMALLER}


def test_a_record_at_the_papers_scale_is_judged_as_it_stands():
    config = LANGUAGE["long"][0].config
    scale = {
        "data": config["data"] | {"size": 2**14, "vocabulary": 5000},
        "training": config["training"] | {"steps": 4000},
    }
    records = SMALLER | {"paper": changed(LANGUAGE["long"], scale)}
    found = language_entries(records)
    assert {entry.verdict for entry in found} <= {report.REPRODUCED, report.FAILED}
    assert all("`paper`" in entry.ours[0] for entry in found[:5])


def test_a_code_that_does_not_decode_fails():
    coded = report.Code(100, 0.001, False)
    found = report.claims(PERCEPTRON, coded, 1e-3)
    verdicts = {entry.item.split(":")[0]: entry.verdict for entry in found}
    assert verdicts["Theorem A.1"] == report.REPRODUCED
    assert verdicts["Algorithms 1, 2"] == verdicts["Eq. 22"] == report.FAILED


def test_summary_counts_every_entry(entries):
    sentence = report.summary(entries)
    numbers = [int(number) for number in re.findall(r"\d+", sentence)]
    assert numbers[0] == len(entries) == sum(numbers[1:])


def test_table_of_records_names_every_run():
    text = report.records_table({"perceptron": PERCEPTRON, "language model": LANGUAGE})
    for runs in (PERCEPTRON | LANGUAGE).values():
        assert all(isinstance(run, Run) and run.id in text for run in runs)
    assert set(perceptron_report.LABELS) == set(PERCEPTRON)


def test_an_unknown_verdict_is_refused():
    with pytest.raises(ValueError, match="got 'maybe'"):
        report.Entry("Fig. 0", "here", "1", ("1",), "maybe")


def test_parameters_of_the_page():
    cell = parameter_cell("companion")
    assert {name: default for name, (_, default, _) in cell.items()} == CompanionConfig().flat()
    for profile in PROFILES:
        assert overrides(profile, "companion").get("profile", "laptop") == profile


def test_the_code_is_of_the_built_in_grammar_whatever_text_is_at_hand(tmp_path, monkeypatch):
    (tmp_path / "one.txt").write_text("Only one story.")
    monkeypatch.delenv("LLBOOK_TINYSTORIES", raising=False)
    expected = report.code(2)
    monkeypatch.setenv("LLBOOK_TINYSTORIES", str(tmp_path / "one.txt"))
    assert report.code(2) == expected
