"""What several figures share: axes in decades, legends above the axes, remarks below them."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from sv.report.tables.evidence import list_some
from sv.score.record import ScoredList

COLUMN_INCHES = 3.5  # a column of a two-column page; nothing is drawn to be made smaller
BAR = {"color": "0.62", "linewidth": 0.6, "zorder": 1.5}  # of an interval
_LEGEND_ROW_INCHES = 0.155
_LETTER_INCHES = 0.054  # of a legend below
_REMARK_POINTS = 6.0
_REMARK_CHARACTERS = 72  # of a line as wide as the axes
# Ticks in a decade, of an axis of fewer decades than this.
_TICKS = ((0.8, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (1.2, (1.0, 2.0, 5.0)), (2.5, (1.0, 3.0)),
          (np.inf, (1.0,)))  # fmt: skip
_MAX_PLAIN = 1e4


def widen_log(values: Sequence[float], room: float, least_decades: float) -> tuple[float, float]:
    """Give limits of a logarithmic axis around values above 0.

    Args:
        values: What is drawn.
        room: Added on both sides, as a part of what the values span.
        least_decades: What the axis spans at least: equal values must not look far apart.
    """
    logs = np.log10(np.array(values, dtype=float))
    middle, half = (logs.min() + logs.max()) / 2, np.ptp(logs) / 2
    half = max(half * (1 + 2 * room), least_decades / 2)
    return float(10 ** (middle - half)), float(10 ** (middle + half))


def set_log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Make an axis (``x`` or ``y``) logarithmic, with plain numbers where they are short."""
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(low, high)
    axis: Axis = getattr(axes, f"{which}axis")
    decades = np.log10(high / low)
    subs = next(subs for most, subs in _TICKS if decades < most)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _format_tick(value)))


def _format_tick(value: float) -> str:
    if 1 / _MAX_PLAIN <= value <= _MAX_PLAIN:
        return f"{value:.6g}"
    digits, power = f"{value:.1e}".replace(".0", "").split("e")
    factor = "" if digits == "1" else f"{digits}\\times"
    return f"${factor}10^{{{int(power)}}}$"


def draw_bar(
    axes: Axes, low: tuple[float, float], high: tuple[float, float]
) -> list[tuple[float, float]]:
    """Draw an interval between two places in data units; give it as a line."""
    axes.plot(*zip(low, high, strict=True), **BAR)
    return [low, high]


def build_handle(label: str, **style: Any) -> Line2D:
    """Build an entry of a legend; without a ``linestyle`` it is a marker alone."""
    return Line2D([], [], **{"linestyle": "", "markersize": 5, "label": label, **style})


def add_legend_rows(figure: Figure, axes: Axes, rows: Sequence[Sequence[Any]]) -> None:
    """Write legends above the axes, one a row, the first on top; empty rows take no place."""
    height = axes.get_position().height * figure.get_figheight()
    filled = [row for row in rows if row]
    for number, handles in enumerate(reversed(filled)):
        above = 1.0 + (0.02 + number * _LEGEND_ROW_INCHES) / height
        figure.legend(
            handles=list(handles), loc="lower left", bbox_to_anchor=(0, above),
            ncols=len(handles), bbox_transform=axes.transAxes, handletextpad=0.3,
            columnspacing=1.0, borderpad=0.1, borderaxespad=0.1, handlelength=1.6,
        )  # fmt: skip


def add_legend_below(
    figure: Figure,
    axes: Axes,
    handles: Sequence[Any],
    title: str,
    *,
    below_inches: float = 0.38,
    left_inches: float | None = None,
) -> float:
    """Write a legend below the axes, in as many columns as fit.

    Args:
        figure: What is drawn on.
        axes: The legend begins below it and ends at its right edge.
        handles: Its entries.
        title: Above it; "" for none.
        below_inches: From the axes down to the legend, past tick and axis labels.
        left_inches: Where it begins instead, from the left edge of the figure.

    Returns:
        How high it is, in inches.
    """
    box = axes.get_position()
    left = box.x0 if left_inches is None else left_inches / figure.get_figwidth()
    width_inches = (box.x1 - left) * figure.get_figwidth()
    longest = max(len(handle.get_label()) for handle in handles)
    column_inches = 0.42 + _LETTER_INCHES * longest
    columns = max(1, min(len(handles), int(width_inches / column_inches)))
    figure.legend(
        handles=list(handles), title=title or None, fontsize=6.5, title_fontsize=6.5,
        loc="upper left",
        bbox_to_anchor=(left, box.y0 - below_inches / figure.get_figheight()), ncols=columns,
        bbox_transform=figure.transFigure, handlelength=2.4, columnspacing=1.0, borderpad=0.1,
        borderaxespad=0.0, alignment="left",
    )  # fmt: skip
    return _LEGEND_ROW_INCHES * (math.ceil(len(handles) / columns) + bool(title))


def add_remarks(figure: Figure, axes: Axes, remarks: Sequence[str], *, below_inches: float) -> None:
    """Write remarks below the axes, each from the start of a line.

    Args:
        figure: What is drawn on.
        axes: As wide as the remarks.
        remarks: What a reader must know of the figure.
        below_inches: From the axes down to the first line, past tick and axis labels.
    """
    box = axes.get_position()
    width_inches = box.width * figure.get_figwidth()
    characters = int(_REMARK_CHARACTERS * width_inches / (0.86 * COLUMN_INCHES))
    lines = [line for remark in remarks for line in textwrap.wrap(remark, characters)]
    if lines:
        y = box.y0 - below_inches / figure.get_figheight()
        figure.text(
            box.x0, y, "\n".join(lines), va="top", ha="left", fontsize=_REMARK_POINTS,
            color="0.25", linespacing=1.25,
        )  # fmt: skip


def say_lacking(scores: Sequence[tuple[str, ScoredList]], kind: str) -> list[str]:
    """Say which systems have metrics of a trial list and no file of ``kind`` beside them."""
    if not scores:
        return []
    stem = scores[0][1].path.stem  # of the same list: the same in every system
    return [f"no {stem}.{kind}.json of {list_some([name for name, _ in scores])}"]
