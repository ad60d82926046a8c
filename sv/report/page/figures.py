"""The interactive figures of the page, as plotly's own JSON; nothing is drawn here.

They show what the printed figures show, from the same points. The same results give the same
JSON: no random ids.
"""

from sv.report.page.bars import build_bars
from sv.report.page.learning import build_learning
from sv.report.page.plot import Plot
from sv.report.page.scatter import build_accuracy, build_work
from sv.report.results import Results


def build_plots(results: Results) -> list[Plot]:
    """Build the figures that have something to show, in order of display."""
    builders = (build_accuracy, build_work, build_learning, build_bars)
    plots = [build(results) for build in builders]
    return [plot for plot in plots if plot.views]
