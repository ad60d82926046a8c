"""Which figures of a table do not agree with each other, by stated rules.

A rule looks at figures alone, never at a name. What it finds is a remark: nothing is corrected,
and a figure that disagrees need not be the wrong one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sv.report.study.published import Inference, Measures, Printed, Study, Training
from sv.report.tables.cells import format_significant

# Iglewicz and Hoaglin, "How to detect and handle outliers", 1993: |z| > 3.5.
MAX_Z = 3.5
_Z_OF_MAD = 0.6745  # MAD / standard deviation of a normal distribution
_LEAST_MAD = 0.01  # of the median: equal figures with one slightly off are no outliers
_LEAST_ROWS = 5  # fewer have no median to be far from
# Apart by these, energy and GMAC are in contradiction: more than 10 % each, over any rounding.
_MORE_ENERGY, _LESS_GMAC = 1.1, 0.9
_FAR_FROM_STATED = 1.5
_FULL = "fp32"

RULES = (
    f"robust z (0.6745 x distance from the median / MAD) above {MAX_Z} among the rows of a "
    f"section, from {_LEAST_ROWS} rows (MAD at least {_LEAST_MAD:.0%} of the median)",
    "an average that is not the mean of its lists within rounding",
    "one figure printed in two tables that rounding does not reconcile",
    f"more than {_MORE_ENERGY:g} times the energy of a system of the same family that has over "
    f"{1 / _LESS_GMAC:.2f} times the GMAC",
    "a lower precision that takes longer or more energy than fp32, or saves more or less than the "
    "text says",
)


@dataclass(frozen=True)
class Disagreement:
    """What disagrees with what; ``row`` is the key of the row that it marks."""

    row: str
    text: str


def find_outliers(values: Mapping[str, float], what: str) -> list[Disagreement]:
    """Find the figures far from the median of the others of their table."""
    if len(values) < _LEAST_ROWS:
        return []
    numbers = np.array(list(values.values()))
    median = float(np.median(numbers))
    mad = max(float(np.median(np.abs(numbers - median))), _LEAST_MAD * abs(median))
    found = []
    for row, value in values.items():
        z = _Z_OF_MAD * (value - median) / mad
        if abs(z) > MAX_Z:
            text = f"{format_significant(value)} {what}, the median of the section is "
            text += f"{format_significant(median)} (robust z {z:.1f})"
            found.append(Disagreement(row, text))
    return found


def find_energy_against_gmac(
    rows: Sequence[tuple[str, str, float, float]],
) -> list[Disagreement]:
    """Find systems that took clearly more energy than one that computes clearly more.

    Args:
        rows: Key, family, kWh and GMAC of each system.
    """
    found = []
    for key, family, kwh, gmac in rows:
        against = [
            (other_kwh, other, other_gmac)
            for other, other_family, other_kwh, other_gmac in rows
            if other_family == family
            and kwh > _MORE_ENERGY * other_kwh
            and gmac < _LESS_GMAC * other_gmac
        ]
        if against:
            other_kwh, other, other_gmac = min(against)
            text = (
                f"{kwh:g} kWh with {gmac:g} GMAC, {other} {other_kwh:g} kWh with {other_gmac:g} "
                f"GMAC: {kwh / other_kwh:.2f} times the energy for {gmac / other_gmac:.2f} times "
                "the work"
            )
            found.append(Disagreement(key, text))
    return found


def find_wrong_averages(rows: Sequence[Training]) -> list[Disagreement]:
    """Find averages that are not the mean of the lists of their row, within rounding of all."""
    found = []
    for row in rows:
        for key, title in (("eer_percent", "EER"), ("min_dcf", "minDCF")):
            lists = [getattr(measures, key) for measures in row.lists.values()]
            average: Printed | None = getattr(row.average, key)
            if average is None or not lists or None in lists:
                continue
            mean = float(np.mean([figure.value for figure in lists]))
            slack = average.half_unit + float(np.mean([figure.half_unit for figure in lists]))
            if not _agree(average.value, mean, slack):
                text = f"average {title} {average.text}, the mean of its {len(lists)} lists is "
                found.append(Disagreement(row.model, f"{text}{mean:.4f}"))
    return found


def find_two_prints(study: Study) -> list[Disagreement]:
    """Find measures of Table 2 that are not those of the same list in Table 1.

    Of each system those of fp32, or of the only precision that has figures.
    """
    trainings = {row.model: row for row in study.trainings}
    found = []
    for row in study.inferences:
        training = trainings.get(row.model)
        others = [r for r in study.inferences if (r.model, r.trials) == (row.model, row.trials)]
        full = next((r for r in others if r.precision == _FULL and _has_figures(r)), None)
        if training is None or row.trials not in training.lists or (full not in (None, row)):
            continue
        theirs: Measures = training.lists[row.trials]
        for key, title in (("eer_percent", "EER"), ("min_dcf", "minDCF")):
            a, b = getattr(row.measures, key), getattr(theirs, key)
            if a and b and not _agree(a.value, b.value, a.half_unit + b.half_unit):
                text = f"{title} {a.text} ({row.trials}), {b.text} in Table 1"
                found.append(Disagreement(inference_key(row), text))
    return found


def find_slow_precisions(study: Study) -> list[Disagreement]:
    """Find extractions in a lower precision that took longer, or more energy, than in fp32."""
    found = []
    for row, other in _list_lower(study):
        for key, unit in (("duration_s", ""), ("energy_kwh", " kWh")):
            a, b = getattr(row, key), getattr(other, key)
            if a and b and a.value > b.value:
                text = f"{a.text}{unit} in {row.precision}, {b.text}{unit} in {_FULL}"
                if key == "duration_s" and row.energy_kwh and other.energy_kwh:
                    ratio = row.energy_kwh.value / other.energy_kwh.value
                    text += f": longer, for {ratio:.2f} times the energy"
                found.append(Disagreement(inference_key(row), text))
    return found


def find_other_savings(study: Study) -> list[Disagreement]:
    """Find extractions whose saving against fp32 is not in the range that the text gives."""
    low, high = study.about.stated.saving_percent
    found = []
    for row, other in _list_lower(study):
        if row.energy_kwh and other.energy_kwh:
            saving = 100 * (1 - row.energy_kwh.value / other.energy_kwh.value)
            if not low - 0.5 <= saving < high + 0.5:  # the text gives whole percents
                text = f"saves {saving:.0f} % of the energy in {_FULL}, the text gives an average "
                found.append(Disagreement(inference_key(row), f"{text}of {low:g} to {high:g} %"))
    return found


def _list_lower(study: Study) -> list[tuple[Inference, Inference]]:
    """List the rows of a lower precision, each with that of fp32."""
    full = {(r.model, r.trials): r for r in study.inferences if r.precision == _FULL}
    lower = [row for row in study.inferences if row.precision != _FULL]
    keys = [(row, (row.model, row.trials)) for row in lower]
    return [(row, full[key]) for row, key in keys if key in full]


def explain_stated_factor(factors: Sequence[float], stated: float) -> str | None:
    """Say how the implied gCO2/kWh lie to the stated one; None where they are near it."""
    if not factors:
        return None
    median = float(np.median(factors))
    if 1 / _FAR_FROM_STATED <= median / stated <= _FAR_FROM_STATED:
        return None
    low, high = (format_significant(end) for end in (min(factors), max(factors)))
    return (
        f"the text gives about {stated:g} gCO2/kWh, the rows imply {low} to {high} (median "
        f"{format_significant(median)}); a factor that varies in time may differ between rows"
    )


def inference_key(row: Inference) -> str:
    """Name a row of Table 2."""
    return f"{row.model} {row.trials} {row.precision}"


def _has_figures(row: Inference) -> bool:
    return row.measures.eer_percent is not None


def _agree(a: float, b: float, slack: float) -> bool:
    # Two roundings of one number: the intervals overlap. Those that only touch do not.
    return abs(a - b) < slack * (1 - 1e-9)
