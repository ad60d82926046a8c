"""Histograms of the scores of a trial list, a panel for each system."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sv.report.figures.frame import say_lacking
from sv.report.figures.palette import COLOURS
from sv.report.results import Results, find_score
from sv.score.record import ScoredList

_COLUMNS = 3
_PANEL_INCHES = (2.3, 1.5)
_KINDS = (("nontarget", COLOURS[1], "nontargets"), ("target", COLOURS[0], "targets"))


def draw_scores(figure: Figure, results: Results, trials: str) -> list[str]:
    """Draw the histograms of all systems for one trial list (cosine, fp32) into an empty figure.

    Each kind of trial has the same area, however few its trials are; the line is at the EER.

    Returns:
        A line for the systems that have metrics and no histogram; no axes without any histogram.
    """
    scores = [(system.name, find_score(system, trials)) for system in results.systems]
    shown = [(name, score) for name, score in scores if score and score.histogram]
    if not shown:
        return ["no figure, no system has a histogram"]
    lacking = [(name, score) for name, score in scores if score and not score.histogram]
    left_out = say_lacking(lacking, "hist")
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure.set_size_inches(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    for axes, (name, score) in zip(panels, shown, strict=False):
        _draw_panel(axes, name, score)
    for axes in panels[len(shown) :]:
        axes.remove()
    for axes in panels[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("Score")
        axes.tick_params(labelbottom=True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.subplots_adjust(hspace=0.35, wspace=0.12)
    panels[0].legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1.12), ncols=3)
    return left_out


def _draw_panel(axes: Axes, name: str, score: ScoredList) -> None:
    assert score.histogram is not None
    edges = np.array(score.histogram.edges)
    for kind, colour, field in _KINDS:
        counts = np.array(getattr(score.histogram, field), dtype=float)
        density = counts / counts.sum() / np.diff(edges)
        # A filled and a hollow shape: told apart without colour.
        filled = kind == "nontarget"
        axes.stairs(density, edges, fill=filled, color=colour, alpha=0.55 if filled else 1,
                    linewidth=1.2, label=kind, zorder=2 if filled else 3)  # fmt: skip
    if score.eer_threshold is not None:
        axes.axvline(score.eer_threshold, color="0.15", linewidth=0.8, linestyle=(0, (4, 2)),
                     label="EER threshold", zorder=4)  # fmt: skip
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"{name} ({score.eer_percent:.2f} %)", loc="left", fontsize=7)
