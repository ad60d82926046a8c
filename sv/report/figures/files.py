"""The files of the figures: each is drawn once and saved as PDF, PNG and SVG.

The same results give the same bytes: matplotlib is used without pyplot, without display and
settings of the user, and no file has a date. An SVG gets the hover texts of its drawing, and only
ids that no other figure has: the page holds several.
"""

import io
import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sv.errors import SvError
from sv.files import replacing, write_text
from sv.report.figures.det import draw_det, draw_scores
from sv.report.figures.energy import draw_energy_accuracy, draw_energy_gmac
from sv.report.figures.frame import Drawing
from sv.report.figures.learning import draw_learning_energy
from sv.report.figures.power import draw_power, list_power_figures
from sv.report.figures.stages import draw_energy_stages
from sv.report.results import Results
from sv.report.tables.cells import escape_markdown

_PAD_INCHES = 0.03
DPI = 200  # of the PNG: sharp on a page at column width
# What the files must not contain: when and by which version they were made.
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
_STEMS = ("energy_*", "learning_*", "det_*", "scores_*", "power_*")  # of all figures ever made
_STYLE = {
    "font.size": 8,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
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
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # of names too: a dollar sign is one
    "svg.hashsalt": "sv",
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+|(?<=^#)[mp]\w+$")  # of an id, by an attribute
_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_DIGITS = re.compile(r"(?<!\d)(\d+\.\d\d)\d+")  # less than hundredths of a point cannot be seen


Draw = Callable[[Drawing], None]


def write_figures(results: Results, directory: Path) -> tuple[list[Drawing], list[str], list[str]]:
    """Write every figure in all formats; a figure that has nothing to show is removed.

    Returns:
        The figures written, a line for each figure left out or without some system, and one for
        each that could not be drawn.
    """
    old = {
        path for stem in _STEMS for kind in _METADATA for path in directory.glob(f"{stem}.{kind}")
    }
    draws, left_out = list_figures(results)
    figures, failures = [], []
    for stem, draw in draws.items():
        try:
            figures.append(write_figure(draw, directory / stem))
        except Exception as error:  # values that are numbers, and that no plot can hold
            reason = error if isinstance(error, SvError) else repr(error)
            failures.append(f"no {stem}: {reason}")
    left_out += [f"{figure.stem}: {line}" for figure in figures for line in figure.left_out]
    for path in old.difference(*(figure.paths for figure in figures)):
        path.unlink()  # of an earlier run; it would show what is no longer true
    return [figure for figure in figures if figure.paths], left_out, failures


def write_captions(figures: Sequence[Drawing], directory: Path) -> Path:
    """Write what each figure shows to ``captions.md``, for who pastes it; return the path."""
    lines = [f"- {figure.stem}: {escape_markdown(figure.caption)}" for figure in figures]
    path = directory / "captions.md"
    write_text(path, "\n".join(["# Captions of the figures", "", *lines, ""]))
    return path


def list_figures(results: Results) -> tuple[dict[str, Draw], list[str]]:
    """Return what draws each figure, by the stem of its files, in the order of a page.

    The second value has a line for each kind of figure that lacks some stage.
    """
    draws: dict[str, Draw] = {
        "energy_accuracy": partial(draw_energy_accuracy, results=results, lists=results.scored),
        "energy_gmac": partial(draw_energy_gmac, results=results),
        "learning_energy": partial(draw_learning_energy, results=results),
        "energy_stages": partial(draw_energy_stages, results=results),
    }
    for name in results.scored if len(results.scored) > 1 else ():
        draw = partial(draw_energy_accuracy, results=results, lists=(name,))
        draws[f"energy_accuracy_{name}"] = draw
    for name in results.trial_sets:
        draws[f"det_{name}"] = partial(draw_det, results=results, trials=name)
        draws[f"scores_{name}"] = partial(draw_scores, results=results, trials=name)
    traced, left_out = list_power_figures(results)
    return draws | {stem: partial(draw_power, stages=traced[stem]) for stem in traced}, left_out


def write_figure(draw: Draw, stem: Path) -> Drawing:
    """Draw a figure and write it as ``<stem>.pdf``, ``.png`` and ``.svg``."""
    # It logs every glyph that it packs into a PDF.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(dpi=DPI)
        canvas = FigureCanvasAgg(figure)  # measures text, for the places of the labels
        drawing = Drawing(figure, stem.name)
        draw(drawing)
        if not figure.axes:
            return drawing
        # Cut to what is drawn: a legend may lie outside the axes and is as wide as its names. Found
        # once for all: most of the time of a figure is for measuring its texts.
        drawn = figure.get_tightbbox(canvas.get_renderer()).padded(_PAD_INCHES)
        for kind, metadata in _METADATA.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=DPI, bbox_inches=drawn, metadata=metadata)
            data = buffer.getvalue()
            drawing.paths.append(stem.with_name(f"{stem.name}.{kind}"))
            with replacing(drawing.paths[-1], mode="wb") as file:
                file.write(_finish_svg(data, drawing) if kind == "svg" else data)
        figure.clear()  # its artists are many
    return drawing


def _finish_svg(data: bytes, drawing: Drawing) -> bytes:
    """Put hover texts into an SVG, and leave out of it what its readers do not need.

    Ids stay where something refers to them, and begin with the stem.
    """
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(_NOT_XML.sub("", data.decode()))
    for name in ("metadata", "defs"):  # the latter sets what the root's style does
        root.remove(root.find(f"{{{_SVG}}}{name}"))
    family = ", ".join(mpl.rcParams["font.sans-serif"])
    root.set("style", f"font-family: {family}; stroke-linejoin: round; stroke-linecap: butt")
    for element in root.iter():
        name = element.attrib.pop("id", "")
        if name in drawing.hover:
            _add_titles(element, drawing.hover[name])
        elif name and not element.tag.endswith("}g"):
            element.set("id", f"{drawing.stem}-{name}")
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        for key, value in element.attrib.items():
            referring = _REFERENCE.sub(rf"{drawing.stem}-\g<0>", value)
            if key == "style" and element is not root:
                referring = _FAMILY.sub("", referring)
            elif key in ("d", "x", "y"):
                referring = _DIGITS.sub(r"\1", " ".join(referring.split()))
            element.set(key, referring)
        if element.tail and not element.tail.strip():
            element.tail = "\n"
        if element.text and not element.text.strip():
            element.text = None
    return ElementTree.tostring(root, encoding="unicode").encode()


def _add_titles(group: ElementTree.Element, texts: tuple[str, ...]) -> None:
    """Give an element a hover text, or each of its markers, which are not seen, one of its own."""
    group.set("class", "hover")
    targets = [group]
    if len(texts) > 1:
        group.set("opacity", "0")
        targets = list(group.iter(f"{{{_SVG}}}use"))
        for marker in targets:
            del marker.attrib["style"]
    for target, text in zip(targets, texts, strict=True):
        title = ElementTree.Element(f"{{{_SVG}}}title")
        title.text = text
        target.insert(0, title)
