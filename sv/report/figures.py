"""The files of the figures: accuracy against energy; DET plot and scores of each trial list.

The only place that loads matplotlib, without pyplot: no global state, no display. The same
results give the same bytes: no dates in the files, no settings of the user.
"""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sv.files import replacing
from sv.report.det_figure import draw_det
from sv.report.energy_figure import draw_energy_accuracy
from sv.report.records import Results
from sv.report.score_figure import draw_scores

DPI = 200  # of the PNG: sharp on a page at column width
# What the files must not tell: when and by which version they were made.
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
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
    draws: dict[str, Callable[[Figure, Results], list[str]]] = {
        "energy_accuracy": draw_energy_accuracy
    }
    for name in results.trial_sets:
        draws[f"det_{name}"] = lambda figure, found, name=name: draw_det(figure, found, name)
        draws[f"scores_{name}"] = lambda figure, found, name=name: draw_scores(figure, found, name)
    paths, left_out = [], []
    stems = ("det_*", "scores_*", "energy_accuracy")
    old = {path for stem in stems for path in directory.glob(f"{stem}.p[dn][fg]")}
    for stem, draw in draws.items():
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            figure = Figure(dpi=DPI)
            FigureCanvasAgg(figure)  # measures text, for the places of the labels
            left_out += [f"{stem}: {line}" for line in draw(figure, results)]
            if figure.axes:
                paths += [_save(figure, directory / f"{stem}.{kind}") for kind in _METADATA]
    for path in old - set(paths):
        path.unlink()  # of an earlier run; it would show what is no longer true
    return paths, left_out


def _save(figure: Figure, path: Path) -> Path:
    buffer = io.BytesIO()
    kind = path.suffix.removeprefix(".")
    # Cut to what is drawn: a legend may lie outside the axes and is as wide as its names.
    figure.savefig(
        buffer, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.03, metadata=_METADATA[kind]
    )
    with replacing(path, mode="wb") as file:
        file.write(buffer.getvalue())
    return path
