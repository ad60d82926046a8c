"""Measures by condition: the trials of each pair of values (gender, language, duration...).

A mean over all speakers hides what a system does to some of them. So each condition has its own
EER and its error rates at the one threshold that all speakers get: the EER threshold of the whole
list.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sv.errors import SvError, UsageError
from sv.files import read_text
from sv.kaldi.data_dir import read_table
from sv.kaldi.trials import Trials
from sv.score.metrics import (
    P_TARGETS,
    compute_eer,
    compute_error_curve,
    compute_rates,
    find_min_dcf,
)
from sv.score.trials import encode_values

# Doddington's rule of 30: with 30 errors the true rate is within 30 % of the one seen, at 90 %
# confidence ("The NIST speaker recognition evaluation", Speech Communication 31, 2000).
MIN_ERRORS = 30


@dataclass(frozen=True)
class Condition:
    """One row. Rates are percent, None where ``reason`` says why.

    ``miss_percent`` and ``fa_percent`` are at the EER threshold of the whole list; a rate of a
    kind of trial that the condition lacks is None without a reason.
    """

    name: str
    trials: int
    targets: int
    nontargets: int
    eer_percent: float | None
    min_dcf: float | None
    miss_percent: float | None
    fa_percent: float | None
    reason: str


def read_utterance_table(path: Path, column: str | None = None) -> dict[str, str]:
    """Read one value for each utterance (or speaker).

    Args:
        path: ``.tsv`` or ``.csv`` with a heading line, the first column the utterance; any
            other name is Kaldi's ``utterance value``.
        column: Which column of a table with a heading; None: its second, if it has but two.

    Raises:
        SvError: The file is not such a table, or an utterance stands twice.
        UsageError: No such column, or several and none was asked for.
    """
    if path.suffix not in (".tsv", ".csv"):
        return read_table(path)
    lines = read_text(path).splitlines()
    rows = list(csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ","))
    if not rows or len(rows[0]) < 2:
        raise SvError(f"{path}: expected a heading line with at least two columns")
    heading = rows[0]
    if column is None and len(heading) > 2:
        raise UsageError(f"{path}: say which column with --by: {', '.join(heading[1:])}")
    if column is not None and column not in heading[1:]:
        raise UsageError(f"{path}: no column '{column}' (there are {', '.join(heading[1:])})")
    place = 1 if column is None else heading.index(column)
    table: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(heading):
            raise SvError(f"{path}: line {number}: {len(row)} fields, not {len(heading)}")
        if row[0] in table:
            raise SvError(f"{path}: line {number}: '{row[0]}' stands twice")
        table[row[0]] = row[place]
    return table


def name_bins(edges: Sequence[float]) -> list[str]:
    """Name the intervals between rising edges: 2, 4 give ``<2``, ``2-4`` and ``>=4``."""
    between = [f"{a:g}-{b:g}" for a, b in zip(edges, edges[1:], strict=False)]
    return [f"<{edges[0]:g}", *between, f">={edges[-1]:g}"]


def bin_values(table: dict[str, str], edges: Sequence[float]) -> dict[str, str]:
    """Replace numbers by the name of their interval.

    Raises:
        SvError: A value is no number.
    """
    names, binned = name_bins(edges), {}
    for key, text in table.items():
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise SvError(f"'{key}' has the value '{text}', which is no number")
        binned[key] = names[int(np.searchsorted(edges, value, side="right"))]
    return binned


def measure_conditions(
    trials: Trials,
    scores: np.ndarray,
    table: dict[str, str],
    *,
    order: Sequence[str] = (),
    min_errors: int = MIN_ERRORS,
) -> list[Condition]:
    """Measure all trials, those within and across values, and those of each pair of values.

    Args:
        trials: The list.
        scores: (trials,) finite floats.
        table: Value of each utterance.
        order: Values in the order of the rows; others follow in their own.
        min_errors: A measure that rests on fewer errors is not given.

    Raises:
        SvError: The table lacks utterances of the list, or the list has one kind of trial.
    """
    values, codes = encode_values(trials, table, "{} are not in the table ({})", order)
    _, threshold = compute_eer(compute_error_curve(scores, trials.is_target))
    sides = codes[trials.enrol], codes[trials.test]
    low, high = np.minimum(*sides), np.maximum(*sides)
    # In the order of the rows: within a value before across.
    pairs = np.ravel_multi_index((low != high, low, high), (2, len(values), len(values)))
    chosen = [("all", np.arange(len(pairs)))]
    if len(values) > 1:
        chosen += [("same", np.flatnonzero(low == high)), ("cross", np.flatnonzero(low != high))]
    # One sort, not a mask for each of the thousands of pairs that a hundred languages make.
    by_pair = np.argsort(pairs, kind="stable")
    _, starts = np.unique(pairs[by_pair], return_index=True)
    for rows in np.split(by_pair, starts[1:]):
        chosen.append((f"{values[low[rows[0]]]} / {values[high[rows[0]]]}", rows))
    return [
        _measure(name, scores[rows], trials.is_target[rows], threshold, min_errors)
        for name, rows in chosen
        if len(rows)
    ]


def _measure(
    name: str, scores: np.ndarray, is_target: np.ndarray, threshold: float, min_errors: int
) -> Condition:
    targets = int(np.count_nonzero(is_target))
    nontargets = len(scores) - targets
    accepted = scores >= threshold
    miss = 100 * np.count_nonzero(~accepted & is_target) / targets if targets else None
    false_alarm = 100 * np.count_nonzero(accepted & ~is_target) / nontargets if nontargets else None
    eer_percent = min_dcf = None
    if not targets or not nontargets:
        reasons = [f"no {'nontarget' if targets else 'target'} trials"]
    else:
        curve = compute_error_curve(scores, is_target)
        eer, _ = compute_eer(curve)
        cost, at = find_min_dcf(curve, P_TARGETS[0])
        miss_at, fa_at = (float(rate[0]) for rate in compute_rates(curve, np.array([at])))
        # The EER needs both kinds of errors; the cost is as good as all of its errors.
        fewest = eer * min(targets, nontargets)
        errors = miss_at * targets + fa_at * nontargets
        reasons = []
        if fewest >= min_errors:
            eer_percent = 100 * eer
        else:
            reasons.append(f"EER: {fewest:.0f} errors of a kind, fewer than {min_errors}")
        if errors >= min_errors:
            min_dcf = cost
        else:
            reasons.append(f"minDCF: {errors:.0f} errors, fewer than {min_errors}")
    counts = len(scores), targets, nontargets
    return Condition(name, *counts, eer_percent, min_dcf, miss, false_alarm, "; ".join(reasons))
