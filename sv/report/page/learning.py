"""The interactive figure of trainings: what each epoch bought for its energy."""

import plotly.graph_objects as go

from sv.report.figures.curves import collect_learning
from sv.report.figures.palette import COLOURS
from sv.report.page.facts import describe_share
from sv.report.page.plot import Plot, View, build_figure, build_hover, build_layout, set_log
from sv.report.results import Results
from sv.report.tables.cells import format_significant

_DASHES = ("solid", "dash", "dot", "dashdot")
_LOG_FROM = 4.0  # times between the lowest and the highest EER


def build_learning(results: Results) -> Plot:
    """Build the validation EER of every epoch against the energy used up to then."""
    curves, left_out = collect_learning(results)
    traces = []
    for place, curve in enumerate(curves):
        quality = describe_share(curve.share)
        texts = [
            build_hover(
                curve.system,
                f"epoch {epoch}: EER {eer_percent:.2f} % (validation)",
                f"{format_significant(kwh)} kWh so far, {quality}",
            )
            for epoch, kwh, eer_percent in zip(
                curve.epochs, curve.energy_kwh, curve.eer_percent, strict=True
            )
        ]
        traces.append(
            go.Scatter(
                x=curve.energy_kwh,
                y=curve.eer_percent,
                mode="lines+markers",
                name=curve.system if curve.share else f"{curve.system} (estimated)",
                line={
                    "color": COLOURS[place % len(COLOURS)],
                    "dash": _DASHES[place % len(_DASHES)],
                    "width": 1.4,
                },
                marker={"size": 4, "symbol": "circle" if curve.share else "circle-open"},
                hovertext=texts,
                hoverinfo="text",
            )
        )
    views = []
    energies = [kwh for curve in curves for kwh in curve.energy_kwh if kwh > 0]
    if energies:
        title = "Energy of the training so far (kWh)"
        layout = build_layout(title, "Validation EER (%)")
        set_log(layout["xaxis"], energies)
        eers = [eer_percent for curve in curves for eer_percent in curve.eer_percent]
        if min(eers) > 0 and max(eers) / min(eers) > _LOG_FROM:
            set_log(layout["yaxis"], eers)
        views.append(View("", build_figure(traces, layout), tuple(left_out)))
    caption = (
        "Each point is the end of an epoch, on the training's own validation trials: lower than "
        "another's at the same energy is better so far. A click on a name in the legend hides its "
        "line, a double click all others."
    )
    title = "What each epoch bought"
    return Plot("figure-learning", title, caption, "", tuple(views), height=560)
