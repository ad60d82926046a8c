"""A tree as stages 0 to 7 leave it, of four systems: complete, partly estimated, estimated, failed.

Test data: nothing here was measured.
"""

import csv
import json
from statistics import NormalDist

import numpy as np
from conftest import ROOT

from sv.report.output import build_tables, write_tables
from sv.report.results import collect_results

FRANCE = {
    "provider": "owid", "zone": "FRA", "year": 2024, "vintage": "2025-07", "scope": "lifecycle",
    "basis": "production", "g_per_kwh": 44.179, "source": "Our World in Data", "reason": None,
    "co2_g": None, "intervals": [],
}  # fmt: skip
GERMANY = {**FRANCE, "zone": "DEU", "g_per_kwh": 344.14}
MEASURED = {
    "id": "rapl.package.0", "boundary": "cpu_package", "kind": "measured",
    "method": "counter_delta", "source": "intel-rapl:0", "in_total": True, "reason": None,
    "power_w_per_core": None, "contained_in": [], "energy_j": None, "u_energy_j": None,
    "raw": None, "power_w": {"mean": None, "max": None},
    "samples": {"n": 2, "failed": 0, "max_gap_s": 1.0, "covered": 1.0},
}  # fmt: skip
ESTIMATED = {
    **MEASURED, "id": "cpu_time", "kind": "estimated", "method": "cpu_time_x_power",
    "source": "6.25 W a core", "power_w_per_core": 6.25,
}  # fmt: skip
GPU = {**MEASURED, "id": "nvml.board.GPU-1", "boundary": "gpu_board", "source": "NVML"}
NO_DRAM = {
    **MEASURED, "id": "dram", "boundary": "dram", "kind": "unavailable", "method": None,
    "source": "powercap", "in_total": False, "reason": "no dram zone",
}  # fmt: skip
EXCLUSIVE = {"rule": "exclusive", "inputs": {"jobs_on_node": 1}, "reason": None}
PUE = {"value": 1.0, "source": "none: the machines alone"}
METER = {
    "label": None, "start": 1, "host": "node1", "boot_id": "b", "status": "complete",
    "exit_code": 0, "started_utc": "2025-01-01T00:00:00Z", "boot_s": [0, 1], "duration_s": 9.0,
    "counted_s": 9.0, "energy_kwh": None, "rule": "exclusive", "channels": [], "reason": None,
}  # fmt: skip


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def write_sidecar(
    path, kwh, *channels, fraction=1.0, status="complete", carbon=FRANCE, attempts=({},), **more
):
    """Write a sidecar of energy-sidecar/2; each of ``attempts`` is what differs in it."""
    stage, name = path.stem.split("_", 1)
    run = {
        "status": status, "exit_code": 0, "host": "node1", "started_utc": "2025-01-01T00:00:00Z",
        "duration_s": 5000.0, "energy_kwh": kwh, "energy_node_kwh": None, "uncertainty_kwh": None,
        "uncertainty_reason": None, "measured_fraction": fraction, "boundary": [],
        "attribution": EXCLUSIVE, "reason": None, "carbon": carbon, "pue": PUE,
        "co2_g": None if kwh is None else kwh * carbon["g_per_kwh"], "crosschecks": [],
        "phases": [], "channels": [{**channel, "energy_j": kwh} for channel in channels], **more,
    }  # fmt: skip
    whole = {
        "schema": "energy-sidecar/2", "stage": int(stage), "name": name, "model": None,
        "energy_all_kwh": None if kwh is None else 2 * kwh,
        "co2_all_g": None if kwh is None else 2 * kwh * carbon["g_per_kwh"], "torn_lines": 0,
        "run_attempts": list(range(1, len(attempts) + 1)),
    }  # fmt: skip
    own = {
        "resumed": False, "boot_id": "b", "boot_s": [0, 1], "suspended_s": 0.0,
        "clock_step_s": None, "argv": [], "git": {}, "period_s": 1.0, "max_gap_s": None,
        "meter_cpu_s": None, "metadata": [], "marks": [], "meters": [METER], "channels": [],
    }  # fmt: skip
    alike = {key: value for key, value in run.items() if key not in whole}
    tried = [{"attempt": n, **alike, **own, **one} for n, one in enumerate(attempts, 1)]
    write(path, {**whole, **run, "attempts": tried})


def write_model(exp, name, parameters):
    write(
        exp / name / "model.json",
        {"name": name, "parameters": parameters, "parameters_with_head": parameters + 1534464},
    )


def write_scores(
    exp, model, trials, data_set, eer_percent, *, backend="cosine", suffix="", det=True, **more
):
    path = exp / model / "scores" / f"{trials}_{backend}{suffix}.json"
    metrics = {
        "trials_name": trials, "data_set": data_set, "backend": backend, "precision": "fp32",
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


def write_statistics(
    exp, model, trials, eer_percent, *, backend="cosine", own=0.0, digest="list", seed=0
):
    """Write what --utt2spk adds; speakers move all systems alike, ``own`` but one."""
    path = exp / model / "scores" / f"{trials}_{backend}.json"
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
    write(
        path,
        {
            **info,
            "frames": 100,
            "audio_s": utterances * 1.0,
            "device": "cuda",
            "untrained": untrained,
        },
    )


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


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_markdown(path):
    """Return the rows of a Markdown table as {title: text}; headings of sections are left out."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    grid = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    sections = [line for line in grid[2:] if line[0].startswith("**") and not any(line[1:])]
    return [dict(zip(grid[0], line, strict=True)) for line in grid[2:] if line not in sections]


def write_all_tables(data, exp, *, models=None, sets=None):
    """Write the tables as stage 8 does, without figures and page; return their folder."""
    tables = build_tables(collect_results(data, exp, models), sets)
    write_tables(tables, exp / "results")
    return exp / "results"


def leave_out_figures(root):
    """Return an environment in which no figure can be drawn: the tables are made first."""
    write(root / "stub" / "matplotlib.py", "raise ModuleNotFoundError('not needed here')\n")
    return {"PYTHONPATH": f"{root / 'stub'}:{ROOT}"}
