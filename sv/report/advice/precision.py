"""What extraction in a lower precision saves, at what change of the EER."""

import math
from dataclasses import dataclass

from sv.report.advice.candidates import LEAST_SPEAKERS, explain_energies, explain_incomplete
from sv.report.noise import Measured, find_measured, subtract
from sv.report.records import (
    EXTRACT_STAGE,
    PRECISIONS,
    Results,
    System,
    extract_name,
    find_score,
    find_stage,
)

_FULL = "fp32"


@dataclass(frozen=True)
class Saving:
    """What one system saves.

    ``share`` of the energy in fp32, ``spread`` its uncertainty (k = 2); ``change`` of the EER in
    points, ``interval`` its 95 % interval.
    """

    system: str
    share: float
    spread: float | None
    change: float
    interval: tuple[float, float]

    @property
    def is_sure(self) -> bool:
        """Whether energy is saved, beyond its uncertainty where that is known."""
        return self.share > (self.spread or 0.0)

    @property
    def is_noise(self) -> bool:
        """Whether the EER is the same within noise."""
        return self.interval[0] <= 0 <= self.interval[1]


def advise_precision(results: Results) -> tuple[list[str], list[str]]:
    """Compare every lower precision with fp32, for each test set extracted in both.

    Returns:
        Sentences, and why there are none on some precision.
    """
    lines, withheld = [], []
    for data_set in dict.fromkeys(results.trial_sets.values()):
        for precision in PRECISIONS:
            if precision == _FULL:
                continue
            title = f"{precision} for {data_set}"
            savings, reasons = [], {}
            for system in results.systems:
                found = _find_saving(results, system, data_set, precision)
                if isinstance(found, Saving):
                    savings.append(found)
                elif found:
                    reasons.setdefault(found, []).append(system.name)
            if savings:
                lines.append(_describe(title, savings))
            withheld += [
                f"on {title}: {reason}: {', '.join(names)}" for reason, names in reasons.items()
            ]
    return lines, withheld


def _find_saving(
    results: Results, system: System, data_set: str, precision: str
) -> Saving | str | None:
    """Give the saving, why it is not known, or None where nobody extracted in both precisions."""
    full, low = (
        find_stage(system, EXTRACT_STAGE, f"extract_{extract_name(data_set, name)}")
        for name in (_FULL, precision)
    )
    if full is None or low is None:
        return None
    reasons = [explain_incomplete(full), explain_incomplete(low), *explain_energies([full, low])]
    if reason := next(filter(None, reasons), ""):
        return reason
    difference = _find_change(results, system, data_set, precision)
    if isinstance(difference, str):
        return difference
    interval = difference.interval
    if interval is None or difference.speakers < LEAST_SPEAKERS:
        return f"{difference.speakers} speakers are too few, {LEAST_SPEAKERS} are needed"
    assert full.energy_kwh  # or it was incomplete
    assert low.energy_kwh
    ratio = low.energy_kwh / full.energy_kwh
    spread = None
    if full.uncertainty_kwh is not None and low.uncertainty_kwh is not None:
        parts = (full.uncertainty_kwh / full.energy_kwh, low.uncertainty_kwh / low.energy_kwh)
        spread = ratio * math.hypot(*parts)
    return Saving(system.name, 1 - ratio, spread, difference.value, interval)


def _find_change(results: Results, system: System, data_set: str, precision: str) -> Measured | str:
    """Give how much the EER rises over the lists scored in both precisions, or why not."""
    lists = tuple(
        name
        for name, of_set in results.trial_sets.items()
        if of_set == data_set and find_score(system, name) and find_score(system, name, precision)
    )
    if not lists:
        return "no list is scored in both precisions"
    low = find_measured(system, lists, "eer_percent", precision)
    full = find_measured(system, lists, "eer_percent")
    if low is None or full is None:
        return "no replicates of the EER in both precisions (stage 7 writes them)"
    reason = "not the same trials, seed or number of replicates in both precisions"
    return subtract(low, full) or reason


def _describe(title: str, savings: list[Saving]) -> str:
    shares = [100 * saving.share for saving in savings]
    spreads = [100 * saving.spread for saving in savings if saving.spread is not None]
    changes = [saving.change for saving in savings]
    lossy = [saving for saving in savings if not saving.is_noise]
    wasteful = [saving.system for saving in savings if not saving.is_sure]
    count = f"{len(savings)} system{'s' * (len(savings) > 1)}, one run each"
    text = f"{title}, against {_FULL}: {_span(shares, '{:.0f}')} % less energy ({count}"
    if len(spreads) == len(savings):
        text += f", uncertainty of the share up to {max(spreads):.0f} %"
    text += f"); EER {_span(changes, '{:+.3f}')} points"
    if lossy:
        parts = [
            f"{s.system} {s.change:+.3f} ({s.interval[0]:+.3f} to {s.interval[1]:+.3f})"
            for s in lossy
        ]
        text += f", beyond noise for {', '.join(parts)}"
    else:
        text += ", within noise for all"
    text += f"; no saving beyond its uncertainty for {', '.join(wasteful)}" if wasteful else ""
    good = [s.system for s in savings if s.is_sure and (s.is_noise or s.change < 0)]
    if len(good) == len(savings):
        return f"{text}: it is to be preferred."
    return f"{text}; to be preferred for {', '.join(good)}." if good else f"{text}."


def _span(values: list[float], form: str) -> str:
    low, high = (form.format(value) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
