"""The page of stage 8 in a headless browser: sorting, provenance, figures, width and colours.

One browser for all of it; skipped where the machine has none.
"""

import json
import re
from pathlib import Path

import pytest
from conftest import environment
from page_reader import KWH, SYSTEMS, make_page
from report_tree import build_tree
from study_exp import build_study

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Five systems of the study, all measured."""
    return make_page(*build_study(tmp_path_factory.mktemp("study"), SYSTEMS))


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
    rising = sorted(SYSTEMS, key=lambda name: KWH[name])
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


def test_zoom_and_back(opened):
    from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415

    def find_range():
        return opened.execute_script(
            "return document.getElementById('figure-accuracy')._fullLayout.xaxis.range"
        )

    plot = opened.find_element("css selector", "#figure-accuracy .nsewdrag")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    whole = find_range()
    drag = ActionChains(opened).move_to_element_with_offset(plot, -200, -80).click_and_hold()
    drag.move_by_offset(150, 60).move_by_offset(50, 40).release().perform()
    part = find_range()
    assert whole[0] < part[0] < part[1] < whole[1]
    assert part[1] - part[0] < 0.5 * (whole[1] - whole[0])
    opened.execute_async_script("setTimeout(arguments[0], 400)")  # the drag is no first click
    ActionChains(opened).move_to_element(plot).double_click().perform()
    opened.execute_async_script("setTimeout(arguments[0], 400)")
    assert find_range() == pytest.approx(whole)


def test_a_figure_shows_another_list(opened):
    script = """
        const plot = document.getElementById('figure-accuracy');
        return [plot.layout.yaxis.title.text, plot.data.map((trace) => [...trace.y])]
    """
    title, average = opened.execute_script(script)
    assert title == "Average EER (%)"
    select = opened.find_element("css selector", "select[data-figure='figure-accuracy']")
    select.send_keys("vox1_o")
    title, values = opened.execute_script(script)
    assert title == "EER, vox1_o (%)" and values != average
    assert sorted(sum(values[-3:], [])) == [0.72, 0.83, 0.83, 0.88, 1.19]


@pytest.mark.parametrize("width", [400, 1280])
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
        light = sum(map(int, re.findall(r"\d+", paper)[:3])) > 384
        assert light == (scheme == "light")
        drawn = "return document.querySelectorAll('#figure-accuracy .points path').length"
        assert opened.execute_script(drawn) >= len(SYSTEMS)
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
