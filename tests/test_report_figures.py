"""The figures of stage 8: what they show, by the program and from journals of the real meter."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT, environment
from metered import (
    BOARD,
    DRAM,
    ESTIMATE,
    NODE,
    PACKAGE,
    FakeRapl,
    Runner,
    end,
    head,
    mark,
    sample,
    write_journal,
)
from report_tree import MEASURED, NO_DRAM, write, write_scores, write_sidecar
from study_exp import CROPS, EPOCHS, SYSTEMS, build_study

from sv.energy.attempt import build_machines
from sv.energy.journal import read_journal
from sv.energy.record import read_record
from sv.energy.samples import MISSING, split_attempts
from sv.energy.sidecar import write_sidecar as rebuild
from sv.energy.units import J_PER_KWH
from sv.report.figures.energy import (
    choose_front,
    collect_points,
    collect_work,
    find_cheapest,
    fit_power,
)
from sv.report.figures.frame import choose_labels, shorten_names
from sv.report.figures.learning import collect_learning
from sv.report.figures.power import (
    BINS,
    MAX_SAMPLES,
    TOTAL,
    read_trace,
    thin_samples,
)
from sv.report.figures.stages import SHARED, Part, collect_bars
from sv.report.results import collect_results

MODELS = ("resnet101_d", "resnet34_d", "resnet18_d", "resnet50_w0.25")
LISTS = ("vox1_o", "commonbench")
METERS = 8  # other meters of a stage
KINDS = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<svg"}  # of files, and how they begin


def report(data, exp, *options):
    """Run the program; give what it says of figures, and the files of figures by name."""
    subprocess.run(
        [sys.executable, "-m", "sv.bin.make_results", *options, data, exp],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=400, check=True,
    )  # fmt: skip
    paths = [path for path in (exp / "results").iterdir() if path.suffix[1:] in KINDS]
    contents = (exp / "results" / "contents.txt").read_text()
    said = contents.partition("Not in the figures:\n")[2].splitlines()
    return said, {path.name: path.read_bytes() for path in paths}


def stems(files):
    found = {Path(name).stem for name in files}
    assert files.keys() == {f"{stem}.{kind}" for stem in found for kind in KINDS}
    return found


def read_titles(svg):
    """Read the hover texts of an SVG."""
    return [title.text for title in ElementTree.fromstring(svg).findall(".//{*}title")]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four systems of the study on two lists, and what the program makes of them."""
    root = tmp_path_factory.mktemp("figures")
    data, exp = build_study(root, MODELS)
    write(data / "test_trials", "vox1_o voxceleb1\ncommonbench commonbench\n")
    for path in exp.glob("*/scores/*"):
        if not path.name.startswith(LISTS):
            path.unlink()
    said, files = report(data, exp)
    return data, exp, said, files


def test_every_figure_is_written_and_a_rerun_is_the_same(study):
    data, exp, said, files = study
    expected = {"energy_accuracy", "energy_gmac", "learning_energy", "energy_stages"}
    expected |= {f"{kind}_{name}" for kind in ("energy_accuracy", "scores") for name in LISTS}
    assert stems(files) == expected
    for name, content in files.items():
        assert len(content) > 5000, name
        assert content.startswith(KINDS[name[-3:]])
        assert b"Date" not in content and b"<dc:date" not in content
    (line,) = (line for line in said if line.startswith("power"))
    assert line.startswith("power: no trace of stages without a journal (05_train of resnet101_d,")
    assert "det_vox1_o: no figure, no system has a DET curve" in said
    # Of an earlier run, when there was more to show.
    old = [exp / "results" / name for name in ("power_x_train.pdf", "energy_accuracy_gone.png")]
    for path in old:
        path.write_bytes(b"old")
    assert report(data, exp)[1] == files
    assert not any(path.exists() for path in old)


def test_the_pointer_shows_the_figures_of_a_mark(study):
    *_, files = study
    titles = {stem: read_titles(files[f"{stem}.svg"]) for stem in stems(files)}
    assert [text.split("\n")[0] for text in titles["energy_accuracy_vox1_o"]] == list(MODELS)
    (text,) = (text for text in titles["energy_accuracy_vox1_o"] if text.startswith("resnet34_d"))
    assert re.fullmatch(r"resnet34_d\nEER 0.99 % \(95 %: .* to .*\)\n46.20 kWh, measured", text)
    assert titles["energy_gmac"][1].endswith("46.20 kWh, measured")
    epochs = titles["learning_energy"]
    assert len(epochs) == len(MODELS) * EPOCHS
    assert epochs[-1] == f"{MODELS[-1]}, epoch {EPOCHS}\nEER 1.50 %, 34.35 kWh, measured"
    pieces = titles["energy_stages"]
    assert "resnet34_d\n5 train: 46.20 kWh\ntrain: 46.20 kWh, measured" in pieces
    assert "resnet34_d\nGPU: 34.65 kWh, measured" in pieces
    assert titles["scores_vox1_o"] == []


def test_the_front_and_the_knee_are_of_the_points(study):
    data, exp, *_ = study
    points, left_out = collect_points(collect_results(data, exp), LISTS)
    assert not left_out
    shown = {point.label: (point.energy_kwh, point.eer_percent) for point in points}
    assert shown["resnet34_d"] == (46.2, pytest.approx((0.99 + 3.94) / 2))
    assert all(low < p.eer_percent < high for p in points for low, high in [p.eer_interval])
    front, knee, lacks = choose_front(points)
    # resnet18_d costs more than resnet34_d and is worse.
    assert [points[i].label for i in front] == ["resnet50_w0.25", "resnet34_d", "resnet101_d"]
    assert (points[knee].label, lacks) == ("resnet34_d", "")


def test_no_front_of_energies_that_must_not_be_compared(study, tmp_path):
    data, exp, *_ = study
    copy = tmp_path / "exp"
    shutil.copytree(exp, copy)
    path = copy / "resnet101_d" / "energy" / "05_train.json"
    record = json.loads(path.read_text())
    write(path, {**record, "channels": record["channels"][:1]})
    points, _ = collect_points(collect_results(data, copy), LISTS)
    front, knee, lacks = choose_front(points)
    assert (front, knee) == ([], None)
    assert lacks.startswith("no Pareto front: the energies cover different parts of the machines")
    # An unfinished training is shown, and on no front.
    write(path, {**record, "energy_kwh": 1.0, "status": "interrupted"})
    points, _ = collect_points(collect_results(data, copy), LISTS)
    front, _, _ = choose_front(points)
    assert points[0].label == "resnet101_d§"
    assert 0 not in front
    assert front


def test_work_against_energy(study, tmp_path):
    data, exp, *_ = study
    found, left_out = collect_work(collect_results(data, exp))
    assert not left_out
    work = {item.label: item for item in found}
    assert work["resnet34_d"].gmac == pytest.approx(48.07 * CROPS)
    assert work["resnet34_d"].energy_kwh == 46.2
    rates = {name: SYSTEMS[name][2] / SYSTEMS[name][1] for name in MODELS}
    assert find_cheapest(found).label == min(rates, key=rates.get)
    fit = fit_power(found)
    x, y = (np.log10([SYSTEMS[name][place] for name in MODELS]) for place in (1, 2))
    assert fit.exponent == pytest.approx(np.polyfit(x, y, 1)[0])
    assert fit.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert fit_power(found[:3]) is None
    copy = tmp_path / "exp"
    shutil.copytree(exp, copy)
    (copy / "resnet34_d" / "model.json").unlink()
    network = json.loads((copy / "resnet18_d" / "model.json").read_text())
    phases = {"training": CROPS - 10, "fine_tuning": 10}
    write(copy / "resnet18_d" / "model.json", {**network, "crops_by_phase": phases})
    found, left_out = collect_work(collect_results(data, copy))
    assert [item.label for item in found] == ["resnet101_d", "resnet18_d", "resnet50_w0.25"]
    assert left_out == [
        "resnet34_d is not shown: no model.json",
        "resnet18_d: the crops of fine_tuning are longer and are counted as the first phase's",
    ]


def test_of_many_points_only_the_front_is_named():
    names = [f"resnet{depth}_d" for depth in range(1, 9)]
    labels, key = choose_labels(names, {0, 3})
    assert labels == ["1_d", "1", "2", "4_d", "3", "4", "5", "6"]
    assert key.replace("\u00a0", " ") == "1 2_d, 2 3_d, 3 5_d, 4 6_d, 5 7_d, 6 8_d"
    assert choose_labels(names[:6], {0}) == (["1_d", "2_d", "3_d", "4_d", "5_d", "6_d"], "")


def test_the_published_study_is_drawn_as_ones_own(tmp_path):
    words = ["-m", "sv.bin.draw_study", ROOT / "egs/voxceleb/study", tmp_path / "published"]
    done = subprocess.run(
        [sys.executable, *words], env=environment(), cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "Knee: resnet50_d_2822," in done.stdout and done.stderr == ""
    titles = read_titles((tmp_path / "published.svg").read_bytes())
    assert len(titles) == 15 and "resnet419_d\nEER 3.35 %\n895.7 kWh" in titles
    assert (tmp_path / "published.pdf").is_file() and (tmp_path / "published.png").is_file()


def test_learning_curves_of_one_attempt(study):
    data, exp, *_ = study
    curves, left_out = collect_learning(collect_results(data, exp))
    assert not left_out
    assert [curve.system for curve in curves] == list(MODELS)
    assert curves[0].epochs == tuple(range(1, EPOCHS + 1))
    assert curves[0].energy_kwh[-1] == pytest.approx(SYSTEMS["resnet101_d"][2])
    assert curves[0].eer_percent[-1] == pytest.approx(0.71 * (1 + 9 * 0.85**EPOCHS))


def test_the_names_of_points_lose_what_all_begin_with():
    assert shorten_names(["resnet18_d", "resnet50_w2"]) == (["18_d", "50_w2"], "resnet")
    assert shorten_names(["resnet18_d"]) == (["resnet18_d"], "")
    assert shorten_names(["baseline", "resnet18_d"]) == (["baseline", "resnet18_d"], "")


COMMAND = """
mark() {
  printf '{"mark": "%s", "time_unix": %s%s}\\n' "$1" "$(date +%s.%N)" "$2" >> "$SV_METER_MARKS"
}
"""


@pytest.fixture(scope="module")
def metered(tmp_path_factory):
    """A training of two attempts and extractions under the real meter, with a fake counter."""
    root = tmp_path_factory.mktemp("metered")
    data, exp, name = root / "data", root / "exp", "resnet18_d"
    write(data / "test_trials", "vox1_o voxceleb1\n")
    write(exp / name / "model.json", {"name": name, "parameters": 1, "parameters_with_head": 2})
    write_scores(exp, name, "vox1_o", "voxceleb1", 9.0, det=False)
    parts = [
        'mark phase \', "name": "training"\'; sleep 0.5;'
        'mark epoch \', "epoch": 1, "valid_eer_percent": 30.0\'; sleep 0.2; exit 3',
        "mark resumed ''; sleep 0.4; mark epoch ', \"epoch\": 2, \"valid_eer_percent\": 20.0';"
        "mark epoch ', \"epoch\": 3'; sleep 0.3",
    ]
    with FakeRapl(root / "sys", 50.0):
        # Three periods without a sample are drawn as a gap, and a busy machine stalls for some.
        runner = Runner(exp / name, 'country = "FRA"\nperiod_s = 0.2\n')
        runner.options[runner.options.index("--sysfs") + 1] = str(root / "sys")
        for number, part in enumerate(parts):
            done = runner.run("bash", "-c", COMMAND + part)
            assert done[0] == (3, 0)[number], done
        for extracted in ("vox1", "gone"):
            runner.options[:4] = ["--stage", "6", "--name", f"extract_{extracted}"]
            assert runner.run("sleep", "0.5")[0] == 0
        (runner.folder / "06_extract_gone.journal.jsonl").unlink()
    readings = [sample(float(t_s), rapl__package__0=80_000_000 * t_s) for t_s in range(4)]
    for job in range(1, METERS + 1):
        path = runner.folder / "06_extract_vox1.nodes" / "1" / f"extract.{job}.journal.jsonl"
        write_journal(path, head(PACKAGE, host=f"node{job}"), *readings, end(3.0))
    return data, exp, exp / name / "energy"


def test_learning_curves_go_on_over_attempts(metered):
    data, exp, energy = metered
    sidecar = json.loads((energy / "05_train.json").read_text())
    first, second = sidecar["attempts"]
    (curve,), left_out = collect_learning(collect_results(data, exp))
    assert curve.epochs == (1, 2)
    marks = [m for a in (first, second) for m in a["marks"] if m["mark"] == "epoch"]
    expected = [marks[0]["energy_kwh"], first["energy_kwh"] + marks[1]["energy_kwh"]]
    assert curve.energy_kwh == pytest.approx(expected)
    assert curve.energy_kwh[1] > first["energy_kwh"] > curve.energy_kwh[0] > 0
    assert curve.eer_percent == (30.0, 20.0)
    assert left_out == ["resnet18_d without epoch 3: no validation EER"]
    # Where the first attempt's energy is not known, no epoch after it is.
    unknown = {**sidecar, "attempts": [{**first, "energy_kwh": None}, second]}
    path = energy / "05_train.json"
    text = path.read_text()
    try:
        write(path, unknown)
        (curve,), left_out = collect_learning(collect_results(data, exp))
    finally:
        path.write_text(text)
    assert curve.epochs == (1,)
    reason = "the energy of an attempt before it is not known"
    assert left_out == [f"resnet18_d without epoch 2, 3: {reason}"]


def test_power_traces_of_the_real_meter(metered):
    data, exp, energy = metered
    said, files = report(data, exp)
    assert {"power_resnet18_d_train", "power_resnet18_d_extract"} <= stems(files)
    assert "learning_energy: resnet18_d without epoch 3: no validation EER" in said
    assert [line for line in said if line.startswith("power")] == [
        "power: no trace of stages without a journal (06_extract_gone of resnet18_d)",
        "power_resnet18_d_extract: 2 more meters of 06_extract_vox1 are not shown",
    ]
    other = read_trace(energy / "06_extract_vox1.nodes" / "1" / "extract.1.journal.jsonl")
    assert other.host == "node1"
    assert other.mean_w[-1] == pytest.approx(80)
    sidecar = json.loads((energy / "05_train.json").read_text())
    record = read_record(energy / "05_train.json")
    trace = read_trace(energy / "05_train.journal.jsonl", record)
    assert (trace.attempts, trace.tried, trace.thinned_s) == ((1, 2), 2, None)
    assert trace.edges_s[-1] == pytest.approx(sidecar["duration_s"])
    assert trace.lines[-1].boundary == TOTAL
    total_j = np.nansum(trace.mean_w[-1] * trace.awake_s)
    assert total_j == pytest.approx(sidecar["energy_kwh"] * J_PER_KWH, rel=1e-6)
    assert 30 < np.nanmedian(trace.mean_w[-1]) < 80  # 50 W of the package and an estimate of memory
    kinds = [event.kind for event in trace.events]
    assert kinds == ["phase", "epoch", "attempt", "epoch", "epoch"]
    attempt = trace.events[2]
    assert attempt.at_s == pytest.approx(sidecar["attempts"][0]["duration_s"])
    assert 0.4 < trace.events[1].at_s < attempt.at_s < trace.events[3].at_s < trace.edges_s[-1]


def write_long(path, seconds):
    """Write a journal of a package at 100 W, a spike, a gap and a slow sensor of the machine."""
    lines, count = [], 0
    for t_s in range(seconds):
        count += (400 if t_s == seconds // 4 else 100) * 1_000_000
        if not seconds // 2 < t_s < seconds // 2 + seconds // 20:
            raw = [count % PACKAGE["max_range"], 300 if t_s % 5 == 2 else None]
            lines.append({**sample(float(t_s)), "raw": raw})
    lines = [head(PACKAGE, NODE), *lines, mark(10.0, "epoch", epoch=1), end(float(seconds))]
    # As the meter writes: without spaces, raw in the order of the channels.
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return rebuild(path)


def test_thinning_is_no_gap_of_a_power():
    lines = [sample(float(t_s), nvml__board__a=50_000) for t_s in range(101)]
    ((kept,), _) = split_attempts([head(BOARD), *lines])
    thin_samples(kept, 4)
    (machine,) = build_machines(kept, None)
    assert kept.head["period_s"] == 4.0 and len(kept.t_s) == 26
    assert (machine.energy_j, machine.channels[0].samples.covered) == (5000.0, 1.0)
    assert machine.channels[0].doubt is None


def test_a_long_trace_is_thinned_and_keeps_energy_spikes_and_gaps(tmp_path):
    seconds = 3 * MAX_SAMPLES + 100
    journal = tmp_path / "05_train.journal.jsonl"
    sidecar = write_long(journal, seconds)
    ((kept,), _) = split_attempts(read_journal(journal))
    thin_samples(kept, 3)
    assert len(kept.t_s) == len(kept.awake_s) < MAX_SAMPLES
    assert [kept.t_s[0], kept.t_s[-1]] == [0.0, seconds - 1.0]
    # The machine answers in one sample of five: a kept one has the answer of two before it.
    answers = [value for value in kept.raw["ipmi.node"] if value != MISSING]
    assert len(answers) == pytest.approx(3 / 5 * len(kept.t_s), rel=0.01)
    trace = read_trace(journal, sidecar)
    assert trace.thinned_s == 3.0
    package, total = trace.lines
    assert package.boundary == "cpu_package"
    assert total.name == "total: node"
    package_w, total_w = trace.mean_w
    assert len(total_w) <= BINS + 3  # two of them end at the gap
    # The package's counter was seen on both sides of the gap, which has no sample.
    channel = next(ch for ch in sidecar.channels if ch.id == "rapl.package.0")
    seen_j = np.nansum(package_w * trace.awake_s)
    assert seen_j == pytest.approx(channel.energy_j - 100 * seconds / 20, rel=1e-3)
    assert np.nanmax(trace.high_w[0]) == pytest.approx((2 * 100 + 400) / 3)
    assert np.nanmedian(package_w) == pytest.approx(100)
    open_s = np.diff(trace.edges_s)[np.isnan(package_w)].sum()
    assert open_s == pytest.approx(seconds / 20, rel=1e-3)
    assert np.nanmedian(total_w) == pytest.approx(300)


def metered_tree(tmp_path, *channels, samples):
    """Write a system whose training has these channels and readings; give what is collected."""
    name = "resnet18_d"
    write(tmp_path / "data" / "test_trials", "vox1_o voxceleb1\n")
    energy = tmp_path / "exp" / name / "energy"
    lines = [sample(float(t_s), **raw) for t_s, raw in enumerate(samples)]
    write_journal(energy / "05_train.journal.jsonl", head(*channels), *lines, end(len(lines) - 1.0))
    sidecar = rebuild(energy / "05_train.journal.jsonl")
    return sidecar, collect_results(tmp_path / "data", tmp_path / "exp")


def test_a_machine_is_divided_into_its_parts_and_its_rest(tmp_path):
    samples = [
        {"rapl__package__0": 100_000_000 * t, "rapl__dram__0": 10_000_000 * t,
         "nvml__board__a": 300_000, "ipmi__node": 500 if t % 5 == 0 else None}
        for t in range(61)
    ]  # fmt: skip
    sidecar, results = metered_tree(tmp_path, PACKAGE, DRAM, BOARD, NODE, samples=samples)
    (bar,), left_out = collect_bars(results)
    assert not left_out
    assert bar.stages == ((5, "train", sidecar.energy_kwh),)
    watts = {part.component: part.energy_kwh * J_PER_KWH / 60 for part in bar.parts}
    assert watts == pytest.approx({"cpu_package": 100, "dram": 10, "gpu_board": 300, "rest": 90})
    assert sum(part.energy_kwh for part in bar.parts) == pytest.approx(sidecar.energy_kwh)


def test_parts_that_exceed_the_machine_are_not_shown(tmp_path):
    samples = [
        {"rapl__package__0": 550_000_000 * t, "ipmi__node": 500 if t % 5 == 0 else None}
        for t in range(61)
    ]
    sidecar, results = metered_tree(tmp_path, PACKAGE, NODE, samples=samples)
    (bar,), left_out = collect_bars(results)
    assert bar.parts == (Part("undivided", False, pytest.approx(sidecar.energy_kwh)),)
    assert left_out == [
        "1 stages are not divided, first 05_train of resnet18_d: "
        "the sidecar does not say which part of the machine used all of it"
    ]


def test_an_estimate_is_a_part_that_is_called_so(tmp_path):
    samples = [{"cpu_time": 1_000_000 * t, "nvml__board__a": 300_000} for t in range(61)]
    _, results = metered_tree(tmp_path, ESTIMATE, BOARD, samples=samples)
    (bar,), _ = collect_bars(results)
    assert [(p.component, p.estimated) for p in bar.parts] == [
        ("cpu_package", True), ("gpu_board", False),
    ]  # fmt: skip
    assert bar.parts[0].energy_kwh * J_PER_KWH == pytest.approx(60 * 6.0)


def test_bars_of_stages_add_up_and_say_what_is_missing(study, tmp_path):
    data, exp, *_ = study
    bars, _ = collect_bars(collect_results(data, exp))
    shared, *systems = bars
    assert shared.label == SHARED
    assert [name for _, name, _ in shared.stages] == ["manifests", "augment", "fbank"]
    assert [bar.label for bar in systems] == list(MODELS)
    train, extract, score = systems[0].stages
    assert train == (5, "train", SYSTEMS["resnet101_d"][2])
    gmac = SYSTEMS["resnet101_d"][1]
    assert extract == (6, "extract", pytest.approx(2 * 1.2 + gmac * (0.0387 + 0.0245)))
    assert score == (7, "score", pytest.approx(0.005))
    for bar in bars:
        assert sum(part.energy_kwh for part in bar.parts) == pytest.approx(bar.energy_kwh)
    copy = tmp_path / "exp"
    shutil.copytree(exp / "resnet34_d", copy / "resnet34_d")
    path = copy / "resnet34_d" / "energy" / "06_extract_commonbench.json"
    write_sidecar(path, None, NO_DRAM, fraction=None, status="failed", reason="no channel")
    write_sidecar(copy / "resnet34_d" / "energy" / "05_forecast.json", 7.0, MEASURED)
    (_, bar), left_out = collect_bars(collect_results(data, copy))
    assert bar.stages[0] == (5, "train", 46.2)
    assert "resnet34_d without its forecast, which made no result" in left_out
    assert "resnet34_d without 06_extract_commonbench: the energy is not known" in left_out
