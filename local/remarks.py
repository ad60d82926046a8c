"""Remarks: what a reader of the results must know of the corpora, such as a part that is missing.

Stage 1 writes them to ``data/remarks.tsv``: a trial list, or ``*`` for all, a tab, the remark.
Stage 8 prints them below its tables.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sv.files import write_text

EVERY = "*"


@dataclass(frozen=True)
class Remark:
    """A remark on the results of one trial list, or of every one (`EVERY`)."""

    trials: str
    text: str


def write_remarks(path: Path, remarks: Iterable[Remark]) -> None:
    """Write the table; an unchanged one keeps its time."""
    lines = [f"{remark.trials}\t{remark.text}\n" for remark in remarks]
    write_text(path, "".join(lines), keep_if_same=True)
