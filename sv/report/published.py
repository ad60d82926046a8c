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
_FIGURES = ("eer_percent", "min_dcf", "energy_kwh", "co2_kg")  # of both tables
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
class Published:
    """A row of either table; ``trials`` and ``precision`` are empty in one of Table 1.

    ``figures`` have the names of the CSV file's columns: ``eer_percent`` and ``min_dcf`` (in Table
    1 averages, with ``_<trials>`` those of a list), ``energy_kwh``, ``co2_kg``; of Table 1
    ``parameters_m`` and ``gmac`` (ours, of one crop of 350 frames, not published); of Table 2
    ``duration_s``. None was not printed.
    """

    model: str
    study_name: str
    trials: str
    precision: str
    figures: dict[str, Printed | None]


@dataclass(frozen=True)
class Study:
    """A study: both tables in printed order. ``lists`` are the trial lists of Table 1."""

    about: About
    lists: tuple[str, ...]
    trainings: tuple[Published, ...]
    inferences: tuple[Published, ...]


def read_study(folder: Path) -> Study:
    """Read a study's folder.

    Raises:
        SvError: A file is missing, or a row, column or figure is not valid; the message names
            the line.
    """
    about = read_config(folder / "study.toml", About)
    path = folder / "table1.csv"
    keys = ("parameters_m", "gmac", *_FIGURES)
    columns, rows = _read_rows(path, ("model", "study_name", "section"), keys)
    lists = tuple(key.removeprefix(_LIST_PREFIX) for key in columns if key.startswith(_LIST_PREFIX))
    for name in lists:
        if f"min_dcf_{name}" not in columns:
            raise SvError(f"{path}: no column min_dcf_{name} for {_LIST_PREFIX}{name}")
    keys += tuple(f"{key}_{name}" for name in lists for key in ("eer_percent", "min_dcf"))
    trainings = _build_rows(path, rows, keys)
    path = folder / "table2.csv"
    words = ("model", "study_name", "trials", "precision")
    _, rows = _read_rows(path, words, (*_FIGURES, "duration"))
    return Study(about, lists, trainings, _build_rows(path, rows, _FIGURES))


def _read_rows(
    path: Path, words: tuple[str, ...], figures: tuple[str, ...]
) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Read a CSV file: its columns, and each row, which has all ``words``, with its place."""
    lines = list(enumerate(read_text(path).splitlines(), 1))
    lines = [(number, line) for number, line in lines if line.strip() and line[0] != "#"]
    # Line by line: a quote left open spoils its own line and no other.
    grid = [next(csv.reader([line])) for _, line in lines]
    if len(grid) < 2:
        raise SvError(f"{path}: no rows: expected a line of column names, then one a system")
    columns = grid[0]
    missing = [key for key in (*words, *figures) if key not in columns]
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
        for key in words:
            if not row[key]:
                raise SvError(f"{path}: line {number} has no {key}")
    return columns, rows


def _build_rows(
    path: Path, rows: list[tuple[str, dict[str, str]]], keys: tuple[str, ...]
) -> tuple[Published, ...]:
    built: dict[tuple[str, ...], Published] = {}
    for where, row in rows:
        figures = {key: _parse_number(row[key], f"{where}: {key}") for key in keys}
        if "duration" in row:
            figures["duration_s"] = _parse_duration(row["duration"], where)
        name = tuple(row[key] for key in ("model", "trials", "precision") if key in row)
        if name in built:
            raise SvError(f"{path}: {' '.join(name)} has two rows")
        words = (row["study_name"], row.get("trials", ""), row.get("precision", ""))
        built[name] = Published(row["model"], *words, figures)
    return tuple(built.values())


def _parse_number(text: str, where: str) -> Printed | None:
    """Parse a figure above 0; empty is None."""
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)) or float(text) == 0:
        raise SvError(f"{where} is '{text}', expected a number above 0 or nothing")
    return Printed(text, float(text))


def _parse_duration(text: str, where: str) -> Printed | None:
    if not text:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise SvError(f"{where}: duration is '{text}', expected hh:mm:ss or nothing")
    hours, minutes, seconds = map(int, match.groups())
    return Printed(text, float(3600 * hours + 60 * minutes + seconds))


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
    for who, values in {"ours": ours, "published": theirs}.items():
        if len(set(values)) == 1:
            return Rank(systems, None, None, None, f"all {who} figures are the same")
    rho = round(float(stats.spearmanr(ours, theirs).statistic), 12)
    x, y = (stats.rankdata(values) for values in (ours, theirs))
    tested = stats.permutation_test(
        (x,),
        lambda order, axis: np.sum(order * y, axis=axis),
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
