"""Colours, markers and lines of the figures: told apart by the colour-blind and in grey print."""

# Okabe and Ito, "Color Universal Design", 2008; without yellow, which is too light for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
# Family of the study's Table 1: marker and colour, both different.
FAMILY_STYLE = {
    "depth": ("o", "#0072B2"),
    "stage": ("s", "#D55E00"),
    "width": ("^", "#009E73"),
    "other": ("D", "#CC79A7"),
}
FAMILY_LABEL = {"depth": "Depth", "stage": "Stage distribution", "width": "Width", "other": "Other"}
