"""What the tests of the page share: its trees, how it is made, and how it is read as text."""

import re
import subprocess
import sys
from html.parser import HTMLParser

from conftest import ROOT, environment

SYSTEMS = ("resnet200_d", "resnet50_d", "resnet18_d", "resnet50_d_2822", "resnet50_w2")
KWH = {"resnet200_d": 222.53, "resnet50_d": 51.69, "resnet18_d": 63.05, "resnet50_d_2822": 52.06,
       "resnet50_w2": 120.76}  # fmt: skip
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """A page taken apart: elements that do not close, ids, links, and the text of each id."""

    def __init__(self, path):
        super().__init__()
        self.open, self.wrong, self.ids, self.links, self.tags = [], [], [], [], []
        self.texts, self.titles = {}, []  # text of every element with an id, and of every title
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        self.wrong += [f"{tag} is not closed" for tag, _ in self.open]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
        self.links += [found[key] for key in ("href", "src", "srcset", "data") if key in found]
        if tag == "title":
            self.titles.append("")
        if tag not in VOID:
            self.open.append((tag, found.get("id")))

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()} closes {self.open[-1:]}")
        elif self.open:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "title":
            self.titles[-1] += data
        for _, key in self.open:
            if key:
                self.texts[key] = self.texts.get(key, "") + data

    def read(self, key):
        """Give the text of the element with this id, its white space made single spaces."""
        return " ".join(self.texts[key].split())


def make_page(data, exp, *stems, **extra):
    """Write the page of a tree as the program does, with the figures ``stems`` only."""
    code = """
import sys
from pathlib import Path
from sv.report.advice import build_advice
from sv.report.figures.files import list_figures, write_figure
from sv.report.tables.against import build_comparison
from sv.report.results import collect_results
from sv.report.page.page import write_page
from sv.report.output import build_tables, write_tables
data, exp = map(Path, sys.argv[1:3])
results = collect_results(data, exp)
tables = build_tables(results) + build_comparison(results, Path("egs/voxceleb/study"))
write_tables(tables, exp / "results")
draws, _ = list_figures(results)
figures = [write_figure(draws[stem], exp / "results" / stem) for stem in sys.argv[3:]]
write_page(results, tables, build_advice(results), figures, exp / "results")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, data, exp, *stems],
        cwd=ROOT, env=environment(**extra), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return exp / "results" / "index.html"


def read_rows(path, name):
    """Give the rows of a table as cells: text, value to sort by, link."""
    text = path.read_text(encoding="utf-8").split(f'<section class="table" id="{name}">')[1]
    body = text.split("</section>")[0].split("</thead>")[1]
    rows = []
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.S):
        cells = []
        for attributes, inner in re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row, re.S):
            sort = re.search(r'data-sort="([^"]*)"', attributes)
            link = re.search(r'href="([^"]*)"', inner)
            title = re.search(r'title="([^"]*)"', attributes)
            words = re.sub(r"<abbr.*?</abbr>|<[^>]*>", "", inner)
            cells.append({
                "text": words.strip(), "sort": sort[1] if sort else words.strip(), "html": inner,
                "link": link and link[1], "title": title and title[1],
            })  # fmt: skip
        if len(cells) > 1:
            rows.append(cells)
    return rows
