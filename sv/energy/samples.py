"""The lines of one attempt, its samples as columns: ten days at 1 Hz are a million samples."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from sv.energy.journal import Record, list_readable

MISSING = -(2**63)  # in a column: the channel had no reading


@dataclass
class AttemptLines:
    """What the journal has of one attempt.

    Attributes:
        head: The line that begins it.
        t_s, awake_s: The clocks of each sample, CLOCK_BOOTTIME and CLOCK_MONOTONIC.
        raw: Channel -> its reading at each sample (int64), `MISSING` where there was none.
        usage: Index of a sample -> what the job and the machine had used (attribution).
        marks, factors, facts: The lines of these kinds, in order.
        end: The last line; None if the meter was killed.
    """

    head: Record
    t_s: array = field(default_factory=lambda: array("d"))
    awake_s: array = field(default_factory=lambda: array("d"))
    raw: dict[str, array] = field(default_factory=dict)
    usage: dict[int, Record] = field(default_factory=dict)
    marks: list[Record] = field(default_factory=list)
    factors: list[Record] = field(default_factory=list)
    facts: list[Record] = field(default_factory=list)
    end: Record | None = None

    def __post_init__(self) -> None:
        """Make a column for each channel of the head that is read."""
        self.raw = {name: array("q") for name in list_readable(self.head["channels"])}

    def add(self, record: Record) -> None:
        """Take the next line; what a later version may have added is left out."""
        kind = record["line"]
        if kind == "sample":
            if "usage" in record:
                self.usage[len(self.t_s)] = record["usage"]
            self.t_s.append(record["t_s"])
            self.awake_s.append(record["awake_s"])
            for channel_id, column in self.raw.items():
                value = record["raw"].get(channel_id)
                column.append(MISSING if value is None else value)
        elif kind == "mark":
            self.marks.append(record)
        elif kind == "factor":
            self.factors.append(record)
        elif kind == "facts":
            self.facts.append(record)
        elif kind == "end":
            self.end = record

    def get(self, channel_id: str | None, sample: int) -> int | None:
        """Give the reading of a channel at a sample; None where there is none."""
        column = self.raw.get(channel_id or "")
        return None if column is None or column[sample] == MISSING else column[sample]


def split_attempts(records: Iterable[Record]) -> tuple[list[AttemptLines], int]:
    """Split the lines of a journal into attempts.

    Returns:
        The attempts, and how many lines a crash or a full disk tore.
    """
    attempts: list[AttemptLines] = []
    torn = 0
    for record in records:
        if record["line"] == "torn":
            torn += 1
        elif record["line"] == "head":
            attempts.append(AttemptLines(record))
        elif attempts:
            attempts[-1].add(record)
    return attempts, torn


def interpolate(places: array, known: array, clock: array) -> array:
    """Fill in a figure that is known at some samples, linearly in time.

    Args:
        places: Indices of the samples where it is known, at least one, increasing.
        known: Its values there.
        clock: Time of every sample.

    Returns:
        Its value at every sample; before the first and after the last it keeps theirs.
    """
    values = array("d", [known[0]]) * len(clock)
    for k in range(1, len(places)):
        a, b, low, high = places[k - 1], places[k], known[k - 1], known[k]
        values[b] = high
        for i in range(a + 1, b):
            values[i] = low + (high - low) * (clock[i] - clock[a]) / (clock[b] - clock[a])
    for i in range(places[-1], len(clock)):
        values[i] = known[-1]
    return values
