"""The page of stage 8 in a headless browser: sorting, provenance, figures, width and colours.

One browser for all of it; skipped where the machine has none.
"""

import json
import re
from pathlib import Path

import pytest
from conftest import environment
from page_reader import make_page
from report_tree import build_tree
from study_exp import LISTS, SYSTEMS, build_study

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study's fifteen systems, all measured, and all figures that the page shows."""
    tree = build_study(tmp_path_factory.mktemp("study"))
    accuracy = [f"energy_accuracy_{name}" for name in LISTS]
    shown = ("energy_accuracy", *accuracy, "energy_gmac", "learning_energy", "energy_stages")
    return make_page(*tree, *shown)


def test_the_page_of_the_study_is_small(study):
    assert study.stat().st_size < 1e6


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for all tests, which logs its errors and every address that it asks for."""
    for program in (CHROMIUM, CHROMEDRIVER):
        if not program.exists():
            pytest.skip(f"no {program} on this machine")
    from selenium import webdriver  # noqa: PLC0415 - where there is no browser, not needed
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    home = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for word in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update", "disable-dev-shm-usage",
        "window-size=1280,1000", f"user-data-dir={home / 'profile'}",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both programs are named, so that selenium looks for none on the network.
    service = Service(str(CHROMEDRIVER), env=environment(HOME=str(home)))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, study):
    """Open the page anew; afterwards, nothing was asked for and no script has complained."""
    browser.get(study.as_uri())
    yield browser
    complaints = [line["message"] for line in browser.get_log("browser")]
    assert complaints == []
    asked = set()
    for line in browser.get_log("performance"):
        message = json.loads(line["message"])["message"]
        # The browser's own first page asks for its own parts.
        found = message["params"]
        if (
            message["method"] == "Network.requestWillBeSent"
            and "chrome:" not in found["documentURL"]
        ):
            asked.add(found["request"]["url"].split("#")[0])
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {study.as_uri()}


def read_column(driver, table, title):
    """Give the heading of a column of a table, and what its rows show from top to bottom."""
    heads = driver.find_elements("css selector", f"#{table} thead tr:last-child th")
    names = [head.find_element("tag name", "button").get_attribute("aria-label") for head in heads]
    place = names.index(title)
    script = """
        return [...document.querySelectorAll(`#${arguments[0]} tbody tr:not(.section)`)]
          .map((row) => [row.cells[0].childNodes[0].textContent, row.cells[arguments[1]].innerText])
    """
    return heads[place], driver.execute_script(script, table, place)


def test_sorting(opened):
    head, rows = read_column(opened, "table1", "Energy (kWh)")
    given = [name for name, _ in rows]
    assert sorted(given) == sorted(SYSTEMS) and head.get_attribute("aria-sort") == "none"
    rising = sorted(SYSTEMS, key=lambda name: SYSTEMS[name][2])
    assert rising not in (given, given[::-1])
    for state, expected in (("ascending", rising), ("descending", rising[::-1]), ("none", given)):
        head.find_element("tag name", "button").click()
        _, rows = read_column(opened, "table1", "Energy (kWh)")
        assert [name for name, _ in rows] == expected
        assert head.get_attribute("aria-sort") == state
        shown = opened.find_element("css selector", "#table1 .section").is_displayed()
        assert shown == (state == "none")


def test_sorting_by_keyboard_and_what_is_not_known_last(browser, tmp_path):
    browser.get(make_page(*build_tree(tmp_path)).as_uri())
    for state, expected in (
        ("ascending", ["resnet18_w0.125", "resnet50_d", "resnet50_d_2822", "resnet34_d"]),
        ("descending", ["resnet50_d_2822", "resnet50_d", "resnet18_w0.125", "resnet34_d"]),
    ):
        head, _ = read_column(browser, "table1", "Energy (kWh)")
        head.find_element("tag name", "button").send_keys("\ue007")  # Enter
        _, rows = read_column(browser, "table1", "Energy (kWh)")
        assert [name for name, _ in rows] == expected
        assert head.get_attribute("aria-sort") == state
    browser.get_log("browser"), browser.get_log("performance")


def test_a_click_on_a_kwh_shows_its_provenance(opened):
    dialog = opened.find_element("id", "dialog")
    assert not dialog.is_displayed()
    link = opened.find_element("css selector", "#table1 a[href='#energy-resnet18-d-05-train']")
    assert link.text == "63.05"
    link.click()
    assert dialog.is_displayed()
    assert "resnet18_d, 05 train" in dialog.text
    assert "../resnet18_d/energy/05_train.json" in dialog.text
    assert "steps/train_xvector.sh --model resnet18_d" in dialog.text
    opened.find_element("css selector", "[data-close]").click()
    assert not dialog.is_displayed()
    assert opened.switch_to.active_element == link
    # The address of a sidecar opens it further down.
    key = "energy-resnet50-w2-06-extract-commonbench"
    opened.execute_script("location.hash = arguments[0]", key)
    opened.implicitly_wait(2)
    body = opened.find_element("css selector", f"#{key}[open] .body")
    opened.implicitly_wait(0)
    assert body.is_displayed() and "06_extract_commonbench.json" in body.text


def test_a_figure_shows_another_list(opened):
    def read_shown():
        views = opened.find_elements("css selector", "#energy_accuracy .view")
        return [view.text for view in views if view.is_displayed()]

    (average,) = read_shown()
    assert "Average EER (%)" in average
    select = opened.find_element("css selector", "select[data-figure='energy_accuracy']")
    select.send_keys("vox1_o")
    (shown,) = read_shown()
    assert "EER, vox1_o (%)" in shown and "Average" not in shown


def test_the_pointer_on_a_mark_shows_its_figures(opened):
    """At the middle of a mark, what the browser finds there has the mark's title."""
    script = """
        const marks = [...document.querySelectorAll(arguments[0])].map((title) => {
          const mark = title.parentNode;
          mark.scrollIntoView({block: "center"});
          const box = mark.getBoundingClientRect();
          const found = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
          for (let node = found; node; node = node.parentNode) {
            const own = [...node.children ?? []].find((child) => child.localName === "title");
            if (own) return [title.textContent, own.textContent];
          }
          return [title.textContent, null];
        });
        return marks;
    """
    for selector, text, least in (
        ("#energy_accuracy .view:not([hidden]) title",
         "resnet18_d\nEER 4.11 % (95 %: 3.50 to 4.67)\n63.05 kWh, measured", 10),
        ("#energy_gmac title", "resnet419_d\n", 10),
        ("#learning_energy title", "resnet419_d, epoch 42\nEER 0.69 %, 895.7 kWh, measured", 150),
        ("#energy_stages title", "resnet50_d\n5 train: 51.69 kWh", 60),
    ):  # fmt: skip
        marks = opened.execute_script(script, selector)
        assert any(title.startswith(text) for title, _ in marks), (text, marks)
        # Where marks lie on each other, the pointer finds the upper one; slivers are under an axis.
        assert sum(title == found for title, found in marks) >= least


def find_luminance(colour):
    """Find how light a colour is, 0 to 1: ``rgb(0, 0, 0)`` or ``color(srgb 0 0 0)``."""
    parts = [float(number) for number in re.findall(r"[\d.]+", colour)[:3]]
    return sum(parts) / (3 if colour.startswith("color") else 3 * 255)


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_width_and_colours(opened, study, width, scheme):
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})  # fmt: skip
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened.refresh()
        wide = "return document.documentElement.scrollWidth"
        assert opened.execute_script(wide) <= width
        paper = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (find_luminance(paper) > 0.5) == (scheme == "light")
        # Text and lines of the figures stand out from the paper, and lie inside the page.
        script = """
            const text = [...document.querySelectorAll('#figures svg text')]
              .filter((text) => text.getClientRects().length > 0);
            return [text.map((text) => getComputedStyle(text).fill),
                    Math.max(...text.map((text) => text.getBoundingClientRect().right))]
        """
        fills, right = opened.execute_script(script)
        assert len(fills) > 100 and right <= width
        for fill in set(fills):
            assert abs(find_luminance(fill) - find_luminance(paper)) > 0.3, (fill, paper)
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
