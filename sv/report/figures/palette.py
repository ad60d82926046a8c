"""Colours, markers, lines and hatches: told apart by the colour-blind and in grey print."""

from typing import Any

# Okabe and Ito, "Color Universal Design", 2008; without yellow, which is too light for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
# Family of the study's Table 1: marker and colour, both different.
FAMILY_STYLE = {
    "depth": ("o", "#0072B2"),
    "stage": ("s", "#D55E00"),
    "width": ("^", "#009E73"),
    "other": ("D", "#CC79A7"),
}
FAMILY_LABEL = {"depth": "Depth", "stage": "Stage distribution", "width": "Width", "other": "Other"}
# Colour and hatch of a stage of the recipe, by its number.
STAGE_STYLE = {
    0: ("#000000", ""),
    1: ("#CC79A7", "xxxx"),
    2: ("#F0E442", "...."),
    3: ("#56B4E9", "||||"),
    4: ("#E69F00", "----"),
    5: ("#0072B2", ""),
    6: ("#E69F00", "////"),
    7: ("#009E73", "...."),
}
# Colour and hatch of a part of the machine; of an estimate, the hatch on white.
COMPONENT_STYLE = {
    "cpu_package": ("#56B4E9", "////"),
    "dram": ("#F0E442", "...."),
    "gpu_board": ("#D55E00", ""),
    "gpu_module": ("#CC79A7", "xxxx"),
    "rest": ("#BBBBBB", "----"),
    "undivided": ("#FFFFFF", ""),
}
ESTIMATED_HATCH = {
    "cpu_package": "\\\\\\",
    "dram": "ooo",
    "gpu_board": "+++",
    "gpu_module": "***",
    "undivided": "xxx",
}
# Of a line of power: colour, and the place of its dashes in LINE_STYLES.
POWER_STYLE = {
    "total": ("#000000", 0),
    "cpu_package": ("#0072B2", 1),
    "dram": ("#E69F00", 2),
    "gpu_board": ("#D55E00", 3),
    "gpu_module": ("#CC79A7", 1),
    "node": ("#009E73", 2),
}


def get_line_style(index: int) -> dict[str, Any]:
    """Give colour, dashes and marker of a line; neighbours differ in all three, 28 lines in one."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
        "marker": MARKERS[index % len(MARKERS)],
    }
