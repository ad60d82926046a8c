"""The files of the figures: accuracy, work and parts against energy, power; DET and scores.

The only place that loads matplotlib, without pyplot: no global state, no display. The same
results give the same bytes: no dates in the files, no settings of the user.
"""

import io
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sv.files import replacing
from sv.report.figures.det_figure import draw_det
from sv.report.figures.energy_figure import draw_energy_accuracy
from sv.report.figures.gmac_figure import draw_energy_gmac
from sv.report.figures.learning_figure import draw_learning_energy
from sv.report.figures.power_figure import draw_power, list_power_figures
from sv.report.figures.score_figure import draw_scores
from sv.report.figures.stages_figure import draw_energy_stages
from sv.report.results import Results

_PAD_INCHES = 0.03
DPI = 200  # of the PNG: sharp on a page at column width
# What the files must not tell: when and by which version they were made.
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
_STEMS = ("energy_*", "learning_*", "det_*", "scores_*", "power_*")  # of all figures ever made
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "pdf.compression": 6,
}


def write_figures(results: Results, directory: Path) -> tuple[list[Path], list[str]]:
    """Write every figure as PDF and PNG; a figure that has nothing to show is removed.

    Returns:
        The paths written, and a line for each figure left out or without some system.
    """
    # It tells of every glyph that it packs into a PDF.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    draws, left_out = _list_figures(results)
    paths: list[Path] = []
    old = {path for stem in _STEMS for path in directory.glob(f"{stem}.p[dn][fg]")}
    for stem, draw in draws.items():
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            figure = Figure(dpi=DPI)
            FigureCanvasAgg(figure)  # measures text, for the places of the labels
            left_out += [f"{stem}: {line}" for line in draw(figure)]
            if figure.axes:
                paths += _save(figure, directory / stem)
    for path in old - set(paths):
        path.unlink()  # of an earlier run; it would show what is no longer true
    return paths, left_out


def _list_figures(
    results: Results,
) -> tuple[dict[str, Callable[[Figure], list[str]]], list[str]]:
    """Give what draws each figure, by the stem of its files, in the order of a page."""
    draws: dict[str, Callable[[Figure], list[str]]] = {
        "energy_accuracy": partial(draw_energy_accuracy, results=results),
        "energy_gmac": partial(draw_energy_gmac, results=results),
        "learning_energy": partial(draw_learning_energy, results=results),
        "energy_stages": partial(draw_energy_stages, results=results),
    }
    for name in results.scored if len(results.scored) > 1 else ():
        draw = partial(draw_energy_accuracy, results=results, trials=name)
        draws[f"energy_accuracy_{name}"] = draw
    for name in results.trial_sets:
        draws[f"det_{name}"] = partial(draw_det, results=results, trials=name)
        draws[f"scores_{name}"] = partial(draw_scores, results=results, trials=name)
    traced, left_out = list_power_figures(results)
    return draws | {stem: partial(draw_power, stages=traced[stem]) for stem in traced}, left_out


def _save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure in both formats."""
    # Cut to what is drawn: a legend may lie outside the axes and is as wide as its names. Found
    # once for both: most of the time of a figure is for measuring its texts.
    drawn = figure.get_tightbbox(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    paths = []
    for kind, metadata in _METADATA.items():
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format=kind, dpi=DPI, bbox_inches=drawn.padded(_PAD_INCHES), metadata=metadata
        )
        path = stem.with_name(f"{stem.name}.{kind}")
        with replacing(path, mode="wb") as file:
            file.write(buffer.getvalue())
        paths.append(path)
    return paths
