"""The table of a study: rows with mean, spread, paired differences, and what is missing.

The table for people, ``table.md``, is in %; entries, ``table.json`` and ``table.csv`` hold 0 to 1.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from tools.studies.plan import METRICS, Row, Study
from tools.studies.results import Results
from tools.studies.statistics import bootstrap_interval, spread, t_interval
from train.atomic import atomic_write


def tabulate(study: Study, results: Results) -> list[dict[str, Any]]:
    """Summarise each row over its finished seeds. Scores are 0..1; a missing score is None."""
    return [_summary(study, row, results) for row in study.rows]


def _summary(study: Study, row: Row, results: Results) -> dict[str, Any]:
    lines = _finished(study, row.name, results)
    failed = [s for s in study.seeds if "failed" in results.get((row.name, s), {})]
    entry: dict[str, Any] = {
        "row": row.name, "title": row.title, "paper": _of_percent(row.paper),
        "metric": study.metric, "seeds": len(study.seeds), "n": len(lines), "failed_seeds": failed,
        "scores": {seed: line["score"] for seed, line in lines.items()},
        "mean": None, "sd": None,
    }  # fmt: skip
    if lines:
        entry["mean"], entry["sd"] = spread(list(entry["scores"].values()))
        values = list(lines.values())
        for name in study.watch:
            entry[f"iou {name}"] = _mean([line["ious"][name] for line in values])
        for name in values[0].get("sizes", {}):
            entry[f"iou of {name} regions"] = _mean([line["sizes"][name] for line in values])
        for name in ("gridding", "truth_gridding", "ap"):
            if name in values[0]:
                entry[name] = _mean([line[name] for line in values])
    if row.compare:
        entry |= _comparison(study, row, lines, _finished(study, row.compare, results))
    return entry


def _comparison(study: Study, row: Row, lines: dict, others: dict) -> dict[str, Any]:
    seeds = [seed for seed in study.seeds if seed in lines and seed in others]
    paper, other = row.paper, study.row(str(row.compare)).paper
    found: dict[str, Any] = {
        "compare": row.compare, "pairs": len(seeds), "difference": None, "t_95": None,
        "bootstrap_95": None,
        "paper_difference": None if None in (paper, other) else _of_percent(paper - other),
    }  # fmt: skip
    if seeds:
        differences = [lines[s]["score"] - others[s]["score"] for s in seeds]
        found |= {"difference": float(np.mean(differences)), "t_95": t_interval(differences)}
        if all("groups" in lines[s] and "groups" in others[s] for s in seeds):
            first, second = (np.array([of[s]["groups"] for s in seeds]) for of in (others, lines))
            found["bootstrap_95"] = bootstrap_interval(first, second)
    return found


def _finished(study: Study, row: str, results: Results) -> dict[int, dict]:
    found = {seed: results.get((row, seed)) for seed in study.seeds}
    return {seed: line for seed, line in found.items() if line and "failed" not in line}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _of_percent(figure: float | None) -> float | None:
    """Turn a figure of the paper, %, into a share."""
    return None if figure is None else figure / 100


def markdown(study: Study, entries: list[dict[str, Any]]) -> str:
    """Write two Markdown tables: the scores, and the study's other measures."""
    head = ["row", "paper", f"{METRICS[study.metric]} % (mean ± sd)", "n", "compared with"]
    head += ["difference", "95%, t over seeds", "95%, bootstrap over seeds and frames"]
    head += ["paper's difference"]
    body = [
        [
            entry["title"], _number(entry["paper"], 1), _score(entry),
            f"{entry['n']} of {entry['seeds']}{_failed(entry)}", entry.get("compare") or "",
            _signed(entry.get("difference")), _interval(entry.get("t_95")),
            _interval(entry.get("bootstrap_95")), _signed(entry.get("paper_difference"), 1),
        ]
        for entry in entries
    ]  # fmt: skip
    known = ["row", "title", "paper", "metric", "seeds", "n", "failed_seeds", "scores", "mean"]
    known += ["sd", "compare", "pairs", "difference", "t_95", "bootstrap_95", "paper_difference"]
    more = list(dict.fromkeys(key for entry in entries for key in entry if key not in known))
    tables = [_lines(head, body)]
    if more:
        rows = [[e["title"], *(_number(e.get(key), 2) for key in more)] for e in entries if e["n"]]
        tables.append(_lines(["row, %", *(key.replace("_", " ") for key in more)], rows))
    return "\n".join(tables)


def write_table(study: Study, results: Results, out: Path) -> str:
    """Write ``table.md``, ``.csv``, ``.json``, ``.png`` and ``patch.png``; return the Markdown."""
    from tools.studies.figure import draw, draw_patch  # Matplotlib takes a second to load

    entries = tabulate(study, results)
    text = markdown(study, entries)
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    with atomic_write(out / "table.json") as temporary:
        temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    keys = list(dict.fromkeys(key for entry in entries for key in entry))
    with atomic_write(out / "table.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(entries)
    draw(study, entries, out / "table.png")
    draw_patch(study, out, out / "patch.png")
    return text


def _lines(head: list[str], body: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *body))


def _score(entry: dict[str, Any]) -> str:
    if not entry["n"]:
        return "not run"
    if entry["sd"] is None:
        return _number(entry["mean"], 2)
    return f"{_number(entry['mean'], 2)} ± {_number(entry['sd'], 2)}"


def _failed(entry: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, entry["failed_seeds"]))
    return f" (failed: seed {seeds})" if seeds else ""


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def _signed(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:+.{digits}f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{_signed(ends[0])} to {_signed(ends[1])}"
