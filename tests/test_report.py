"""Stage 8 through the real program, on a tree as stages 0 to 7 leave it: one system complete."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
from conftest import ROOT, environment

from sv.report.cells import format_duration, format_millions, format_significant
from sv.report.formats import escape_latex
from sv.report.records import system_order

FRANCE = {
    "provider": "owid", "zone": "FRA", "year": 2024, "vintage": "2025-07", "scope": "lifecycle",
    "basis": "production", "g_per_kwh": 44.179, "source": "Our World in Data", "reason": None,
}  # fmt: skip
GERMANY = {**FRANCE, "zone": "DEU", "g_per_kwh": 344.14}
MEASURED = {
    "id": "rapl.package.0", "boundary": "cpu_package", "kind": "measured",
    "method": "counter_delta", "source": "intel-rapl:0", "in_total": True, "reason": None,
}  # fmt: skip
ESTIMATED = {
    "id": "cpu_time", "boundary": "cpu_package", "kind": "estimated",
    "method": "cpu_time_x_power", "source": "6.25 W a core", "in_total": True, "reason": None,
}  # fmt: skip
GPU = {
    **MEASURED, "id": "nvml.board.GPU-1", "boundary": "gpu_board", "source": "NVML",
}  # fmt: skip
NO_DRAM = {
    "id": "dram", "boundary": "dram", "kind": "unavailable", "method": None, "source": "powercap",
    "in_total": False, "reason": "no dram zone",
}  # fmt: skip


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def write_sidecar(path, kwh, *channels, fraction=1.0, status="complete", carbon=FRANCE, **more):
    stage, name = path.stem.split("_", 1)
    record = {
        "schema": "energy-sidecar/1", "stage": int(stage), "name": name, "model": None,
        "status": status, "exit_code": 0, "host": "node1", "started_utc": "2025-01-01T00:00:00Z",
        "duration_s": 5000.0, "energy_kwh": kwh, "energy_all_kwh": None if kwh is None else 2 * kwh,
        "measured_fraction": fraction, "reason": None, "carbon": carbon,
        "co2_g": None if kwh is None else kwh * carbon["g_per_kwh"],
        "pue": {"value": 1.0, "source": "none: the machines alone"},
        "channels": [{**channel, "energy_j": kwh} for channel in channels], "attempts": [{}],
    }  # fmt: skip
    write(path, {**record, **more})


def write_model(exp, name, parameters):
    write(
        exp / name / "model.json",
        {"name": name, "parameters": parameters, "parameters_with_head": parameters + 1534464},
    )


def write_scores(exp, model, trials, data_set, eer_percent, *, suffix="", det=True, **more):
    path = exp / model / "scores" / f"{trials}_cosine{suffix}.json"
    metrics = {
        "trials_name": trials, "data_set": data_set, "backend": "cosine", "precision": "fp32",
        "trials": 3000, "targets": 1000, "nontargets": 2000, "eer_percent": eer_percent,
        "eer_threshold": 0.5,
        "min_dcf": {"0.01": eer_percent / 12, "0.05": eer_percent / 20, "0.001": 0.9},
    }  # fmt: skip
    write(path, {**metrics, **more})
    if det:  # two normal distributions of equal variance: a straight line on probit axes
        shift = -2 * NormalDist().inv_cdf(eer_percent / 100)
        thresholds = np.linspace(-4, 4 + shift, 300)
        cdf = np.vectorize(NormalDist().cdf)
        p_fa, p_miss = 1 - cdf(thresholds), cdf(thresholds - shift)
        curve = {"p_fa": [1.0, *p_fa, 0.0], "p_miss": [0.0, *p_miss, 1.0]}
        write(path.with_suffix(".det.json"), curve)


def write_statistics(exp, model, trials, eer_percent, *, own=0.0, digest="list", seed=0):
    """Write what compute_statistics adds; speakers move all systems alike, ``own`` but one."""
    path = exp / model / "scores" / f"{trials}_cosine.json"
    speakers = np.random.default_rng(1).normal(size=1000) * 0.3
    eers = eer_percent + speakers + own * np.random.default_rng(len(model)).normal(size=1000)
    low, high = np.percentile(eers, [2.5, 97.5])
    metrics = json.loads(path.read_text())
    costs = {p: cost * eers / eer_percent for p, cost in metrics["min_dcf"].items()}
    bounds = {p: np.percentile(values, [2.5, 97.5]).tolist() for p, values in costs.items()}
    write(path, {**metrics, "eer_percent_interval": [low, high], "min_dcf_interval": bounds})
    det = {"p_fa": [0.001, 0.01, 0.1], "p_miss_low": [0.05, 0.01, 0.001],
           "p_miss_high": [0.1, 0.03, 0.005]}  # fmt: skip
    record = {
        "trials_digest": digest, "unit": "speaker", "speakers": 40, "seed": seed,
        "replicates": 1000, "undefined": 0, "of_eer_percent": eer_percent, "det": det,
        "eer_percent": eers.tolist(), "min_dcf": {p: list(values) for p, values in costs.items()},
    }  # fmt: skip
    write(path.with_suffix(".boot.json"), record)
    histogram = {"edges": [-1, 0, 0.5, 1], "targets": [0, 100, 900], "nontargets": [500, 1400, 100]}
    write(path.with_suffix(".hist.json"), histogram)


def write_extraction(exp, model, data_set, precision="fp32", *, utterances=4000, untrained=False):
    suffix = "" if precision == "fp32" else f"_{precision}"
    suffix += "_untrained" if untrained else ""
    info = {"data_set": data_set, "precision": precision, "utterances": utterances}
    path = exp / model / f"xvectors_{data_set}{suffix}" / "info.json"
    write(path, {**info, "frames": 100, "audio_s": 1.0, "device": "cuda", "untrained": untrained})


def build_tree(root):
    """Write data/ and exp/ of four systems: complete, partly estimated, estimated, failed."""
    data, exp = root / "data", root / "exp"
    write(data / "test_trials", "vox1_o voxceleb1\nvox1_e voxceleb1\ncnceleb cnceleb\n")
    write_sidecar(data / "energy" / "03_fbank.json", 0.5, MEASURED)
    write_sidecar(exp / "energy" / "08_results.json", 0.0001, MEASURED)

    write_model(exp, "resnet50_d", 15635968)
    for trials, eer_percent in (("vox1_o", 0.88), ("vox1_e", 1.0)):
        write_scores(exp, "resnet50_d", trials, "voxceleb1", eer_percent)
    write_scores(exp, "resnet50_d", "vox1_o", "voxceleb1", 0.8805, suffix="_fp16", precision="fp16")
    energy = exp / "resnet50_d" / "energy"
    write_sidecar(energy / "05_train.json", 51.69, MEASURED, GPU, NO_DRAM)
    write_sidecar(energy / "06_extract_voxceleb1.json", 3.11, MEASURED, GPU, NO_DRAM)
    write_sidecar(energy / "06_extract_voxceleb1_fp16.json", 2.3, MEASURED, GPU, NO_DRAM)
    write_extraction(exp, "resnet50_d", "voxceleb1")
    write_extraction(exp, "resnet50_d", "voxceleb1", "fp16")

    write_model(exp, "resnet50_d_2822", 10437632)
    write_scores(exp, "resnet50_d_2822", "vox1_o", "voxceleb1", 0.83, det=False)
    energy = exp / "resnet50_d_2822" / "energy"
    write_sidecar(energy / "05_train.json", 52.06, ESTIMATED, GPU, fraction=0.75)

    name = "resnet18_w0.125"
    write_model(exp, name, 126000)
    for trials, eer_percent in (("vox1_o", 9.1), ("vox1_e", 11.0)):
        write_scores(exp, name, trials, "voxceleb1", eer_percent)
    write_scores(exp, name, "vox1_o", "voxceleb1", 47.13, suffix="_untrained", untrained=True)
    energy = exp / name / "energy"
    estimated = {"fraction": 0.0, "carbon": GERMANY}
    write_sidecar(energy / "05_train.json", 0.0012345, ESTIMATED, status="interrupted", **estimated)
    write_sidecar(energy / "06_extract_voxceleb1.json", 0.000111, ESTIMATED, **estimated)
    write_extraction(exp, name, "voxceleb1", utterances=80)
    write_extraction(exp, name, "voxceleb1", untrained=True)

    write_statistics(exp, "resnet50_d", "vox1_o", 0.88, own=0.05)
    write_statistics(exp, "resnet50_d", "vox1_e", 1.0)
    write_statistics(exp, "resnet50_d_2822", "vox1_o", 0.83, own=0.05)
    write_statistics(exp, name, "vox1_o", 9.1, own=0.1)
    write_statistics(exp, name, "vox1_e", 11.0, seed=1)

    energy = exp / "resnet34_d" / "energy"
    reason = "no channel has an energy"
    write_sidecar(energy / "05_train.json", None, NO_DRAM, fraction=None, status="failed",
                  reason=reason)  # fmt: skip
    write(energy / "06_extract_voxceleb1.journal.jsonl", "{}\n")
    return data, exp


@pytest.fixture
def tree(tmp_path):
    return build_tree(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Run the program once for all tests that only read: data, exp, what it printed."""
    data, exp = build_tree(tmp_path_factory.mktemp("report"))
    done = subprocess.run(
        [sys.executable, "-m", "sv.bin.make_results", data, exp],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return data, exp, done


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_markdown(path):
    """Give the rows of a Markdown table as {title: text}; headings of sections are left out."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    grid = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [dict(zip(grid[0], line, strict=True)) for line in grid[2:]]
    return (
        [row for row in rows if not row["System"].startswith("**")] if "System" in rows[0] else rows
    )


def test_training_table(reported):
    data, exp, done = reported
    text = (exp / "results" / "table1.md").read_text()
    rows = {row["System"]: row for row in read_markdown(exp / "results" / "table1.md")}
    # The study's order: depth (deep first), stage variants, width variants.
    assert list(rows) == ["resnet50_d", "resnet34_d", "resnet50_d_2822", "resnet18_w0.125"]
    best = rows["resnet50_d"]
    assert (best["Params (M) net"], best["Params (M) with head"]) == ("15", "17")
    assert (best["Average EER (%)"], best["Energy (kWh)"], best["CO2 (kg)"]) == (
        "0.94",
        "51.69",
        "2.284",
    )
    assert (best["vox1_e EER (%)"], best["vox1_e minDCF"]) == ("1.00", "0.083")
    assert rows["resnet18_w0.125"]["Energy (kWh)"] == "0.00123†§"
    assert rows["resnet50_d_2822"]["Energy (kWh)"] == "52.06‡"
    # Not scored on a list that others have: no average. Nobody has cnceleb: it spoils no average.
    assert rows["resnet50_d_2822"]["Average EER (%)"] == "-"
    assert best["cnceleb EER (%)"] == "-"
    assert rows["resnet34_d"]["Energy (kWh)"] == "-"
    for line in (
        "- † estimated from CPU time x power, 6.25 W a core (cpu_package), not measured",
        "- ‡ partly estimated from CPU time x power, 6.25 W a core (cpu_package), 25.0 %, "
        "the rest measured",
        "- § incomplete: the stage is interrupted",
        "- untrained network: resnet18_w0.125 EER 47.1 % (vox1_o)",
        "- Averages are over vox1_o, vox1_e.",
        "- No system has been scored on cnceleb.",
        "- PUE: 1 (none: the machines alone), in CO2 and not in energy.",
        "- Average EER (%), Average minDCF: not scored on vox1_e (fp32): resnet50_d_2822",
        "- vox1_e EER (%), vox1_e minDCF: no scores/vox1_e_cosine.json: "
        "resnet34_d, resnet50_d_2822",
        "- Energy (kWh), CO2 (kg): 05_train.json has no energy (no channel has an energy): "
        "resnet34_d",
        "- Params (M) net, Params (M) with head: no model.json: resnet34_d",
    ):
        assert line in text.splitlines(), f"{line}\n{text}"
    assert "CO2 factors differ between rows, which must not be compared: 44.18 g/kWh" in text
    assert "owid, zone FRA, 2024, vintage 2025-07, lifecycle scope, production" in text
    assert "Energy covers different parts between rows, which must not be compared: " in text
    assert text in done.stdout
    assert str(exp / "results" / "table3.csv") in done.stdout
    assert str(data / "energy" / "03_fbank.json") in done.stdout


def test_inference_table(reported):
    data, exp, done = reported
    rows = read_markdown(exp / "results" / "table2.md")
    keys = [(row["System"], row["Test set"], row["Precision"]) for row in rows]
    names = ["resnet50_d", "resnet34_d", "resnet50_d_2822", "resnet18_w0.125"]
    expected = [(name, "voxceleb1", "FP32") for name in names]
    expected += [("resnet50_d", "voxceleb1", "FP16")]
    expected += [(name, "cnceleb", "FP32") for name in names]
    assert keys == expected
    assert rows[0]["EER (%)"] == "0.940"
    assert rows[0]["Duration"] == "01:23:20"
    assert rows[0]["J per utterance"] == "2799"  # 3.11 kWh / 4000
    assert rows[3]["J per utterance"] == "4.995†"
    assert rows[4]["Energy (kWh)"] == "2.300"
    assert rows[4]["EER (%)"] == "-"  # fp16 was scored on one of two lists
    text = (exp / "results" / "table2.md").read_text()
    assert "06_extract_voxceleb1.journal.jsonl has no sidecar yet" in text
    assert "EER and minDCF of voxceleb1: means of vox1_o, vox1_e." in text
    assert "untrained" not in text


def test_stage_table(reported):
    data, exp, done = reported
    rows = read_markdown(exp / "results" / "table3.md")
    assert (rows[0]["Stage"], rows[0]["System"], rows[0]["All tried (kWh)"]) == (
        "3",
        "shared",
        "1.000",
    )
    assert (rows[-1]["Stage"], rows[-1]["Energy (kWh)"]) == ("8", "0.000100")
    by_key = {(row["System"], row["Name"]): row for row in rows}
    mixed = by_key["resnet50_d_2822", "train"]
    assert (mixed["Measured (%)"], mixed["Estimated (%)"]) == ("75.0", "25.0")
    assert by_key["resnet34_d", "train"]["Status"] == "failed"
    text = (exp / "results" / "table3.md").read_text()
    assert "journals without a sidecar" in text
    assert "resnet34_d/energy/06_extract_voxceleb1.journal.jsonl" in text


def test_confidence_table(reported):
    data, exp, done = reported
    text = (exp / "results" / "table4.md").read_text()
    assert text.index("**Average**") < text.index("**vox1_o**") < text.index("**vox1_e**")
    table = read_csv(exp / "results" / "table4.csv")
    rows = {(row["trial_list"], row["system"]): row for row in table}
    lists = {"Average": 2, "vox1_o": 3, "vox1_e": 2}
    assert {key: sum(name == key for name, _ in rows) for key in lists} == lists
    tied, best = rows["vox1_o", "resnet50_d"], rows["vox1_o", "resnet50_d_2822"]
    assert (best["eer_percent"], best["eer_percent_above_best"]) == ("0.83", "0.0")
    # Both are uncertain by far more than they differ; their own noise decides.
    assert float(best["eer_percent_high"]) - float(best["eer_percent_low"]) > 1
    assert float(tied["eer_percent_above_best"]) == pytest.approx(0.05)
    width = float(tied["eer_percent_above_best_high"]) - float(tied["eer_percent_above_best_low"])
    assert width == pytest.approx(2 * 1.96 * 0.05 * 2**0.5, rel=0.15)
    assert tied["eer_percent_above_best_marks"] == "within_noise"
    assert float(tied["eer_percent_p"]) > 0.2
    worse = rows["vox1_o", "resnet18_w0.125"]
    assert worse["eer_percent_above_best_marks"] == ""
    assert float(worse["eer_percent_p"]) == pytest.approx(2 / 1001)
    # Other draws: no pairs, so nothing is said of the difference, and nothing of the average.
    other = rows["vox1_e", "resnet18_w0.125"]
    assert other["eer_percent_above_best"] == other["eer_percent_p"] == ""
    assert "not the same trials, seed or number of replicates as resnet50_d" in other["missing"]
    assert float(other["eer_percent_high"]) == pytest.approx(11.6, abs=0.1)
    average = rows["Average", "resnet50_d"]
    assert float(average["eer_percent"]) == pytest.approx(0.94)
    # Speakers of both lists move it together: the mean is no surer than either.
    high = 0.94 + np.percentile(np.random.default_rng(1).normal(size=1000) * 0.3, 97.5)
    assert float(average["eer_percent_high"]) == pytest.approx(high, abs=0.02)
    shown = {row["System"]: row for row in read_markdown(exp / "results" / "table1.md")}
    assert shown["resnet50_d"]["vox1_o EER (%)"] == "0.88≈"
    assert shown["resnet50_d_2822"]["vox1_o EER (%)"] == "0.83"
    assert shown["resnet18_w0.125"]["vox1_o EER (%)"] == "9.10"
    assert shown["resnet18_w0.125"]["vox1_e EER (%)"] == "11.00"
    assert "- ≈ within noise of the best of the column" in (exp / "results/table1.md").read_text()


def test_scores_without_their_statistics_have_no_interval(tree, run_cli):
    data, exp = tree
    scores = exp / "resnet50_d" / "scores"
    # Scored again since: the replicates beside them are of what is no longer there.
    metrics = json.loads((scores / "vox1_o_cosine.json").read_text())
    write(scores / "vox1_o_cosine.json", {**metrics, "eer_percent": 0.7})
    (scores / "vox1_e_cosine.boot.json").unlink()
    run_cli("sv.bin.make_results", data, exp)
    rows = read_csv(exp / "results" / "table4.csv")
    missing = {row["trial_list"]: row["missing"] for row in rows if row["system"] == "resnet50_d"}
    assert missing["vox1_o"] == "scores/vox1_o_cosine.boot.json is of other scores: score again"
    assert missing["vox1_e"] == "no scores/vox1_e_cosine.boot.json"
    assert "≈" not in (exp / "results" / "table1.md").read_text()


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_formats_agree(reported, name):
    _, exp, _ = reported
    stem = exp / "results" / name
    markdown = read_markdown(stem.with_suffix(".md"))
    raw = stem.with_suffix(".csv").read_bytes().decode("utf-8")
    assert raw.count("\n") == raw.count("\r\n")
    table = list(csv.DictReader(io.StringIO(raw, newline="")))
    latex = stem.with_suffix(".tex").read_text()
    body = [line for line in latex.splitlines() if " & " in line and line.endswith(r"\\")]
    notes = latex.split(r"\begin{minipage}{\textwidth}")[1].split(r"\end{minipage}")[0]
    assert len(table) == len(markdown)
    assert rf"\label{{tab:{name}}}" in latex
    assert latex.count(r"\begin{") == latex.count(r"\end{")
    assert not re.search(r"(?<!\\)[_%&#†‡§]", re.sub(r"\$[^$]*\$", "", notes))
    for row, shown, line in zip(table, markdown, body[-len(table):], strict=True):  # fmt: skip
        assert list(shown.values()) == [
            cell.replace(r"\_", "_").replace("$^", "").replace("$", "")
            .replace(r"\dagger", "†").replace(r"\ddagger", "‡").replace(r"\S", "§")
            .replace(r"\approx", "≈").strip()
            for cell in line.removesuffix(r"\\").split(" & ")
        ]  # fmt: skip
        energy = shown["Energy (kWh)"]
        assert (row["energy_kwh"] == "") == (energy == "-")
        if energy != "-":
            assert float(energy.strip("†‡§")) == pytest.approx(float(row["energy_kwh"]), rel=6e-3)
            assert ("†" in energy) == ("estimated" in row["energy_kwh_marks"].split())
            assert ("‡" in energy) == ("partly_estimated" in row["energy_kwh_marks"].split())
            assert ("§" in energy) == ("incomplete" in row["energy_kwh_marks"].split())
        else:
            assert row["missing"]


def test_csv_keeps_numbers_and_provenance(reported):
    data, exp, done = reported
    rows = {row["system"]: row for row in read_csv(exp / "results" / "table1.csv")}
    assert rows["resnet18_w0.125"]["energy_kwh"] == "0.0012345"
    assert rows["resnet50_d"]["parameters_with_head"] == "17170432"
    assert rows["resnet50_d"]["boundary"] == "cpu_package gpu_board"
    assert rows["resnet50_d_2822"]["kinds"] == "estimated measured"
    assert rows["resnet18_w0.125"]["g_per_kwh"] == "344.14"
    assert rows["resnet18_w0.125"]["status"] == "interrupted"
    assert rows["resnet34_d"]["eer_percent"] == ""


def test_model_results(reported):
    data, exp, done = reported
    joined = json.loads((exp / "resnet50_d" / "results.json").read_text())
    assert joined["average"]["eer_percent"] == pytest.approx(0.94)
    assert joined["training"]["energy_kwh"] == 51.69
    (score,) = (s for s in joined["scores"] if s["path"] == "scores/vox1_e_cosine.json")
    assert score["eer_interval"][0] < 1 < score["eer_interval"][1]
    assert score["min_dcf_interval"]["0.01"][0] < 1 / 12 < score["min_dcf_interval"]["0.01"][1]
    assert "bootstrap" not in score and "histogram" not in score
    assert [e["precision"] for e in joined["extractions"]] == ["fp32", "fp16"]
    assert joined["extractions"][0]["energy"]["energy_kwh"] == 3.11
    assert json.loads((exp / "resnet34_d" / "results.json").read_text())["network"] is None
    assert not (exp / "results" / "results.json").exists()


def test_figures_and_identical_rerun(reported, run_cli):
    data, exp, done = reported
    directory = exp / "results"
    first = {path.name: path.read_bytes() for path in directory.iterdir()}
    stems = ("energy_accuracy", "det_vox1_o", "det_vox1_e", "scores_vox1_o", "scores_vox1_e")
    names = {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")}
    tables = {f"table{n}.{kind}" for n in (1, 2, 3, 4) for kind in ("md", "tex", "csv")}
    assert set(first) == names | tables
    for name in names:
        assert len(first[name]) > 6000, name
        assert first[name].startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
        assert b"CreationDate" not in first[name]
    assert "det_vox1_o: no vox1_o_cosine.det.json of resnet50_d_2822" in done.stderr
    assert "energy_accuracy: resnet50_d_2822 is not shown: not scored on vox1_e" in done.stderr
    assert "det_cnceleb: no figure, no system has a DET curve" in done.stderr
    assert "scores_cnceleb: no figure, no system has a histogram" in done.stderr
    write(directory / "det_removed.png", "of an earlier run")
    run_cli("sv.bin.make_results", data, exp)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == first


def test_options(tree, run_cli):
    data, exp = tree
    done = run_cli("sv.bin.make_results", "--models", "resnet50_d resnet101_d", data, exp)
    rows = {row["system"]: row for row in read_csv(exp / "results" / "table1.csv")}
    assert list(rows) == ["resnet101_d", "resnet50_d"]
    assert f"no folder {exp / 'resnet101_d'}" in done.stdout
    strict = ("--allow-missing", "false", data, exp)
    done = run_cli("sv.bin.make_results", *strict, check=False)
    assert done.returncode == 1
    assert "reasons for missing figures, first: cnceleb EER (%)" in done.stderr.splitlines()[-1]
    done = run_cli("sv.bin.make_results", "--models", "resnet50", data, exp, check=False)
    assert done.returncode == 2
    assert "resnet50_d" in done.stderr


def test_nothing_to_report(tmp_path, run_cli):
    done = run_cli("sv.bin.make_results", tmp_path / "data", tmp_path / "exp", check=False)
    assert done.returncode == 1
    expected = f"sv.bin.make_results: no results under {tmp_path / 'exp'}: run stages 5 to 7 first"
    assert done.stderr.splitlines() == [expected]
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("energy/05_train.json", "{", "not JSON"),
        ("energy/05_train.json", {"schema": "other/1"}, "schema is 'other/1'"),
        ("energy/05_train.json", {"schema": "energy-sidecar/1", "status": "ok"}, "status is 'ok'"),
        ("scores/vox1_o_cosine.json", {"trials_name": "vox1_o"}, "data_set is None"),
        ("scores/vox1_o_cosine.json", "[1]", "not a JSON object"),
        ("scores/vox1_o_cosine.det.json", {"p_fa": [0, 2], "p_miss": [1, 0]}, "p_fa holds 2"),
        ("scores/vox1_o_cosine.boot.json", {"of_eer_percent": 0.88, "replicates": 2, "seed": 0,
          "speakers": 3, "trials_digest": "x", "eer_percent": [1]}, "not a list of 2 numbers"),
        ("scores/vox1_o_cosine.hist.json", {"edges": [0, 1], "targets": [1, 2],
                                            "nontargets": [3]}, "one edge more than targets"),
        ("xvectors_voxceleb1/info.json", {"data_set": "voxceleb1", "precision": "fp32",
                                          "utterances": "many"}, "utterances is 'many'"),
        ("model.json", {"parameters": 3}, "parameters_with_head is None"),
        ("model.json", '{"parameters": NaN}', "parameters is nan"),
    ],
)  # fmt: skip
def test_broken_json(tree, run_cli, name, content, message):
    data, exp = tree
    path = exp / "resnet50_d" / name
    write(path, content)
    done = run_cli("sv.bin.make_results", data, exp, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"sv.bin.make_results: {path}: ")
    assert message in line
    assert not (exp / "results").exists()


def test_energy_of_a_part_of_the_run_is_marked(tree, run_cli):
    data, exp = tree
    shutil.rmtree(exp / "resnet18_w0.125")
    reason = "without attempt 2, whose energy is unknown"
    path = exp / "resnet50_d" / "energy" / "05_train.json"
    write_sidecar(path, 51.69, MEASURED, fraction=None, reason=reason)
    run_cli("sv.bin.make_results", data, exp)
    text = (exp / "results" / "table1.md").read_text()
    assert "51.69§¶" in text
    assert f"§ incomplete: {reason}" in text
    assert "¶ the sidecar does not say which part was measured (05_train.json)" in text


def test_remarks_of_stage_1_stand_below_every_table_with_scores(tree, run_cli):
    data, exp = tree
    (data / "remarks.tsv").write_text("*\ttrained on less\nvox1_o\tpartial: 2 of 3 trials\n")
    run_cli("sv.bin.make_results", data, exp)
    for name in ("table1", "table2"):
        text = (exp / "results" / f"{name}.md").read_text()
        assert "- All lists: trained on less." in text and "- vox1_o: partial: 2 of 3" in text
    assert "trained on less" not in (exp / "results" / "table3.md").read_text()
    (data / "remarks.tsv").write_text("no tab\n")
    done = run_cli("sv.bin.make_results", data, exp, check=False)
    assert done.returncode == 1 and "remarks.tsv: line 1 is not" in done.stderr


def test_study_order():
    depth = [f"resnet{depth}_d" for depth in (419, 200, 152, 101, 50, 34, 18)]
    stage = [f"resnet50_d_{b}" for b in (8222, 2822, 2282, 2228, 2882, 2662)]
    width = [f"resnet50_w{factor}" for factor in ("4", "2", "0.5", "0.25")]
    study = [*depth, *stage, *width, "resnet18_w0.125", "mine"]
    assert sorted(sorted(study), key=system_order) == study


def test_numbers_as_text():
    cases = {895.67: "895.7", 51.69: "51.69", 46.2: "46.20", 0.00123456: "0.00123", 0: "0"}
    cases |= {12345.6: "12346", 0.0000012: "0.00000120", 1.2e-9: "1.20e-09"}
    assert {value: format_significant(value) for value in cases} == cases
    assert [format_millions(n) for n in (17170432, 5813888, 126000)] == ["17", "5.81", "0.126"]
    assert [format_duration(s) for s in (0.44, 7968, 360000, 59.96)] == [
        "00:00:00.4", "02:12:48", "100:00:00", "00:01:00",
    ]  # fmt: skip
    assert escape_latex("a_b 5 % CO2†") == r"a\_b 5 \% CO$_2$$^\dagger$"


def test_step_rebuilds_the_sidecar_of_a_killed_stage(tree, run_cli):
    data, exp = tree
    (exp / "resnet34_d" / "energy" / "06_extract_voxceleb1.journal.jsonl").unlink()
    folder = exp / "resnet34_d" / "energy"
    meter = ("--stage", 7, "--name", "score_vox1_o", "--dir", folder, "--country", "FRA")
    run_cli("utils/meter.sh", *meter, "--", "true")
    sidecar = folder / "07_score_vox1_o.json"
    sidecar.unlink()  # as if the meter had been killed: the journal is all there is
    run_cli("steps/make_results.sh", "--models", "resnet34_d", data, exp)
    assert sidecar.is_file()
    assert "score_vox1_o" in (exp / "results" / "table3.md").read_text()
