"""The net: what commit f8b4a44 made of journals, results and scores is what the trunk makes.

tests/net/make.py wrote the journals, and f8b4a44's programs the sidecars, tables and metrics
next to them; here the trunk's programs are run on the same input. The sidecars are compared field
by field by the names of energy-sidecar/2, whichever of the two schemas the trunk writes:
`translate` says which old name is which new one. One exclusive meter must agree to the digit;
several or shared ones, whose sums may be taken in another order, to 1e-12.
"""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, call, environment
from report_tree import build_tree
from study_exp import build_study

NET = ROOT / "tests" / "net"
SIDECARS = sorted(path.stem for path in (NET / "sidecars").glob("*.json"))
SCHEMAS = ("energy-sidecar/1", "energy-sidecar/2")
REL = 1e-12

# The only differences between the two schemas that the net allows.
DROPPED = {"energy_above_idle_kwh", "above_idle_reason"}  # wherever they stand
RENAMED = {"nodes": "meters", "facts": "metadata", "node": "label"}  # node: which meter of a mark
MARK_OWN = ("t_s", "energy_kwh", "energy_reason", "label")  # the rest of a mark is its payload
FREE_TEXT = ("reason", "uncertainty_reason", "energy_reason")  # worded anew: null or not
# What came on purpose after the net was laid. A power has an uncertainty of its sampling, which is
# in every sum of uncertainties; what f8b4a44 said of a channel alone, that it was a lower bound, is
# its doubt, which goes up into the attempt and, where something is missing, into the measured part
# and the uncertainty; a step back of a counter is bridged by its mean power (in two journals).
WITH_DOUBTS = {
    "12_reset", "14_hidden_wrap", "15_ends_unread", "16_suspended", "20_boards", "60_two_hosts",
    "84_reset",
}  # fmt: skip
DOUBTED = {"reason", "uncertainty_kwh", "gap_fill", "total", "measured_fraction"}
# The fields that came out otherwise on purpose, in single journals.
CHANGED = {
    # A power that is silent in between is covered that much less, and says so.
    "13_gap": {"reason", "measured_fraction", "covered"},
    # The uncertainty of a shared machine is of what of each channel is the job's.
    "45_cpu_share": {"uncertainty_kwh"},
    "49_ceems_without_node": {"uncertainty_kwh"},
    "64_waiting": {"uncertainty_kwh"},
    # Without a look at the use of the machine the job's part has none, and no measured part.
    "50_no_looks": {"uncertainty_kwh", "uncertainty_reason", "measured_fraction"},
}
BRIDGED = {"12_reset": 0.17, "84_reset": 0.03}  # of the figures of a channel
# Its machines without grams are those without an energy: what is known has all its grams.
WITHOUT_ENERGIES = {"85_unknown"}


def translate(sidecar):
    """Return a sidecar of either schema by the names of energy-sidecar/2.

    A mark's payload is laid out flat. The top-level list of all attempts' meters goes (they are
    in attempts[].meters); so does attempts[].meters of an attempt of one meter, which
    energy-sidecar/1 does not have and `check_meters` checks.
    """
    new = _rename(sidecar)
    new.pop("meters", None)
    new.pop("run_attempts", None)
    for attempt in new["attempts"]:
        for mark in attempt["marks"]:
            if "meter" in mark:
                mark["label"] = mark.pop("meter")
        attempt["marks"] = [
            {**dict.fromkeys(MARK_OWN), **mark.pop("payload", {}), **mark}
            for mark in attempt["marks"]
        ]
        if len(attempt.get("meters", ())) <= 1:
            attempt.pop("meters", None)
    return new


def _rename(value):
    if isinstance(value, list):
        return [_rename(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {RENAMED.get(k, k): _rename(v) for k, v in value.items() if k not in DROPPED}


def find_differences(old, new, scales=None, path="", key=""):
    """List where two sidecars differ; what only the new one has is no difference.

    Args:
        old, new: As `translate` gives them.
        scales: Name of a field -> its largest figure in the old sidecar, of which `REL` may be
            missing; None: every digit counts.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        lost = [
            f"{path}.{name}: {_show(old[name])}, now missing" for name in old.keys() - new.keys()
        ]
        return lost + [
            line
            for name in old
            if name in new and name != "schema"
            for line in find_differences(old[name], new[name], scales, f"{path}.{name}", name)
        ]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{path}: {len(old)} entries, now {len(new)}"]
        return [
            line
            for i, pair in enumerate(zip(old, new, strict=True))
            for line in find_differences(*pair, scales, f"{path}[{i}]", key)
        ]
    if key in FREE_TEXT:
        same = (old is None) == (new is None)
    elif isinstance(old, float) and isinstance(new, float | int) and not isinstance(new, bool):
        near = 0.0 if scales is None else REL * scales[key]
        same = old == new or abs(old - new) <= near
    else:
        same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [f"{path}: {_show(old)}, now {_show(new)}"]


def _show(value):
    return value if isinstance(value, float) else json.dumps(value)[:150]


def find_scales(value, key="", scales=None):
    """Find the largest figure of each name: what a difference of two such is rounded by."""
    scales = {} if scales is None else scales
    if isinstance(value, dict):
        for name, item in value.items():
            find_scales(item, name, scales)
    elif isinstance(value, list):
        for item in value:
            find_scales(item, key, scales)
    elif isinstance(value, float):
        scales[key] = max(scales.get(key, 0.0), abs(value))
    return scales


def set_sampling_aside(value):
    """Take the sampling out of every uncertainty's total; tell whether there was any."""
    if isinstance(value, list):
        return any([set_sampling_aside(item) for item in value])
    if not isinstance(value, dict):
        return False
    sampling = value.get("sampling")
    if sampling and "edge" in value and value["total"] is not None:
        parts = [value[key] for key in ("edge", "resolution", "gap_fill", "sensor")]
        value["total"] = math.hypot(*parts)
        return True
    return any([set_sampling_aside(item) for item in value.values()])


def is_near(line, rel):
    """Tell whether two figures of a difference are no further apart."""
    old, _, new = line.partition(": ")[2].partition(", now ")
    try:
        return math.isclose(float(old), float(new), rel_tol=rel)
    except ValueError:
        return False


def check_meters(sidecar):
    """Say where energy-sidecar/2 does not list each attempt's meters with the attempt's energy."""
    wrong = []
    for i, attempt in enumerate(sidecar["attempts"]):
        known = [m["energy_kwh"] for m in attempt.get("meters", ()) if m["energy_kwh"] is not None]
        energy_kwh = attempt["energy_kwh"]
        same = math.isclose(sum(known), energy_kwh, rel_tol=1e-9) if energy_kwh else not sum(known)
        if not attempt.get("meters") or not same:
            wrong.append(f".attempts[{i}].meters: {known} kWh of {energy_kwh}")
    return wrong


def is_exact(sidecar):
    """Tell whether a sidecar of energy-sidecar/1 is of one exclusive meter."""
    return all(
        attempt["attribution"]["rule"] == "exclusive" and "nodes" not in attempt
        for attempt in sidecar["attempts"]
    )


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """The folder of the journals with the sidecars that the trunk makes of them."""
    folder = tmp_path_factory.mktemp("net") / "energy"
    shutil.copytree(NET / "journals", folder)
    for journal in folder.rglob("*.journal.jsonl"):
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(map(give_boot, lines)))
    done = run("sv.bin.meter", "--rebuild", folder)
    assert done.returncode == 0, done.stderr
    return folder


def give_boot(line):
    """Give each host of a journal a boot of its own: the net's have one, as no two machines do."""
    if not line.startswith('{"line":"head"'):
        return line
    return json.dumps(tell_boots(json.loads(line)), separators=(",", ":")) + "\n"


def tell_boots(value):
    """Put the host into every boot that stands next to it."""
    if isinstance(value, list):
        return [tell_boots(item) for item in value]
    if not isinstance(value, dict):
        return value
    told = {key: tell_boots(item) for key, item in value.items()}
    if told.get("boot_id") and told.get("host"):
        told["boot_id"] = f"{told['boot_id']} of {told['host']}"
    return told


def run(*words):
    return call([sys.executable, "-m", *words], timeout=120)


@pytest.mark.parametrize("name", SIDECARS)
def test_a_journal_gives_the_same_sidecar(rebuilt, name):
    old = json.loads((NET / "sidecars" / f"{name}.json").read_text())
    new = json.loads((rebuilt / f"{name}.json").read_text())
    assert new["schema"] in SCHEMAS
    wanted = translate(tell_boots(old))
    scales = None if is_exact(old) else find_scales(wanted)
    found = translate(new)
    sampled = set_sampling_aside(found)
    wrong = find_differences(wanted, found, scales)
    if sampled:
        wrong = [line for line in wrong if ".uncertainty_kwh:" not in line]
    if name in WITH_DOUBTS:
        # A suspended machine counts nothing that could hide a wrap.
        assert (new["reason"] is None) == (name == "16_suspended")
        wrong = [line for line in wrong if line.split(":")[0].split(".")[-1] not in DOUBTED]
    changed = CHANGED.get(name, ())
    wrong = [line for line in wrong if line.split(":")[0].split(".")[-1] not in changed]
    if name in BRIDGED:
        wrong = [
            line
            for line in wrong
            if ".power_w.max:" not in line and not is_near(line, BRIDGED[name])
        ]
    if name in WITHOUT_ENERGIES:
        wrong = [line for line in wrong if ".carbon.reason:" not in line]
    wrong += check_meters(new) if new["schema"] == SCHEMAS[1] else []
    how = "to the digit" if scales is None else f"to {REL:g}"
    assert not wrong, f"{name}, {how}: {len(wrong)} differences\n" + "\n".join(wrong[:40])


@pytest.mark.parametrize(("name", "is_new"), [("53_forecast", True), ("86_forecast", False)])
def test_a_sidecar_forecasts_the_same(rebuilt, tmp_path, name, is_new):
    """From a sidecar of the trunk, and from one of f8b4a44."""
    sidecar = (rebuilt if is_new else NET / "sidecars") / f"{name}.json"
    done = run("sv.bin.forecast", sidecar, tmp_path / "forecast.json")
    assert done.returncode == 0, done.stderr
    old, new = (
        json.loads(path.read_text())
        for path in (NET / "forecasts" / f"{name}.json", tmp_path / "forecast.json")
    )
    for key in ("expected", "plan", "carbon", "pue", "boundary"):
        assert not find_differences(old[key], new[key], find_scales(old)), key


@pytest.mark.parametrize("name", ["an4", "mini", "voxceleb"])
def test_a_recipes_old_settings_are_read(tmp_path, name):
    words = ["--stage", 5, "--name", "train", "--dir", tmp_path, "--sysfs", tmp_path]
    done = run(
        "sv.bin.meter", *words, "--config", NET / "conf" / f"{name}.energy.toml", "--", "true"
    )
    assert done.returncode == 0, done.stderr


MODEL = "resnet34_d_1111_w0.0625"


@pytest.fixture
def finished(tmp_path):
    """The recipe that f8b4a44 ran, at its place below a folder, every file with its time."""
    recipe = tmp_path / "tests" / "egs" / "tiny"
    shutil.copytree(NET / "recipe", recipe)
    for line in (recipe / "times.tsv").read_text().splitlines():
        name, time_ns = line.split("\t")
        os.utime(recipe / name, ns=(int(time_ns), int(time_ns)))
    return recipe


def list_results(recipe):
    """List the files of training and extraction with their times."""
    files = [path for path in (recipe / "exp" / MODEL).rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix in (".pt", ".ark", ".scp", ".txt")]
    return {path.relative_to(recipe).as_posix(): path.stat().st_mtime_ns for path in kept}


def test_no_finished_stage_is_done_again(finished):
    """By its .done records; a trunk that honours them no more says so and ends."""
    before = list_results(finished)
    words = ["--egs", finished, "--nj", 1, "--model", MODEL, "--skip-finished", "true"]
    done = call(["./run.sh", *words, "--stage", 5, "--stop-stage", 6], timeout=120)
    assert list_results(finished) == before, done.stderr
    assert done.returncode == 0 or ".done" in done.stderr, done.stderr


def test_no_finished_job_is_done_again(finished):
    """By the record next to its log."""
    folder = finished.relative_to(finished.parents[2]) / "exp" / MODEL / "xvectors_mini_test"
    root = finished.parents[2]
    record = root / folder / "log" / ".extract.1.log.done"
    words = json.loads(record.read_text())["command"]
    before = list_results(finished)
    words = [ROOT / "utils" / "run.py", "JOB=1:1", folder / "log" / "extract.JOB.log", *words]
    done = call([sys.executable, *words], timeout=60, cwd=root, SV_ENVIRONMENT=sys.executable)
    assert list_results(finished) == before, done.stderr
    assert done.returncode == 0 or record.name in done.stderr, done.stderr
    assert not (root / folder / "log" / "extract.1.log").exists()


TABLES = sorted(path.relative_to(NET / "tables").as_posix() for path in NET.glob("tables/*/*.*"))
DROPPED_COLUMNS = {"energy_above_idle_kwh", "missing"}  # the latter: reasons, in words
# These have the marks of every attempt; f8b4a44 gave them those of the run but for "incomplete".
ALL_TRIED = {"energy_all_kwh_marks", "co2_all_kg_marks", "All tried kWh", "All tried CO2 (kg)"}
FIRST_BACKEND = ("", "-", "cosine")  # rows of the others are new
TREES = {"study": ["--study", ROOT / "egs" / "voxceleb" / "study"], "four": [], "recipe": []}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folders of tables that the trunk makes, by the name of the tree."""
    root = tmp_path_factory.mktemp("trees")
    build_study(root / "study")
    build_tree(root / "four")
    shutil.copytree(NET / "recipe", root / "recipe")
    # The tables are made first; without what draws the figures, the rest takes no time.
    stub = root / "stub" / "matplotlib.py"
    stub.parent.mkdir()
    stub.write_text("raise ModuleNotFoundError('not needed here', name='matplotlib')\n")
    path = f"{root / 'stub'}:{ROOT}"
    started = {
        tree: subprocess.Popen(
            [sys.executable, "-m", "sv.bin.make_results", *options, "--inference-sets", "all",
             root / tree / "data", root / tree / "exp"],
            cwd=ROOT, env=environment(PYTHONPATH=path), text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for tree, options in TREES.items()
    }  # fmt: skip
    for tree, process in started.items():
        _, errors = process.communicate(timeout=480)
        assert (root / tree / "exp" / "results" / "table1.md").is_file(), errors
    return {tree: root / tree / "exp" / "results" for tree in TREES}


def read_rows(path):
    """Read a table as {title of the column: cell}, without rows of other backends."""
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
        grid = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        rows = [dict(zip(grid[0], line, strict=True)) for line in grid[2:]]
    return [r for r in rows if r.get("backend", r.get("Backend", "")) in FIRST_BACKEND]


def is_same_cell(old, new):
    """Tell whether two cells agree: numbers in full to 1e-12, all else as it is printed."""
    try:
        return old == new or math.isclose(float(old), float(new), rel_tol=REL, abs_tol=REL)
    except (TypeError, ValueError):
        return False


# How many kWh, or kg, a printed unit is. f8b4a44 printed these two alone, and three decimals of an
# EER in Table 2; what is bold is what is printed alike, which is more with two.
UNITS = {"kWh": 1.0, "Wh": 1e-3, "mWh": 1e-6, "kg": 1.0, "g": 1e-3, "mg": 1e-6}
UNIT = re.compile(rf"(?<!\w)({'|'.join(UNITS)})(?!\w)")
FIGURE = re.compile(r"(\**)([-+]?\d[\d.]*(?:e-\d+)?)(\**)(.*)")


def translate_printed(row):
    """Return the cells of a printed row: energies in kWh and masses in kg as numbers."""
    cells = {}
    for title, cell in row.items():
        unit, figure = UNIT.search(title), FIGURE.fullmatch(cell)
        new_title = UNIT.sub("kg" if unit and unit[1].endswith("g") else "kWh", title)
        if not figure or not (unit or "EER" in title):
            cells[new_title] = cell
        elif unit:
            number = float(figure[2]) * UNITS[unit[1]]
            cells[new_title] = (number, 1e-2, figure[1] + figure[3] + figure[4])
        else:
            cells[new_title] = (float(figure[2]), 0, figure[4])
    return cells


def is_printed_alike(old, new):
    """Tell whether two such cells agree: the rest of a number to a unit of its last digit."""
    if not isinstance(old, tuple) or not isinstance(new, tuple):
        return old == new
    if old[2] != new[2]:
        return False
    if old[1]:
        return math.isclose(old[0], new[0], rel_tol=old[1])
    return abs(old[0] - new[0]) < 0.0056  # of two decimals and three


def drop_incomplete(title, cell):
    """Return a cell without that mark, if it is of everything tried."""
    if title not in ALL_TRIED:
        return cell
    if isinstance(cell, tuple):
        return (*cell[:2], cell[2].replace("§", ""))
    return cell.replace("incomplete", "").strip()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_same_cells(results, name):
    tree, _, file = name.partition("/")
    old, new = read_rows(NET / "tables" / name), read_rows(results[tree] / file)
    assert len(old) == len(new), f"{name}: {len(old)} rows, now {len(new)}"
    printed = name.endswith(".md")
    is_alike = is_printed_alike if printed else is_same_cell
    if printed:
        old, new = ([translate_printed(row) for row in rows] for rows in (old, new))
    for row in old:  # an average of one list is that list now
        for title in [t for t in row if t.startswith("Average ") and t not in new[0]]:
            del row[title]
    wrong = [
        f"row {number} ({', '.join(list(a.values())[:3])}), {title}: {cell!r}, now {b.get(title)!r}"
        for number, (a, b) in enumerate(zip(old, new, strict=True), 1)
        for title, cell in a.items()
        if title not in DROPPED_COLUMNS
        and (title, cell, b.get(title)) != ("eer_percent_marks", "", "best")
        and not is_alike(cell, drop_incomplete(title, b.get(title)))
    ]
    assert not wrong, f"{name}: {len(wrong)} cells differ\n" + "\n".join(wrong[:40])


SCORED = NET / "scored"
BACKENDS = ("cosine", "cosine_mean", "as_norm")  # of tests/net/scored/score.toml
SCORES = {"eer_threshold", "min_dcf_threshold", "edges"}  # what has the unit of a score


@pytest.mark.parametrize("backend", ["cosine", "as_norm"])
def test_a_score_text_gives_the_same_metrics(backend):
    old = json.loads((SCORED / "scores" / f"list_{backend}.metrics.json").read_text())
    scores = SCORED / "scores" / f"list_{backend}.txt"
    options = ["--calibrated", "true", "--format", "json"]
    done = run("sv.bin.compute_metrics", *options, SCORED / "list", scores)
    assert done.returncode == 0, done.stderr
    new = json.loads(done.stdout)
    assert {key: new.get(key) for key in old} == old


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A folder with what the trunk makes of the embeddings: list_<backend>.txt, .json, ..."""
    folder = tmp_path_factory.mktemp("scored")
    score_list(folder)
    return folder


def score_list(folder):
    """Score the list by every backend, with intervals; by the program of stage 7."""
    options = ["--config", SCORED / "score.toml", "--cohort", SCORED / "cohort"]
    options += ["--utt2spk", SCORED / "xvectors" / "utt2spk"]
    done = run("sv.bin.score_trials", *options, SCORED / "xvectors", SCORED / "list", folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_embeddings_give_the_same_scores_and_intervals(scored, backend):
    name = f"list_{backend}"
    old, new = (
        [line.split() for line in (folder / f"{name}.txt").read_text().splitlines()]
        for folder in (SCORED / "scores", scored)
    )
    assert [line[:2] for line in new] == [line[:2] for line in old]
    # Another machine's matrix products may round otherwise; a figure of ranks stays.
    assert [float(c) for *_, c in new] == pytest.approx([float(c) for *_, c in old], abs=1e-5)
    for ending in (".json", ".boot.json", ".det.json", ".hist.json"):
        old, new = (
            json.loads((folder / f"{name}{ending}").read_text())
            for folder in (SCORED / "scores", scored)
        )
        for key in SCORES.intersection(old):
            assert new.pop(key) == pytest.approx(old.pop(key), abs=1e-5)
        wrong = find_differences(old, new, find_scales(old))
        assert not wrong, f"{name}{ending}\n" + "\n".join(wrong[:40])
