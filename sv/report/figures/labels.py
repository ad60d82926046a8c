"""Labels of points, put where they overlap least."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# A label may lie in any of 16 directions, at the marker or, with a line to it, further away.
_DISTANCES_POINTS = np.array([5, 8, 12, 18, 26, 36, 48], dtype=float)
_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).round(9)
_LINE_FROM_POINTS = 7.0  # nearer labels are understood without a line
_LINE_COST = 2.0  # of a square point of a drawn line under a label
_LINE_STEP_POINTS = 3.0
_ROUNDS = 4  # nothing moves any more in the fourth, with the study's 15 systems
_MIN_PREFIX = 4  # letters

Point = tuple[float, float]


def shorten_names(names: list[str]) -> tuple[list[str], str]:
    """Cut what all names begin with, letters only, and give it; "" where there is none."""
    first = min(names, key=len, default="")
    length = 0
    while length < len(first) and first[length].isalpha():
        if any(name[length] != first[length] for name in names):
            break
        length += 1
    if len(set(names)) < 2 or length < _MIN_PREFIX or any(len(name) == length for name in names):
        return list(names), ""
    return [name[length:] for name in names], first[:length]


def place_labels(
    figure: Figure,
    axes: Axes,
    points: list[Point],
    labels: list[str],
    *,
    marker_points: float,
    lines: list[list[Point]],
) -> None:
    """Write a label at every point; the axes must have their final place and limits.

    Each label in turn takes its best place among those that the others leave, for some rounds:
    off other labels, markers and lines, nearer to its own marker than to others, inside the axes.

    Args:
        figure: On an Agg canvas, which measures the text.
        axes: Where the points are drawn.
        points: In data units.
        labels: One for each point.
        marker_points: Size of a marker, in points.
        lines: Lines that are drawn, each as its corners in data units.
    """
    if not points:
        return
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    pixels = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    bounds = np.array([[[frame.x0, frame.y0], [frame.x1, frame.y1]]])
    centres = np.array([axes.transData.transform(point) for point in points])  # (points, 2)
    radius = (marker_points / 2 + 1) * pixels
    markers = np.stack([centres - radius, centres + radius], axis=1)  # (points, 2 corners, 2)
    drawn = _cover_lines(axes, lines, pixels)
    texts = [
        axes.annotate(
            label, point, fontsize=6.5, color="0.15", textcoords="offset points", xytext=(0, 0),
            ha="center", va="center", zorder=5,
        )
        for label, point in zip(labels, points, strict=True)
    ]  # fmt: skip
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = np.array([[extent.width, extent.height] for extent in extents]) + 1.5 * pixels
    placed: dict[int, np.ndarray] = {}  # label: its corners
    offsets = np.zeros_like(centres)
    distances = np.repeat(_DISTANCES_POINTS, len(_DIRECTIONS))
    for _ in range(_ROUNDS):
        for i, (centre, size) in enumerate(zip(centres, sizes, strict=True)):
            candidates = _list_offsets(size, pixels)  # (places, 2)
            middles = centre + candidates
            boxes = np.stack([middles - size / 2, middles + size / 2], axis=1)  # (places, 2, 2)
            others = np.array([*markers, *(box for j, box in placed.items() if j != i)])
            costs = distances + _overlap(boxes, others) / pixels**2
            costs += _LINE_COST * _overlap(boxes, drawn) / pixels**2
            costs += 10 * (size.prod() - _overlap(boxes, bounds)) / pixels**2
            apart = _gaps(boxes, centres) / pixels  # (places, points)
            own = apart[:, [i]] + 3
            costs += 12 * np.maximum(own - np.delete(apart, i, axis=1), 0).sum(axis=1)
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


def _cover_lines(axes: Axes, lines: list[list[Point]], pixels: float) -> np.ndarray:
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


def _list_offsets(size: np.ndarray, pixels: float) -> np.ndarray:
    """List places of a label's middle from its marker, nearest first: (places, 2) in pixels."""
    steps = _DISTANCES_POINTS[:, None, None] * _DIRECTIONS * pixels
    # The label's edge, not its middle, is at the distance.
    return (steps + np.sign(_DIRECTIONS.round(6)) * size / 2).reshape(-1, 2)


def _gaps(boxes: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Give the distance of every centre from every box, 0 inside: (boxes, centres)."""
    below, above = boxes[:, None, 0] - centres, centres - boxes[:, None, 1]
    return np.hypot(*np.moveaxis(np.maximum(np.maximum(below, above), 0), -1, 0))


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Give the area that each box shares with the others together: (boxes,)."""
    low = np.maximum(boxes[:, None, 0], others[:, 0])
    high = np.minimum(boxes[:, None, 1], others[:, 1])
    return np.maximum(high - low, 0).prod(axis=-1).sum(axis=1)
