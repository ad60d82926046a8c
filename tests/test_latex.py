"""The LaTeX of the tables compiles, and fits a page, with what a paper's author has installed."""

import re
import shutil
import subprocess

import pytest
from conftest import ROOT
from report_tree import ESTIMATED, build_tree, write_all_tables, write_sidecar
from study_exp import build_study

from sv.report.output import build_tables, write_paper_table, write_tables
from sv.report.results import collect_results
from sv.report.tables.against import build_comparison
from sv.report.tables.cells import MARKS, Cell, Column, Note, Row, Table, unknown_cell

ODD = "a_b & 50 % #1 $x }y{ ~z ^2 \\w <p> |q| \"r\" 's' café Ørsted 5 °C ±1 ρ Δ µ – … ’t 中 \t."
PAGES = {
    "two columns": r"\documentclass[twocolumn,a4paper,10pt]{article}",
    "landscape": r"\documentclass[a4paper,10pt]{article}",
}
MARGINS = {"two columns": "margin=1.65cm", "landscape": "landscape,margin=2cm"}
MAX_OVERFULL_PT = 3.0

ENGINES = {
    "pdflatex": ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
    "tectonic": ["tectonic", "--keep-logs", "paper.tex"],
}
ENGINE = next((name for name in ENGINES if shutil.which(name)), None)
HAS_SIUNITX = ENGINE == "tectonic" or (
    shutil.which("kpsewhich")
    and not subprocess.run(
        ["kpsewhich", "siunitx.sty"], capture_output=True, check=False
    ).returncode
)
needs_latex = pytest.mark.skipif(ENGINE is None, reason="no pdflatex and no tectonic here")


def compile_tables(folder, page, names, label=""):
    """Compile a paper that inputs the tables; give the log."""
    paper = [PAGES[page], r"\usepackage{booktabs,graphicx}"]
    paper += [r"\usepackage{siunitx}"] if label else []
    paper += [rf"\usepackage[{MARGINS[page]}]{{geometry}}", r"\begin{document}", "Text."]
    paper += [*(rf"\input{{{name}}} See Table~\ref{{tab:{label or name}}}." for name in names)]
    (folder / "paper.tex").write_text("\n".join([*paper, r"\end{document}"]))
    for _ in range(2):  # the second knows the references
        done = subprocess.run(
            ENGINES[ENGINE], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:]
    return (folder / "paper.log").read_text(errors="replace")


def check(log):
    """Nothing undefined, nothing beyond the margins, no float higher than the page."""
    wide = [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert not [width for width in wide if width > MAX_OVERFULL_PT], wide
    for complaint in ("Undefined control sequence", "Float too large", "Reference `", "Misplaced"):
        assert complaint not in log, complaint
    assert "Missing character" not in log


@needs_latex
@pytest.mark.parametrize("page", PAGES)
def test_the_study_compiles(tmp_path, page):
    data, exp = build_study(tmp_path)
    folder = write_all_tables(data, exp)
    compared = build_comparison(collect_results(data, exp), ROOT / "egs/voxceleb/study")
    write_tables(compared, folder)
    names = [f"table{n}" for n in (1, 2, 3, 4)] + [table.name for table in compared]
    assert len(names) > 6
    check(compile_tables(folder, page, names))


@needs_latex
@pytest.mark.parametrize("page", PAGES)
def test_odd_names_marks_and_missing_figures_compile(tmp_path, page):
    data, exp = build_tree(tmp_path)
    odd = exp / "my_net & 50% #1 ~x^2 {é}"
    write_sidecar(odd / "energy" / "05_train.json", 3.4e-8, ESTIMATED, reason=ODD, fraction=None)
    folder = write_all_tables(data, exp)
    cells = {"name": Cell(ODD, ODD), "a": Cell("-3.46e-07", -3.46e-7, tuple(MARKS), best=True)}
    row = Row(ODD, {**cells, "b": unknown_cell(ODD)}, ODD)
    plain = Row("b", {"name": Cell("", ""), "a": Cell("-12.5", -12.5), "b": Cell("9", 9)}, "c")
    columns = (Column("name", "", numeric=False), Column("a", ODD, ODD), Column("b", "%", ODD))
    notes = tuple(Note(ODD, mark) for mark in ("", *MARKS))
    write_tables([Table("odd", ODD, columns, (row, plain), notes)], folder)
    check(compile_tables(folder, page, ["table1", "table2", "table3", "table4", "odd"]))


@needs_latex
@pytest.mark.skipif(not HAS_SIUNITX, reason="no siunitx.sty here (Debian: texlive-science)")
def test_the_table_of_a_paper_fits_a_column(tmp_path):
    data, exp = build_study(tmp_path)
    results = collect_results(data, exp)
    write_paper_table(build_tables(results)[0], results, tmp_path)
    log = compile_tables(tmp_path, "two columns", ["table1_paper"], label="systems")
    assert "Overfull" not in log
    check(log)


def test_a_long_table_is_divided_between_its_sections():
    from sv.report.tables.latex import format_latex  # noqa: PLC0415

    columns = (Column("name", "Name", numeric=False), Column("x", "X"))
    rows = [
        Row(f"{section} {n}", {"name": Cell(f"{n}", f"{n}"), "x": Cell(f"{n}.5", n)}, section)
        for section in ("first", "second", "third")
        for n in range(20)
    ]
    text = format_latex(Table("long", "Long", columns, tuple(rows), (Note("The end"),)))
    floats = text.split(r"\begin{table*}")[1:]
    assert [part.count(r"\textit{") for part in floats] == [2, 1]
    assert [(r"\label" in part, "(continued)" in part, "The end" in part) for part in floats] == [
        (True, False, False), (False, True, True),
    ]  # fmt: skip
    assert r"\addtocounter{table}{-1}" in floats[1] and sum(t.count(".5 ") for t in floats) == 60


def test_points_stand_below_each_other():
    from sv.report.tables.latex import format_latex  # noqa: PLC0415

    figures = [Cell("895.7", 895.67), Cell("51.69", 51.69, ("estimated",), best=True),
               Cell("7", 7), unknown_cell("why")]  # fmt: skip
    rows = tuple(Row(cell.text, {"x": cell}) for cell in figures)
    text = format_latex(Table("t", "T", (Column("x", "X"),), rows, ()))
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "phantom" in line]
    marks = r"\phantom{$^\dagger$}"
    assert body == [
        rf"895.7\phantom{{0}}{marks} \\",
        rf"\textbf{{51.69}}\rlap{{$^\dagger$}}{marks} \\",
        rf"7\phantom{{.00}}{marks} \\",
        rf"--\phantom{{.00}}{marks} \\",
    ]
