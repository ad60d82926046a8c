"""Labels of points, put where they overlap least."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# A label may lie in any of 16 directions, at the marker or, with a line to it, further away.
_DISTANCES_POINTS = (5, 8, 12, 18, 26, 36, 48)
_DIRECTIONS = [
    np.array([np.cos(angle), np.sin(angle)])
    for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False).round(9)
]
_LINE_FROM_POINTS = 7.0  # nearer labels are understood without a line
_ROUNDS = 4  # nothing moves any more in the fourth, with the study's 15 systems


def place_labels(
    figure: Figure,
    axes: Axes,
    points: list[tuple[float, float]],
    labels: list[str],
    marker_points: float,
) -> None:
    """Write a label at every point; the axes must have their final place and limits.

    Each label in turn takes its best place among those that the others leave, for some rounds:
    off other labels, off markers, nearer to its own marker than to others, inside the axes.

    Args:
        figure: On an Agg canvas, which measures the text.
        axes: Where the points are drawn.
        points: In data units.
        labels: One for each point.
        marker_points: Size of a marker, in points.
    """
    if not points:
        return
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    pixels = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    bounds = np.array([[frame.x0, frame.y0], [frame.x1, frame.y1]])
    centres = np.array([axes.transData.transform(point) for point in points])  # (points, 2)
    radius = (marker_points / 2 + 1) * pixels
    markers = np.stack([centres - radius, centres + radius], axis=1)  # (points, 2 corners, 2)
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
    for _ in range(_ROUNDS):
        for i, (centre, size) in enumerate(zip(centres, sizes, strict=True)):
            others = [*markers, *(box for j, box in placed.items() if j != i)]
            best = np.inf
            for offset, distance in _candidates(size, pixels):
                box = np.array([centre + offset - size / 2, centre + offset + size / 2])
                cost = sum(_overlap(box, other) for other in others) / pixels**2
                cost += 10 * (size.prod() - _overlap(box, bounds)) / pixels**2
                apart = _gaps(box, centres) / pixels
                cost += 6 * np.maximum(apart[i] + 2 - np.delete(apart, i), 0).sum() + distance
                if cost < best - 1e-6:
                    best, offsets[i], placed[i] = cost, offset, box
    for text, point, offset, size in zip(texts, points, offsets, sizes, strict=True):
        text.set_position(tuple(offset / pixels))
        edge = offset - np.clip(offset, -size / 2, size / 2)  # nearest point of the label
        if np.hypot(*edge) > _LINE_FROM_POINTS * pixels:
            axes.annotate(
                "", point, xytext=tuple(edge / pixels), textcoords="offset points", zorder=3,
                arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0},
            )  # fmt: skip


def _candidates(size: np.ndarray, pixels: float) -> list[tuple[np.ndarray, float]]:
    """List places of a label's middle from its marker, and the cost of the distance."""
    return [
        # The label's edge, not its middle, is at the distance.
        (direction * distance * pixels + np.sign(direction.round(6)) * size / 2, float(distance))
        for distance in _DISTANCES_POINTS
        for direction in _DIRECTIONS
    ]


def _gaps(box: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Give the distance of every centre from a box, 0 inside."""
    return np.hypot(*np.maximum(np.maximum(box[0] - centres, centres - box[1]), 0).T)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Give the area that two boxes share."""
    return float(np.maximum(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0).prod())
