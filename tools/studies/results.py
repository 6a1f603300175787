"""``results.json``: one JSON object per line, for each finished or failed run of a study."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from tools.studies.plan import Study
from train.atomic import atomic_write
from train.errors import RunError

RESULTS = "results.json"
Results = dict[tuple[str, int], dict[str, Any]]  # (row, seed) -> its line


def read_results(out: Path, study: Study) -> Results:
    """Read the results of a study; of several lines for a row and seed the last one counts.

    Raises
    ------
    RunError
        A line belongs to another study, or to another version of one of its rows.
    """
    file = out / RESULTS
    results: Results = {}
    for number, line in enumerate(_lines(file), start=1):
        if reason := _foreign(line, study):
            raise RunError(
                f"{file}: line {number}: {reason}; 'run --drop-changed' drops such lines and "
                "runs these rows again"
            )
        results[line["row"], line["seed"]] = line
    return results


def append_result(out: Path, line: dict[str, Any]) -> None:
    """Append a line; other processes may append at the same time."""
    with (out / RESULTS).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)  # drop the unfinished line of a killed process
        file.write(json.dumps(line).encode() + b"\n")


def drop_changed(out: Path, study: Study) -> int:
    """Drop the lines of other versions of the study; return how many there were."""
    lines = _lines(out / RESULTS)
    kept = [line for line in lines if not _foreign(line, study)]
    if len(kept) < len(lines):
        with atomic_write(out / RESULTS) as temporary:
            text = "".join(json.dumps(line) + "\n" for line in kept)
            temporary.write_text(text, encoding="utf-8")
    return len(lines) - len(kept)


def _foreign(line: dict[str, Any], study: Study) -> str:
    if line["study"] != study.name:
        return f"of the study '{line['study']}', expected '{study.name}'"
    row = next((row for row in study.rows if row.name == line["row"]), None)
    if row is None or line["seed"] not in study.seeds:
        return f"{study.path} has no row '{line['row']}' with seed {line['seed']}"
    if row.signature != line["signature"]:
        return f"row '{line['row']}' was run with other settings than {study.path} has now"
    scored = line.get("split", study.split), line.get("metric", study.metric)
    if scored != (study.split, study.metric):
        return f"scored by {scored[1]} on '{scored[0]}', expected {study.metric} on '{study.split}'"
    return ""


def _lines(file: Path) -> list[dict[str, Any]]:
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            record = json.loads(line)
            lines.append({**record, **{key: record[key] for key in ("study", "row", "seed")}})
            record["signature"]
        except (ValueError, TypeError, KeyError):
            raise RunError(f"{file}: line {number}: not a result of a study") from None
    return lines
