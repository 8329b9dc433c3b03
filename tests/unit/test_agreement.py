"""Agreement of annotators, by published values."""

from __future__ import annotations

import pytest

from secondglance.evaluation.agreement import agree, combine

# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), data of section D: four
# observers, twelve units, missing values. Its ordinal alpha is 0.815.
TABLE = {
    "A": "1 2 3 3 2 1 4 1 2 . . .",
    "B": "1 2 3 3 2 2 4 1 2 5 . 3",
    "C": ". 3 3 3 2 3 4 2 2 5 1 .",
    "D": "1 2 3 3 2 4 4 1 2 5 1 .",
}


def grades(table: dict[str, str]) -> dict[str, dict[tuple[str, str], int]]:
    return {
        name: {
            ("q", f"{unit:02}"): int(value)
            for unit, value in enumerate(row.split())
            if value != "."
        }
        for name, row in table.items()
    }


def test_alpha_is_krippendorffs_own() -> None:
    found = agree(grades(TABLE))
    assert found.alpha == pytest.approx(0.815, abs=5e-4)
    assert found.undefined == ""
    assert (found.units, found.shared) == (12, 11)  # the last was graded by one alone
    assert found.annotators == {"A": 9, "B": 11, "C": 10, "D": 11}


def test_pairs_count_what_both_graded() -> None:
    found = agree(grades({"ann": "0 1 2 .", "bob": "0 2 2 3", "cat": ". . . ."}))
    ann_bob, ann_cat, _ = found.pairs
    assert (ann_bob.overlap, ann_bob.same) == (3, 2)
    assert ann_bob.agreement == pytest.approx(2 / 3)
    assert (ann_cat.overlap, ann_cat.agreement) == (0, None)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({}, "there is none"),
        ({"ann": "0 1 2"}, "only ann"),
        ({"ann": "0 1", "bob": ". ."}, "only ann"),
        ({"ann": "0 .", "bob": ". 1"}, "no document of a query was graded by two"),
        ({"ann": "2 2", "bob": "2 2"}, "are the same"),
    ],
)
def test_no_number_where_there_is_none(table: dict[str, str], why: str) -> None:
    found = agree(grades(table))
    assert found.alpha is None
    assert why in found.undefined


def test_total_disagreement_is_below_chance() -> None:
    alpha = agree(grades({"ann": "0 3 0 3", "bob": "3 0 3 0"})).alpha
    assert alpha is not None
    assert alpha < -0.5


def test_means_are_rounded_half_up() -> None:
    found = combine(grades({"ann": "0 1 2 3 .", "bob": "1 2 2 . 0", "cat": ". 1 3 . ."}))["q"]
    assert {unit: one.grade for unit, one in found.items()} == {
        "00": 1,
        "01": 1,
        "02": 2,
        "03": 3,
        "04": 0,
    }
    assert found["00"].average == 0.5
    assert found["01"].average == pytest.approx(4 / 3)
    assert found["01"].grades == {"ann": 1, "bob": 2, "cat": 1}
