from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.trials import odd_table, outcomes, record, table
from vitexp.errors import ConfigError
from vitexp.sweeps.tables.cells import cells, headings, notes
from vitexp.sweeps.tables.figure import draw
from vitexp.sweeps.tables.formats import to_csv, to_markdown
from vitexp.sweeps.tables.results import Outcome
from vitexp.sweeps.tables.table import Table, build_table


def texts(made: Table, row: str) -> dict[str, str]:
    """Return the cells of a row by their heading, which is put on one line."""
    found = next(entry for entry in made.rows if entry.name == row)
    names = [heading.replace("-\n", "").replace("\n", " ") for heading in headings(made)]
    return dict(zip(names, cells(made, found), strict=True))


def accuracies(*test: float | None, **more: Any) -> list[dict[str, Any] | None]:
    return [None if value is None else record(value, val=value, **more) for value in test]


def test_a_row_says_all_of_it() -> None:
    made = table(
        {
            "base": [record(0.90, val=0.92), record(0.91, val=0.93), record(0.92, val=0.94)],
            "+ more": [
                record(0.94, val=0.95, fit_s=130.0),
                record(0.955, val=0.96, fit_s=131.0),
                record(0.955, val=0.97, fit_s=132.0),
            ],
        }
    )
    assert texts(made, "+ more") == {
        "": "+ more",
        "seeds": "3 of 3",
        "validation accuracy (%)": "96.00 ± 1.00 ★",
        "test accuracy (%)": "95.00 ± 0.87",
        # differences 4, 4.5 and 3.5: 4 ± 4.303 · 0.5 / √3; t = 13.86 with 2 degrees of freedom: p = 0.005
        "Δ test (points) [95% interval]": "+4.00* [+2.76, +5.24]",
        "parameters (M)": "2.69",
        "training time": "2 min 11 s",
        "time per point": "+7.8 s",  # 31 s for 4 points
    }
    assert texts(made, "base")["Δ test (points) [95% interval]"] == "baseline"
    assert texts(made, "base")["time per point"] == ""


def test_what_is_not_completed_is_counted_and_never_averaged() -> None:
    lost = record(0.1, val=0.1, status="failed", fit_s=9999.0)  # it may well have left numbers
    busy = record(0.2, val=0.2, status="running")
    stopped = record(0.3, val=0.3, status="interrupted")
    made = table({"base": accuracies(0.9, 0.9), "row": [*accuracies(0.92, 0.94), lost, busy, stopped, None]})
    row = texts(made, "row")
    assert row["seeds"] == "2 of 6, 1 running, 1 interrupted, 1 failed, 1 missing"
    assert row["test accuracy (%)"] == "93.00 ± 1.41"
    assert row["training time"] == "1 min 40 s"


def test_one_seed_has_no_deviation() -> None:
    row = texts(table({"base": accuracies(0.9, None), "row": accuracies(0.92, None)}), "row")
    assert row["test accuracy (%)"] == "92.00 (n = 1)"
    assert row["Δ test (points) [95% interval]"] == "+2.00 (n = 1)"


def test_a_number_of_fewer_seeds_than_are_completed_says_so() -> None:
    made = table({"base": accuracies(None, 0.90, 0.92), "row": accuracies(0.91, 0.93, 0.94)})
    assert texts(made, "row")["Δ test (points) [95% interval]"].endswith("] (n = 2)")
    assert texts(made, "row")["test accuracy (%)"] == "92.67 ± 1.53"


def test_rows_without_numbers_are_dashes() -> None:
    row = texts(table({"base": accuracies(0.9), "row": [None, None]}), "row")
    assert list(row.values()) == ["row", "0 of 2, 2 missing", "–", "–", "–", "–", "–", ""]


def test_a_sweep_that_has_just_begun_is_a_table_too() -> None:
    made = table({"base": [None], "row": [record(None, status="running")]})
    assert texts(made, "row")["test accuracy (%)"] == "–"
    assert texts(made, "row")["parameters (M)"] == "2.69"
    assert not any(row.is_best for row in made.rows)


def test_equal_differences_are_told_without_an_interval() -> None:
    made = table({"base": accuracies(0.90, 0.91, 0.92), "same": accuracies(0.90, 0.91, 0.92)})
    assert texts(made, "same")["Δ test (points) [95% interval]"] == "0.00 (all 3 equal)"
    assert texts(made, "same")["time per point"] == ""


def test_validation_chooses_and_test_does_not() -> None:
    made = table({"base": [record(0.99, val=0.90)], "row": [record(0.80, val=0.95)]})
    assert [row.is_best for row in made.rows] == [False, True]
    assert "★ best row by validation accuracy; test numbers were not used to choose." in notes(made)
    blind = table({"base": [record(0.99)], "row": [record(0.80)]})
    assert not any(row.is_best for row in blind.rows)
    assert "validation accuracy (%)" not in texts(blind, "row")
    assert not any("★" in note for note in notes(blind))


def test_a_lucky_seed_alone_is_not_chosen_over_whole_rows() -> None:
    made = table({"base": accuracies(0.90, 0.92), "lucky": accuracies(0.99, None)})
    assert [row.name for row in made.rows if row.is_best] == ["base"]
    early = table({"base": accuracies(0.90, None), "lucky": accuracies(0.99, None)})
    assert [row.name for row in early.rows if row.is_best] == ["lucky"]


def test_without_a_test_the_differences_are_those_of_validation_and_say_so() -> None:
    made = table({"base": [record(None, val=0.9)] * 2, "row": [record(None, val=0.91), record(None, val=0.93)]})
    row = texts(made, "row")
    assert row["Δ validation (points) [95% interval]"].startswith("+2.00 [")
    assert not any(heading.startswith("test") for heading in row)


def test_marks_are_those_after_the_correction() -> None:
    """Six differences with p = 0.013 (t = 8.66, 2 degrees of freedom): one alone is significant, six are not."""
    base, row = accuracies(0.90, 0.91, 0.92), accuracies(0.94, 0.96, 0.98)
    one = table({"base": base, "row": row})
    assert one.rows[1].is_significant and one.rows[1].p_holm == pytest.approx(0.01307, abs=1e-5)
    six = table({"base": base, **{f"row {index}": row for index in range(6)}, "single": accuracies(0.99, None, None)})
    assert not any(entry.is_significant for entry in six.rows)
    assert six.rows[1].p_holm == pytest.approx(6 * 0.01307, abs=1e-4)
    assert any("6 comparisons" in note for note in notes(six))


def test_any_row_can_be_the_baseline() -> None:
    made = table({"a": accuracies(0.9, 0.91), "b": accuracies(0.95, 0.97)}, baseline="b")
    assert texts(made, "b")["Δ test (points) [95% interval]"] == "baseline"
    assert texts(made, "a")["Δ test (points) [95% interval]"].startswith("−5.50 [")


def test_of_loss_and_calibration_error_less_is_better() -> None:
    rows = {
        "base": [record(0.9, val=0.9, loss=0.50, ece=0.05)] * 3,
        "row": [
            record(0.9, val=0.9, loss=0.41, ece=0.024, fit_s=140.0),
            record(0.9, val=0.9, loss=0.43, ece=0.026, fit_s=140.0),
            record(0.9, val=0.9, loss=0.42, ece=0.025, fit_s=140.0),
        ],
    }
    loss = table(rows, metric="loss")
    row = texts(loss, "row")
    assert row["test loss"] == "0.4200 ± 0.0100"
    assert row["Δ test [95% interval]"].startswith("−0.0800* [")
    assert row["time per 0.01"] == "+5.0 s"  # 40 s for 0.08
    assert loss.rows[1].is_best
    ece = texts(table(rows, metric="ece"), "row")
    assert ece["validation calibration error (ECE) (%)"] == "2.50 ± 0.10 ★"
    assert ece["time per point"] == "+16.0 s"  # 40 s for 2.5 points


def test_cost_is_blank_without_a_significant_gain_and_negative_where_time_was_saved() -> None:
    slow, fast = accuracies(0.90, 0.92, 0.94), accuracies(0.930, 0.951, 0.969, fit_s=40.0)
    assert texts(table({"slow": slow, "fast": fast}), "fast")["time per point"] == "−20.0 s"
    assert texts(table({"fast": fast, "slow": slow}), "slow")["time per point"] == "", "a loss"
    noise = accuracies(0.89, 0.93, 0.96, fit_s=40.0)
    for long, short in ((slow, noise), (noise, slow)):
        made = table({"base": long, "row": short})
        assert texts(made, "row")["time per point"] == ""
    for base, row in ((slow[:1], fast[:1]), (slow, accuracies(0.91, 0.93, 0.95))):  # one seed; without any spread
        made = table({"base": base, "row": row})
        assert texts(made, "row")["time per point"] == "" and made.rows[1].cost_s is None
    assert any("empty without a significant gain" in note for note in notes(made))


def test_warns_of_trials_that_differ_in_more_than_their_row() -> None:
    mixed = table({"base": accuracies(0.9), "row": accuracies(0.9, device="CPU")})
    assert any("CPU and NVIDIA H200" in note for note in notes(mixed))
    other = record(0.9)
    other["environment"]["git_commit"] = "fedcba9876543210"
    assert any("2 versions of the code" in note for note in notes(table({"base": accuracies(0.9), "row": [other]})))
    assert not any("versions" in note or "not comparable" in note for note in notes(odd_table()))


def test_names_are_free_of_what_a_terminal_obeys() -> None:
    made = table({"a\x1b[31m\nb\tc": accuracies(0.9)})
    assert cells(made, made.rows[0])[0] == "a [31m b c"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"metric": "acuracy"}, r"no metric 'acuracy'; choose from accuracy, accuracy_top5"),
        ({"baseline": "c"}, r"baseline=c is not a row; choose from a, b"),
    ],
)
def test_refuses_what_does_not_exist(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        table({"a": accuracies(0.9), "b": accuracies(0.9)}, **options)


def test_refuses_no_trials_and_two_of_one_seed() -> None:
    with pytest.raises(ConfigError, match="no trials"):
        build_table([], title="empty")
    twice: list[Outcome] = outcomes({"a": accuracies(0.9)}) * 2
    with pytest.raises(ConfigError, match="'a' has two trials with the same seed"):
        build_table(twice, title="twice")


def test_a_cumulative_ablation_compares_each_row_with_the_one_above(tmp_path: Path) -> None:
    rows = {
        "SGD": [record(0.40), record(0.42), record(0.44)],
        "+ AdamW": [record(0.50), record(0.53), record(0.53)],
        "+ mixup": [record(0.52), record(0.53), record(0.55)],
    }
    made = table(rows, is_cumulative=True)
    place = headings(made).index("Δ row above\n(points)\n[95% interval]")
    above = [cells(made, row)[place] for row in made.rows]
    # differences 2, 0, 2: mean 4/3, deviation 1.1547; t(2, 0.975) = 4.3027
    assert above == ["", "+10.00 [+7.52, +12.48]", "+1.33 [−1.54, +4.20]"]
    assert any(note.startswith("Δ row above") for note in notes(made))
    csv_rows = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert csv_rows[0]["step"] == "" and float(csv_rows[2]["step"]) == pytest.approx(0.04 / 3)
    assert "Δ row above" in to_markdown(made) and "Δ row above" not in to_markdown(table(rows))
    draw(made, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
