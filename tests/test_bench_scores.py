"""The benchmarks of scoring and CRF, at a size that says nothing about speed."""

from tools.bench import crf as bench_crf
from tools.bench import evaluate as bench_evaluate

KEYS = {"name", "value", "unit", "ratio_to", "ratio", "runs"}


def check(rows):
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows)
    for row in rows:
        assert row.keys() == KEYS and row["value"] > 0 and row["runs"] == 1
        if row["ratio_to"]:
            assert row["ratio"] == row["value"] / by_name[row["ratio_to"]]["value"]
    return by_name


def test_evaluate():
    """cityscapesScripts is measured too."""
    rows = check(bench_evaluate.rows(runs=1, hw=(48, 80), frames=2))
    assert "evaluate_cityscapesscripts_48x80_1thread" in rows


def test_crf():
    """Leaving absent classes out changes at most 0.1% of the labels."""
    rows = check(list(bench_crf.rows(runs=1, sizes=[(48, 80)])))
    assert rows["crf_10of19classes_48x80_identical_labels"]["value"] >= 99.9
    assert rows["crf_plain_19classes_48x80_memory"]["value"] > 50
