"""A journal with fewer samples: as many as a figure can show, read without parsing the others."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from sv.energy.journal import Record, list_readable, read_journal
from sv.errors import SvError

# As the meter writes it; any other line is parsed as a whole.
_SAMPLE = re.compile(rb'\{"line": ?"sample", ?"t_s": ?(\d+(?:\.\d+)?),.*\}$')
_GAP_PERIODS = 3.0  # between two samples: nobody looked


def choose_step(journal: Path, most: int) -> int:
    """Give of how many samples one may stay for at most ``most`` to stay.

    Raises:
        SvError: The journal cannot be read.
    """
    try:
        with open(journal, "rb") as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        raise SvError(f"cannot read {journal}: {error.strerror}") from error
    return lines // most + 1


def read_thinned(journal: Path, step: int) -> Iterator[Record]:
    """Read a journal as `read_journal` does, but of ``step`` samples one.

    The first and the last of an attempt stay, and both sides of a gap. A sample that stays has the
    last readings of those before it that are left out: slow sensors answer in few samples.

    Raises:
        SvError: The journal cannot be read.
    """
    if step == 1:
        yield from read_journal(journal)
        return
    head: Record = {"channels": [], "period_s": 1.0}
    held: list[bytes] = []  # samples since the last one given
    last_s = float("inf")
    try:
        with open(journal, "rb") as file:
            for data in file:
                if sample := _SAMPLE.match(data):
                    t_s = float(sample[1])
                    if t_s - last_s > _GAP_PERIODS * head["period_s"]:
                        yield from _join(held, head)
                        yield from _join([data], head)
                        held = []
                    else:
                        held.append(data)
                    if len(held) == step:
                        yield from _join(held, head)
                        held = []
                    last_s = t_s
                    continue
                record = _parse(data)
                if record["line"] in ("head", "end"):
                    yield from _join(held, head)
                    held = []
                if record["line"] == "head":
                    head, last_s = record, float("-inf")  # the next sample stays
                yield record
    except OSError as error:
        raise SvError(f"cannot read {journal}: {error.strerror}") from error
    yield from _join(held, head)


def _join(held: list[bytes], head: Record) -> Iterator[Record]:
    """Give the last of these samples; what it lacks is of the last one that has it."""
    readable = list_readable(head["channels"])
    shared = (head.get("config") or {}).get("attribution", "exclusive") != "exclusive"
    whole: Record | None = None
    for data in reversed(held):
        sample = _parse(data)
        if "raw" not in sample:
            continue  # torn
        raw = sample["raw"]
        if isinstance(raw, list):
            raw = dict(zip(readable, raw, strict=False))
        found = {name: value for name, value in raw.items() if value is not None}
        whole = {**sample, "raw": found} if whole is None else {
            **sample, **whole, "raw": found | whole["raw"],
        }  # fmt: skip
        if len(whole["raw"]) == len(readable) and ("usage" in whole or not shared):
            break
    if whole is not None:
        yield whole


def _parse(data: bytes) -> Record:
    try:
        record = json.loads(data)
    except ValueError:
        record = None
    return record if isinstance(record, dict) and "line" in record else {"line": "torn"}
