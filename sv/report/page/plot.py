"""What the interactive figures share: their views, axes, and the words that the pointer shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from sv.report.page.facts import describe_quality, format_kwh
from sv.report.results import Stage
from sv.report.tables.cells import format_significant

# Stand for the page's colours of text and of quiet lines; its script puts those in their place,
# which differ between light and dark.
INK, QUIET = "#000000", "#808080"
_NARROWEST = math.log10(3)  # decades of an axis: equals must not look far apart


@dataclass(frozen=True)
class View:
    """One choice of a figure: its name in the selector, data and layout for plotly, remarks."""

    label: str
    figure: dict[str, Any]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Plot:
    """A figure with its views, the first of which is shown; ``key`` is its id in the page."""

    key: str
    title: str
    caption: str
    choice: str
    views: tuple[View, ...]
    height: int = 460


def build_figure(traces: list[Any], layout: dict[str, Any]) -> dict[str, Any]:
    """Give data and layout as plotly's script reads them; a wrong property is a ValueError."""
    return go.Figure(traces, layout).to_plotly_json()


def build_layout(x_title: str, y_title: str) -> dict[str, Any]:
    """Give the layout that all figures have; colours are left to the page's script."""
    return {
        "template": {},
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "xaxis": {"title": {"text": x_title}, "zeroline": False},
        "yaxis": {"title": {"text": y_title}, "zeroline": False, "automargin": True},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        "dragmode": "zoom",
    }


def span_decades(values: Sequence[float]) -> float:
    """Give how many decades values above 0 span, at least a factor of 3."""
    return max(math.log10(max(values) / min(values)), _NARROWEST)


def set_log(axis: dict[str, Any], values: Sequence[float]) -> None:
    """Make an axis of a layout logarithmic, with some room around values above 0."""
    low, high = math.log10(min(values)), math.log10(max(values))
    half = span_decades(values) / 2 * 1.2
    axis.update(type="log", range=[(low + high) / 2 - half, (low + high) / 2 + half])


def describe_energy(stage: Stage) -> str:
    """Give the energy of a stage with uncertainty and quality: an estimate is called one."""
    text = format_kwh(stage.energy_kwh)
    if stage.energy_kwh is not None and stage.sidecar.uncertainty_kwh is not None:
        text += f" ± {format_significant(stage.sidecar.uncertainty_kwh)} (k = 2)"
    return f"{text}, {describe_quality(stage)}"


def describe_eer(eer_percent: float, interval: tuple[float, float] | None) -> str:
    """Give an EER with its 95 % interval, where there is one."""
    text = f"EER {eer_percent:.2f} %"
    return text if interval is None else f"{text} (95 %: {interval[0]:.2f} to {interval[1]:.2f})"


def build_hover(name: str, *lines: str) -> str:
    """Give the text of a hover label: plotly reads HTML tags in it, and a name must not be one."""
    return "<br>".join([f"<b>{escape(name)}</b>", *(escape(line) for line in lines)])
