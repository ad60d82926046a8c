"""The figures of a published study, as printed: <egs>/study/{study.toml,table1.csv,table2.csv}.

Lines of a CSV file that begin with # are comments; an empty cell is a figure that was not printed.
Trial lists and precisions have the recipe's names, so that rows can be compared with ours; ranks
say whether both order the systems alike.
"""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from sv.config import read_config
from sv.errors import SvError
from sv.files import read_text

LEAST_SYSTEMS = 4  # of three, 1 in 3 orders has a correlation of 1 or -1 by chance
_RESAMPLES = 9999  # of the orders; all of them where there are no more
_SEED = 0
_Z = 1.959964  # 95 %, as all intervals of the report
_LIST_PREFIX = "eer_percent_"  # of table1.csv's columns: one pair for each trial list
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DURATION = re.compile(r"(\d+):([0-5]\d):([0-5]\d)")


@dataclass(frozen=True)
class Printed:
    """A figure with the digits as printed."""

    text: str
    value: float


@dataclass(frozen=True)
class About:
    """The content of study.toml: ``energy`` says what was metered, in words, ``gpu`` on what."""

    title: str
    energy: str
    gpu: str


@dataclass(frozen=True)
class Measures:
    """EER in % and minDCF of a trial list, or their averages."""

    eer_percent: Printed | None
    min_dcf: Printed | None


@dataclass(frozen=True)
class Training:
    """A row of Table 1. ``gmac`` is ours, of one crop of 350 frames, and was not published."""

    model: str
    study_name: str
    section: str
    parameters_m: Printed | None
    gmac: Printed | None
    average: Measures
    energy_kwh: Printed | None
    co2_kg: Printed | None
    lists: dict[str, Measures]


@dataclass(frozen=True)
class Inference:
    """A row of Table 2; ``trials`` is the list of the measures, its test set was embedded."""

    model: str
    study_name: str
    trials: str
    precision: str
    measures: Measures
    energy_kwh: Printed | None
    co2_kg: Printed | None
    duration_s: Printed | None


@dataclass(frozen=True)
class Study:
    """A study: both tables in printed order. ``lists`` are the trial lists of Table 1."""

    folder: Path
    about: About
    lists: tuple[str, ...]
    trainings: tuple[Training, ...]
    inferences: tuple[Inference, ...]


def read_study(folder: Path) -> Study:
    """Read a study's folder.

    Raises:
        SvError: A file is missing, or a row, column or figure is not valid; the message names
            the line.
    """
    about = read_config(folder / "study.toml", About)
    path = folder / "table1.csv"
    keys = ("model", "study_name", "section", "parameters_m", "gmac", "eer_percent", "min_dcf")
    columns, rows = _read_rows(path, (*keys, "energy_kwh", "co2_kg"))
    lists = tuple(key.removeprefix(_LIST_PREFIX) for key in columns if key.startswith(_LIST_PREFIX))
    for name in lists:
        if f"min_dcf_{name}" not in columns:
            raise SvError(f"{path}: no column min_dcf_{name} for {_LIST_PREFIX}{name}")
    trainings = tuple(_build_training(row, lists, where) for where, row in rows)
    _check_unique(path, [row.model for row in trainings])
    path = folder / "table2.csv"
    keys = ("model", "study_name", "trials", "precision", "eer_percent", "min_dcf", "energy_kwh")
    _, rows = _read_rows(path, (*keys, "co2_kg", "duration"))
    inferences = tuple(_build_inference(row, where) for where, row in rows)
    _check_unique(path, [f"{row.model} {row.trials} {row.precision}" for row in inferences])
    return Study(folder, about, lists, trainings, inferences)


def _read_rows(
    path: Path, required: tuple[str, ...]
) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Read a CSV file: its columns, and each row with its place for messages."""
    lines = list(enumerate(read_text(path).splitlines(), 1))
    lines = [(number, line) for number, line in lines if line.strip() and line[0] != "#"]
    # Line by line: a quote left open spoils its own line and no other.
    grid = [next(csv.reader([line])) for _, line in lines]
    if len(grid) < 2:
        raise SvError(f"{path}: no rows: expected a line of column names, then one a system")
    columns = grid[0]
    missing = [key for key in required if key not in columns]
    if missing or len(set(columns)) < len(columns):
        what = f"no column {', '.join(missing)}" if missing else "a column occurs twice"
        raise SvError(f"{path}: {what} in line {lines[0][0]}")
    rows = []
    for (number, _), fields in zip(lines[1:], grid[1:], strict=True):
        if len(fields) != len(columns):
            raise SvError(
                f"{path}: line {number} has {len(fields)} fields, expected {len(columns)}"
            )
        row = dict(zip(columns, (field.strip() for field in fields), strict=True))
        rows.append((f"{path}: line {number}", row))
        for key in ("model", "study_name", "section", "trials", "precision"):
            if row.get(key) == "":
                raise SvError(f"{path}: line {number} has no {key}")
    return columns, rows


def _build_training(row: dict[str, str], lists: tuple[str, ...], where: str) -> Training:
    numbers = ("parameters_m", "gmac", "energy_kwh", "co2_kg")
    return Training(
        model=row["model"],
        study_name=row["study_name"],
        section=row["section"],
        average=_build_measures(row, "", where),
        lists={name: _build_measures(row, f"_{name}", where) for name in lists},
        **{key: _parse_number(row[key], f"{where}: {key}") for key in numbers},
    )


def _build_inference(row: dict[str, str], where: str) -> Inference:
    duration, match = row["duration"], _DURATION.fullmatch(row["duration"])
    if duration and match is None:
        raise SvError(f"{where}: duration is '{duration}', expected hh:mm:ss or nothing")
    hours, minutes, seconds = map(int, match.groups()) if match else (0, 0, 0)
    duration_s = float(3600 * hours + 60 * minutes + seconds)
    return Inference(
        **{key: row[key] for key in ("model", "study_name", "trials", "precision")},
        measures=_build_measures(row, "", where),
        duration_s=Printed(duration, duration_s) if match else None,
        **{key: _parse_number(row[key], f"{where}: {key}") for key in ("energy_kwh", "co2_kg")},
    )


def _build_measures(row: dict[str, str], suffix: str, where: str) -> Measures:
    return Measures(
        *(
            _parse_number(row[f"{key}{suffix}"], f"{where}: {key}{suffix}")
            for key in ("eer_percent", "min_dcf")
        )
    )


def _parse_number(text: str, where: str) -> Printed | None:
    """Parse a figure above 0; empty is None."""
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)) or float(text) == 0:
        raise SvError(f"{where} is '{text}', expected a number above 0 or nothing")
    return Printed(text, float(text))


def _check_unique(path: Path, keys: list[str]) -> None:
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise SvError(f"{path}: {twice} has two rows")


# Rank correlation of two lists of figures over systems.


@dataclass(frozen=True)
class Rank:
    """Spearman's correlation; ``reason`` says why it, or ``interval`` and ``p_value``, are None."""

    systems: int
    rho: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    reason: str


def compute_rank(ours: Sequence[float], theirs: Sequence[float]) -> Rank:
    """Compute Spearman's rank correlation of figures of the same systems, in the same order.

    The interval is 95 %, Fisher's z with the variance (1 + rho^2 / 2) / (n - 3); there is none
    where |rho| is 1. The p-value is of a permutation test, two-sided: every order up to seven
    systems, else 9,999 random ones with a fixed seed.

    Source: Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and
        Spearman correlations", Psychometrika 65, 2000.
    """
    systems = len(ours)
    if systems < LEAST_SYSTEMS:
        reason = f"{systems} systems are too few for a rank correlation ({LEAST_SYSTEMS})"
        return Rank(systems, None, None, None, reason)
    ranks = [stats.rankdata(values) for values in (ours, theirs)]
    for who, values in zip(("ours", "published"), ranks, strict=True):
        if np.ptp(values) == 0:
            return Rank(systems, None, None, None, f"all {who} figures are the same")
    x, y = (np.asarray(values) - np.mean(values) for values in ranks)
    scale = math.sqrt(float(x @ x) * float(y @ y))
    rho = max(-1.0, min(1.0, round(float(x @ y) / scale, 12)))
    tested = stats.permutation_test(
        (x,),
        lambda order, axis: np.sum(order * y, axis=axis) / scale,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(_SEED),
    )
    p_value = float(tested.pvalue)
    if abs(rho) == 1:
        return Rank(systems, rho, None, p_value, f"no interval at a correlation of {rho:.0f}")
    half = _Z * math.sqrt((1 + rho**2 / 2) / (systems - 3))
    low, high = (math.tanh(math.atanh(rho) + side * half) for side in (-1, 1))
    return Rank(systems, rho, (low, high), p_value, "")
