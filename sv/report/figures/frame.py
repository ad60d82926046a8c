"""What the figures share: colours and marks, axes in decades, legends, labels of points."""

import itertools
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

COLUMN_INCHES = 3.5  # a column of a two-column page; nothing is drawn to be made smaller
# Told apart by the colour-blind and in grey print. Okabe and Ito, "Color Universal Design", 2008;
# without yellow, which is too light for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
MARKER_POINTS = 5.0
LEGEND_ROW_INCHES = 0.155
_LETTER_INCHES = 0.054  # of a legend below
# Ticks in a decade, of an axis of fewer decades than this.
_TICKS = ((0.8, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (1.2, (1.0, 2.0, 5.0)), (2.5, (1.0, 3.0)),
          (np.inf, (1.0,)))  # fmt: skip
_MAX_PLAIN = 1e4
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Place = tuple[float, float]


@dataclass
class Drawing:
    """A figure, and what there is to say about it besides its picture.

    Attributes:
        figure: Where to draw, of an Agg canvas; a figure without axes is not written.
        stem: Of its files.
        caption: What it shows, and what its lines and marks mean.
        paths: The files that were written.
        left_out: A line for each thing that it does not show.
        hover: Texts that the pointer shows in an SVG, by the gid of an artist: one for all of it,
            or one for each of its markers.
    """

    figure: Figure
    stem: str
    caption: str = ""
    paths: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    hover: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add_hover(self, artist: Artist, *texts: str) -> None:
        """Show a text at an artist, or one at each of its markers."""
        gid = f"hover-{len(self.hover)}"
        artist.set_gid(gid)
        self.hover[gid] = texts


# Lines, markers and axes.


def get_line_style(index: int) -> dict[str, Any]:
    """Return colour, dashes and marker of a line; neighbours differ in all, 28 lines in one."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def set_log_axis(
    axes: Axes, which: str, values: Sequence[float], room: float, least_decades: float
) -> None:
    """Make an axis (``x`` or ``y``) logarithmic, with plain numbers where they are short.

    Args:
        axes: To which it belongs.
        which: It.
        values: What is drawn, above 0.
        room: Added on both sides, as a part of what the values span.
        least_decades: What the axis spans at least: equal values must not look far apart.
    """
    logs = np.log10(values)
    half = max(np.ptp(logs) * (0.5 + room), least_decades / 2)
    middle = (logs.min() + logs.max()) / 2
    limits = 10 ** (middle - half), 10 ** (middle + half)
    subs = next(subs for most, subs in _TICKS if 2 * half < most)
    axes.set(**{f"{which}scale": "log", f"{which}lim": limits})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    plain = limits[0] >= 1 / _MAX_PLAIN and limits[1] <= _MAX_PLAIN  # all of its ticks, or none
    axis.set_major_formatter(FuncFormatter(lambda value, _: _format_tick(value, plain=plain)))


def _format_tick(value: float, *, plain: bool) -> str:
    if plain:
        return f"{value:.6g}"
    digits, power = f"{value:.1e}".replace(".0", "").split("e")
    factor = "" if digits == "1" else f"{digits}\u00d7"
    return f"{factor}10{str(int(power)).translate(_RAISED)}"


# Legends.


def build_handle(label: str, **style: Any) -> Artist:
    """Build an entry of a legend; without a ``linestyle`` it is a marker alone."""
    return Line2D([], [], **{"linestyle": "", "markersize": 5, "label": label, **style})


def add_legend_below(
    axes: Axes,
    handles: Sequence[Artist],
    title: str = "",
    *,
    below_inches: float = 0.38,
    left_inches: float | None = None,
) -> float:
    """Write a legend below the axes, in as many columns as fit.

    Args:
        axes: The legend begins below it and ends at its right edge.
        handles: Its entries.
        title: Above it.
        below_inches: From the axes down to the legend, past tick and axis labels.
        left_inches: Where it begins instead, from the left edge of the figure.

    Returns:
        How high it is, in inches.
    """
    figure, box = axes.figure, axes.get_position()
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
    return LEGEND_ROW_INCHES * (math.ceil(len(handles) / columns) + bool(title))


# Labels of points, put where they overlap least.

# A label may lie in any of 16 directions, at the marker or, with a line to it, further away.
_DISTANCES_POINTS = np.array([5, 8, 12, 18, 26, 36, 48], dtype=float)
_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).round(9)
_LINE_FROM_POINTS = 7.0  # nearer labels are understood without a line
_TEXT_COST = 4.0  # of a square point of a text or marker under a label
_LINE_COST = 2.0  # the same of a drawn line
_LINE_STEP_POINTS = 3.0
_ROUNDS = 4  # nothing moves any more in the fourth, with the study's 15 systems
_MIN_PREFIX = 4  # letters
_MOST_NAMED = 6  # points that all have their names next to them


def shorten_names(names: list[str]) -> tuple[list[str], str]:
    """Cut the letters that all names begin with, and return them too; "" where there are none."""
    shared = os.path.commonprefix(names)
    prefix = "".join(itertools.takewhile(str.isalpha, shared))
    if len(set(names)) < 2 or len(prefix) < _MIN_PREFIX or prefix in names:
        return list(names), ""
    return [name.removeprefix(prefix) for name in names], prefix


def choose_labels(names: list[str], named: Collection[int]) -> tuple[list[str], str]:
    """Return a label for each point of a figure, and the key of those that are numbers.

    Many names would lie on each other: then only those ``named`` have theirs.
    """
    short, _ = shorten_names(names)
    if len(names) <= _MOST_NAMED:
        return short, ""
    numbered = [index for index in range(len(names)) if index not in named]
    numbers = {index: f"{number}" for number, index in enumerate(numbered, 1)}
    labels = [numbers.get(index, name) for index, name in enumerate(short)]
    # A number stays on the line of its name.
    return labels, ", ".join(f"{number}\u00a0{short[index]}" for index, number in numbers.items())


def place_labels(
    axes: Axes, points: list[Place], labels: list[str], lines: list[list[Place]]
) -> None:
    """Write a label at every point; the axes must have their final place and limits.

    Each label in turn takes its best place among those that the others leave, for some rounds:
    off other texts, markers and lines, nearer to its own marker than to others, inside the axes.

    Args:
        axes: Where the points are drawn, of a figure on an Agg canvas, which measures the text.
        points: In data units.
        labels: One for each point.
        lines: Lines that are drawn, each as its corners in data units.
    """
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    pixels = axes.figure.dpi / 72
    bounds = axes.get_window_extent(renderer).get_points()[None]
    centres = axes.transData.transform(points)  # (points, 2)
    radius = (MARKER_POINTS / 2 + 1) * pixels
    markers = np.stack([centres - radius, centres + radius], axis=1)  # (points, 2 corners, 2)
    written = [  # not so near that two would be read as one
        text.get_window_extent(renderer).padded(3 * pixels).get_points() for text in axes.texts
    ]
    drawn = _cover_lines(axes, lines, pixels)
    texts = [
        axes.annotate(
            label, point, fontsize=6.5, color="0.15", textcoords="offset points", xytext=(0, 0),
            ha="center", va="center", zorder=5,
        )
        for label, point in zip(labels, points, strict=True)
    ]  # fmt: skip
    sizes = np.array([text.get_window_extent(renderer).size for text in texts]) + 1.5 * pixels
    placed: dict[int, np.ndarray] = {}  # label: its corners
    offsets = np.zeros_like(centres)
    distances = np.repeat(_DISTANCES_POINTS, len(_DIRECTIONS))
    steps = _DISTANCES_POINTS[:, None, None] * _DIRECTIONS * pixels
    for _ in range(_ROUNDS):
        for i, (centre, size) in enumerate(zip(centres, sizes, strict=True)):
            # The label's edge, not its middle, is at the distance.
            candidates = (steps + np.sign(_DIRECTIONS.round(6)) * size / 2).reshape(-1, 2)
            middles = centre + candidates
            boxes = np.stack([middles - size / 2, middles + size / 2], axis=1)  # (places, 2, 2)
            others = np.array([*markers, *written, *(box for j, box in placed.items() if j != i)])
            areas = _TEXT_COST * _overlap(boxes, others) + _LINE_COST * _overlap(boxes, drawn)
            areas += 10 * (size.prod() - _overlap(boxes, bounds))
            outside = np.maximum(boxes[:, None, 0] - centres, centres - boxes[:, None, 1])
            apart = np.hypot(*np.moveaxis(np.maximum(outside, 0), -1, 0)) / pixels
            nearer = np.maximum(apart[:, [i]] + 3 - np.delete(apart, i, axis=1), 0).sum(axis=1)
            costs = distances + areas / pixels**2 + 12 * nearer
            best = int(np.argmin(costs.round(6)))  # the first of equals
            offsets[i], placed[i] = candidates[best], boxes[best]
    for text, point, offset, size in zip(texts, points, offsets, sizes, strict=True):
        text.set_position(tuple(offset / pixels))
        edge = offset - np.clip(offset, -size / 2, size / 2)  # nearest point of the label
        if np.hypot(*edge) > _LINE_FROM_POINTS * pixels:
            axes.annotate(
                "", point, xytext=tuple(edge / pixels), textcoords="offset points", zorder=3,
                arrowprops={"arrowstyle": "-", "color": "0.3", "linewidth": 0.5, "shrinkA": 0},
            )  # fmt: skip


def _cover_lines(axes: Axes, lines: list[list[Place]], pixels: float) -> np.ndarray:
    """Cover drawn lines by small boxes: (boxes, 2 corners, 2) in pixels."""
    boxes = [np.zeros((0, 2, 2))]
    for line in lines:
        corners = axes.transData.transform(np.array(line, dtype=float))
        for a, b in zip(corners, corners[1:], strict=False):
            steps = max(1, int(np.hypot(*(b - a)) / (_LINE_STEP_POINTS * pixels)))
            ends = a + (b - a) * np.linspace(0, 1, steps + 1)[:, None]
            low, high = np.minimum(ends[:-1], ends[1:]), np.maximum(ends[:-1], ends[1:])
            boxes.append(np.stack([low - 0.5 * pixels, high + 0.5 * pixels], axis=1))
    return np.concatenate(boxes)


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the area that each box shares with the others together: (boxes,)."""
    low = np.maximum(boxes[:, None, 0], others[:, 0])
    high = np.minimum(boxes[:, None, 1], others[:, 1])
    return np.maximum(high - low, 0).prod(axis=-1).sum(axis=1)
