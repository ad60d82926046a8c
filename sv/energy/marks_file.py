"""The meter's side of the marks: a file that the command appends to is read as it grows.

``sv.energy.marks`` is the command's side. The meter folds each line into the journal after its next
sample.
"""

import json
from pathlib import Path

from sv.energy.journal import Journal, Record, read_journal

VARIABLE = "SV_METER_MARKS"


class MarksFile:
    """The marks file of one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read_new(self, *, final: bool = False) -> list[Record]:
        """Give the marks since the last call; ``final`` takes a last line without its end too."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []  # the command removed it
        if not final:
            data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        lines = data.decode("utf-8", "replace").split("\n")
        return [_parse_mark(line) for line in lines if line]


def _parse_mark(line: str) -> Record:
    try:
        mark = json.loads(line)
        json.dumps(mark, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError:  # not JSON, or nothing that a sidecar could hold (NaN, half a character)
        mark = None
    if isinstance(mark, dict) and isinstance(mark.get("mark"), str):
        return mark
    return {"mark": "unreadable", "text": line[:200]}


def get_marks_path(journal: Path, attempt: int) -> Path:
    """Give the marks file of an attempt, a hidden file beside the journal."""
    stem = journal.name.split(".journal.")[0]
    return journal.with_name(f".{stem}.marks.{attempt}.jsonl")


def fold_leftover(journal: Journal, attempt: int) -> None:
    """Put into the journal what the last attempt said after its killed meter's last sample."""
    path = get_marks_path(journal.path, attempt)
    if not path.exists():
        return
    heard = 0  # lines of the file that are in the journal
    for record in read_journal(journal.path):
        if record["line"] in ("head", "mark"):
            heard = 0 if record["line"] == "head" else heard + 1
    for mark in MarksFile(path).read_new(final=True)[heard:]:
        journal.append({"line": "mark", "t_s": None, "said": mark})
    journal.sync()
    path.unlink()
