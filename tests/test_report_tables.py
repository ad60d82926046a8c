"""Tables 1, 2 and 4, bold figures and ties, and the four formats of a table."""

import csv
import io
import json
import re

import numpy as np
import pytest
from report_tree import (
    ESTIMATED,
    GERMANY,
    GPU,
    MEASURED,
    build_tree,
    read_csv,
    read_markdown,
    write,
    write_all_tables,
    write_model,
    write_scores,
    write_sidecar,
    write_statistics,
)
from study_exp import CROPS, LISTS, build_study

from sv.report.output import build_tables, write_paper_table
from sv.report.results import collect_results
from sv.report.tables.cells import MARKS, choose_unit

TEX_SIGNS = {r"$^\dagger$": "†", r"$^\ddagger$": "‡", r"$^\S$": "§", r"$^\P$": "¶"}
TEX_SIGNS |= {r"$^\approx$": "≈", r"\_": "_", "$-$": "-"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The folder of the tables, for all tests that only read."""
    return write_all_tables(*build_tree(tmp_path_factory.mktemp("tables")))


def test_training_table(tables):
    text = (tables / "table1.md").read_text()
    rows = {row["System"]: row for row in read_markdown(tables / "table1.md")}
    # The study's order: depth (deep first), stage variants, width variants.
    assert list(rows) == ["resnet50_d", "resnet34_d", "resnet50_d_2822", "resnet18_w0.125"]
    best = rows["resnet50_d"]
    assert (best["Params (M) net"], best["Params (M) with head"]) == ("15.6", "17.2")
    assert (best["Average EER (%)"], best["Energy (kWh)"], best["CO2 (kg)"]) == (
        "**0.94**",
        "51.69",
        "2.284",
    )
    assert (best["vox1_e EER (%)"], best["vox1_e minDCF"]) == ("**1.00**", "**0.083**")
    assert rows["resnet18_w0.125"]["Energy (kWh)"] == "0.00123†§"
    assert rows["resnet50_d_2822"]["Energy (kWh)"] == "52.06‡"
    # Not scored on a list that others have: no average. Nobody has cnceleb: it spoils no average.
    assert rows["resnet50_d_2822"]["Average EER (%)"] == "-"
    assert best["cnceleb EER (%)"] == "-"
    assert rows["resnet34_d"]["Energy (kWh)"] == "-"
    for line in (
        "- † estimated from CPU time x power (cpu_package), not measured (with which numbers: "
        "Table 3)",
        "- ‡ partly estimated from CPU time x power (cpu_package), 25.0 %, the rest measured",
        "- § incomplete or disputed: the stage is interrupted",
        "- EER of the untrained networks: resnet18_w0.125 47.1 % (vox1_o).",
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


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    """The folder of tables of two systems with one or two backends."""
    data, exp = build_study(tmp_path_factory.mktemp("backends"), ("resnet101_d", "resnet18_d"))
    for trials, data_set in LISTS.items():
        write_scores(exp, "resnet101_d", trials, data_set, 2.5, backend="as_norm", det=False)
        write_statistics(exp, "resnet101_d", trials, 2.5, backend="as_norm", digest=trials)
    return write_all_tables(data, exp)


def test_a_row_for_each_system_and_backend(backends):
    rows = read_csv(backends / "table1.csv")
    keys = [(row["system"], row["backend"]) for row in rows]
    two = [("resnet101_d", "cosine"), ("resnet101_d", "as_norm")]
    assert keys == [*two, ("resnet18_d", "cosine")]
    first, second, _ = rows
    assert (float(first["eer_percent_vox1_o"]), float(second["eer_percent_vox1_o"])) == (0.71, 2.5)
    # The energy stands once, and is not summed twice by who reads the file.
    assert float(first["energy_kwh"]) == 135.27
    assert second["energy_kwh"] == second["co2_kg"] == second["j_per_crop"] == second["host"] == ""
    shown = read_markdown(backends / "table1.md")
    assert [row["Backend"] for row in shown] == ["cosine", "as_norm", "cosine"]
    # The best of each backend: as_norm has no other to compare with.
    assert [row["vox1_o EER (%)"] for row in shown] == ["**0.71**", "2.50", "1.19"]
    text = (backends / "table1.md").read_text()
    assert "of its column, measures among the rows of one backend (cosine, as_norm)." in text
    record = json.loads((backends / "table1.json").read_text())
    assert record["rows"][1]["cells"]["backend"]["value"] == "as_norm"
    # In Table 2, only where the backend scored: nothing in fp16.
    rows = [row for row in read_csv(backends / "table2.csv") if row["test_set"] == "commonbench"]
    assert [(row["system"], row["backend"], row["precision"]) for row in rows] == [
        (*two[0], "fp32"), (*two[1], "fp32"), ("resnet18_d", "cosine", "fp32"),
        ("resnet101_d", "cosine", "fp16"), ("resnet18_d", "cosine", "fp16"),
    ]  # fmt: skip
    assert rows[1]["energy_kwh"] == rows[1]["duration_s"] == rows[1]["j_per_utterance"] == ""
    rows = [row for row in read_csv(backends / "table4.csv") if row["trial_list"] == "vox1_o"]
    assert {(row["system"], row["backend"]): row["eer_percent_above_best"] for row in rows} == {
        two[0]: "0.0", ("resnet18_d", "cosine"): str(1.19 - 0.71), two[1]: "0.0",
    }  # fmt: skip


def test_one_backend_is_not_printed(tables):
    assert "Backend" not in (tables / "table1.md").read_text()
    assert {row["backend"] for row in read_csv(tables / "table4.csv")} == {"cosine"}


def test_inference_table(tables):
    shown = read_markdown(tables / "table2.md")
    keys = [(r["system"], r["test_set"], r["precision"]) for r in read_csv(tables / "table2.csv")]
    names = ["resnet50_d", "resnet34_d", "resnet50_d_2822", "resnet18_w0.125"]
    # One system was extracted in fp16: the others have a row that says why they were not.
    sections = [("voxceleb1", "fp32"), ("voxceleb1", "fp16"), ("cnceleb", "fp32")]
    assert keys == [(name, *section) for section in sections for name in names]
    assert [row["System"] for row in shown] == names * 3
    first, _, _, estimated, half = shown[:5]
    assert (first["EER (%)"], first["Wall time"]) == ("**0.94**", "01:23:20")
    assert first["J per utterance"] == "2799"  # 3.11 kWh / 4000
    assert first["Real-time factor"] == "1.250"  # 5000 s / 4000 s
    assert (estimated["J per utterance"], estimated["Precision"]) == ("4.995†", "FP32")
    assert (half["Energy (kWh)"], half["Precision"]) == ("2.300", "FP16")
    assert half["EER (%)"] == "-"  # fp16 was scored on one of two lists
    text = (tables / "table2.md").read_text()
    assert text.index("**voxceleb1**") < text.index("**cnceleb**")
    assert "06_extract_voxceleb1.journal.jsonl has no sidecar yet" in text
    assert "no energy/06_extract_voxceleb1_fp16.json: resnet34_d voxceleb1 fp16" in text
    assert "EER and minDCF of voxceleb1: means of vox1_o, vox1_e." in text
    assert "- Real-time factor: that wall time / duration of the speech" in text
    assert "untrained" not in text


def test_intensities_of_a_training(tmp_path):
    data, exp = build_study(tmp_path, ("resnet101_d", "resnet18_d"), statistics=False)
    write_model(exp, "resnet18_d", 8036352)
    rows = {row["system"]: row for row in read_csv(write_all_tables(data, exp) / "table1.csv")}
    row = rows["resnet101_d"]
    assert float(row["j_per_crop"]) == pytest.approx(135.27 * 3.6e6 / CROPS)
    assert float(row["kwh_per_gmac"]) == pytest.approx(135.27 / 89.87)
    assert float(row["mean_w"]) == pytest.approx(400)
    lacking = rows["resnet18_d"]
    assert (lacking["j_per_crop"], lacking["kwh_per_gmac"]) == ("", "")
    assert "crops_trained is not in model.json; gmac is not in model.json" in lacking["missing"]
    assert float(lacking["mean_w"]) == pytest.approx(400)


RAMP = np.linspace(-1, 1, 1000)  # replicates whose percentiles are known: +-0.95 at 95 %


def write_replicates(exp, name, precision, eer_percent, noise, *, seed=0):
    """Write an EER whose replicates are ``eer_percent + noise``."""
    suffix = "" if precision == "fp32" else f"_{precision}"
    write_scores(
        exp, name, "list", "set", eer_percent, det=False, suffix=suffix, precision=precision
    )
    record = {
        "trials_digest": "list", "speakers": 40, "seed": seed, "replicates": 1000,
        "of_eer_percent": eer_percent, "eer_percent": (eer_percent + noise).tolist(),
        "min_dcf": {}, "det": {},
    }  # fmt: skip
    write(exp / name / "scores" / f"list_cosine{suffix}.boot.json", record)


@pytest.fixture
def halved(tmp_path):
    """Three systems extracted in fp32 and fp16."""
    data, exp = tmp_path / "data", tmp_path / "exp"
    write(data / "test_trials", "list set\n")
    for name, kwh, change in (
        ("resnet18_d", 7.0, 0.05), ("resnet34_d", 9.9, 0.002), ("resnet50_d", 6.0, 0.0),
    ):  # fmt: skip
        write_model(exp, name, 1_000_000)
        energy = exp / name / "energy"
        write_sidecar(energy / "06_extract_set.json", 10.0, MEASURED, uncertainty_kwh=0.5)
        write_sidecar(energy / "06_extract_set_fp16.json", kwh, MEASURED, uncertainty_kwh=0.5)
        write_replicates(exp, name, "fp32", 3.0, 0 * RAMP)
        write_replicates(exp, name, "fp16", 3.0 + change, 0.01 * RAMP)
    return data, exp


def read_changes(data, exp):
    rows = read_csv(write_all_tables(data, exp) / "table2.csv")
    return {row["system"]: row for row in rows if row["precision"] == "fp16"}


def test_a_lower_precision_against_fp32(halved):
    rows = read_changes(*halved)
    ratios = {name: float(row["energy_ratio"]) for name, row in rows.items()}
    assert ratios == pytest.approx({"resnet18_d": 0.7, "resnet34_d": 0.99, "resnet50_d": 0.6})
    uncertainty = float(rows["resnet34_d"]["energy_ratio_uncertainty"])
    assert uncertainty == pytest.approx(0.99 * np.hypot(0.05, 0.5 / 9.9))
    marks = {name: row["eer_difference_marks"] for name, row in rows.items()}
    assert marks == {"resnet18_d": "", "resnet34_d": "within_noise", "resnet50_d": "within_noise"}
    low, high = (float(rows["resnet18_d"][f"eer_difference_{end}"]) for end in ("low", "high"))
    assert (low, high) == pytest.approx((0.0405, 0.0595))
    data, exp = halved
    shown = {(r["System"], r["Precision"]): r for r in read_markdown(exp / "results/table2.md")}
    assert shown["resnet18_d", "FP16"]["kWh / fp32"] == "0.700"
    assert shown["resnet18_d", "FP16"]["EER - fp32"] == "+0.050"
    assert shown["resnet50_d", "FP16"]["EER - fp32"] == "0.000≈"
    assert shown["resnet18_d", "FP32"]["kWh / fp32"] == ""
    for path in exp.glob("*/*/*_fp16*"):
        path.unlink()
    write_all_tables(data, exp)
    assert "/ fp32" not in (exp / "results/table2.md").read_text()


def edit(path, **changes):
    write(path, {**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize(
    ("spoil", "key", "text"),
    [
        (lambda d: (d / "scores/list_cosine_fp16.boot.json").unlink(), "eer_difference_low", ""),
        (lambda d: edit(d / "scores/list_cosine_fp16.boot.json", seed=3), "eer_difference_low", ""),
        (lambda d: (d / "scores/list_cosine_fp16.json").unlink(), "eer_difference",
         "no list is scored in both precisions"),
        (lambda d: edit(d / "energy/06_extract_set_fp16.json", status="failed"), "energy_ratio",
         "06_extract_set_fp16.json is failed"),
        (lambda d: (d / "energy/06_extract_set.json").unlink(), "energy_ratio",
         "no energy/06_extract_set.json"),
        (lambda d: write_sidecar(d / "energy/06_extract_set.json", 9.0, MEASURED, GPU),
         "energy_ratio", "cover different parts of the machines"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_known_has_a_reason(halved, spoil, key, text):
    data, exp = halved
    spoil(exp / "resnet18_d")
    row = read_changes(data, exp)["resnet18_d"]
    assert row[key] == "" and text in row["missing"]


def test_confidence_table(tables):
    text = (tables / "table4.md").read_text()
    assert text.index("**Average**") < text.index("**vox1_o**") < text.index("**vox1_e**")
    table = read_csv(tables / "table4.csv")
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
    shown = {row["System"]: row for row in read_markdown(tables / "table1.md")}
    assert shown["resnet50_d"]["vox1_o EER (%)"] == "0.88≈"
    assert shown["resnet50_d_2822"]["vox1_o EER (%)"] == "**0.83**"
    assert shown["resnet18_w0.125"]["vox1_o EER (%)"] == "9.10"
    assert shown["resnet18_w0.125"]["vox1_e EER (%)"] == "11.00"
    assert "- ≈ within noise of the best: " in (tables / "table1.md").read_text()


def test_scores_without_their_statistics_have_no_interval(tmp_path):
    data, exp = build_tree(tmp_path)
    scores = exp / "resnet50_d" / "scores"
    # Scored again since: the replicates next to them are of what is no longer there.
    metrics = json.loads((scores / "vox1_o_cosine.json").read_text())
    write(scores / "vox1_o_cosine.json", {**metrics, "eer_percent": 0.7})
    (scores / "vox1_e_cosine.boot.json").unlink()
    tables = write_all_tables(data, exp)
    rows = read_csv(tables / "table4.csv")
    missing = {row["trial_list"]: row["missing"] for row in rows if row["system"] == "resnet50_d"}
    assert missing["vox1_o"] == "scores/vox1_o_cosine.boot.json is of other scores: score again"
    assert missing["vox1_e"] == "no scores/vox1_e_cosine.boot.json"
    assert "≈" not in (tables / "table1.md").read_text()


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "table4"])
def test_formats_agree(tables, name):
    markdown = read_markdown(tables / f"{name}.md")
    raw = (tables / f"{name}.csv").read_bytes().decode("utf-8")
    assert raw.count("\n") == raw.count("\r\n")
    table = list(csv.DictReader(io.StringIO(raw, newline="")))
    record = json.loads((tables / f"{name}.json").read_text())
    latex = (tables / f"{name}.tex").read_text()
    lines = [line for line in latex.splitlines() if " & " in line and line.endswith(r"\\")]
    assert record["schema"] == "report-table/1"
    assert rf"\label{{tab:{name}}}" in latex
    assert latex.count(r"\begin{") == latex.count(r"\end{")
    keys = [column["key"] for column in record["columns"]]
    assert keys == [key for key in table[0] if key != "missing" and not key.endswith("_marks")]
    printed = [column["key"] for column in record["columns"] if not column["csv_only"]]
    assert len(table) == len(markdown) == len(record["rows"])
    body = lines[-len(table) :]
    for row, shown, line, entry in zip(table, markdown, body, record["rows"], strict=True):
        texts = [plain_latex(cell) for cell in line.removesuffix(r"\\").split(" & ")]
        assert list(shown.values()) == texts
        for key, text in zip(printed, texts, strict=True):
            cell = entry["cells"][key]
            own = cell["text"] + "".join(MARKS[mark] for mark in cell["marks"])
            assert text == (
                f"**{cell['text']}**{own[len(cell['text']) :]}" if cell["best"] else own
            )
        for key in keys:
            cell = entry["cells"][key]
            assert row[key] == ("" if cell["value"] is None else str(cell["value"]))
            if f"{key}_marks" in row:
                words = row[f"{key}_marks"].split()
                assert words == cell["marks"] + ["best"] * cell["best"]
            assert cell["reason"] is None or cell["reason"] in row["missing"]
        energy = entry["cells"].get("energy_kwh")
        if energy is not None and energy["value"] is None:
            assert energy["text"] == "-" and energy["reason"]
        elif energy is not None:
            assert float(energy["text"]) == pytest.approx(energy["value"], rel=6e-3)
    text = (tables / f"{name}.md").read_text()
    for note in record["notes"]:
        assert f"- {MARKS[note['mark']] + ' ' if note['mark'] else ''}{note['text']}" in text
    assert all(f"- {line}" in text for line in record["missing"])


def plain_latex(cell):
    """Return a LaTeX cell as Markdown has it."""
    cell = re.sub(r"\\phantom\{(\$\^\\\w+\$|[.0])+\}", "", cell).strip()
    cell = re.sub(r"\\rlap\{(.*?)\}", r"\1", cell)
    cell = re.sub(r"\\textbf\{(.*?)\}", r"**\1**", cell)
    cell = re.sub(r"\$(\S+?)\\times10\^\{(-?)(\d+)\}\$", r"\1e\g<2>0\3", cell)
    for tex, sign in TEX_SIGNS.items():
        cell = cell.replace(tex, sign)
    return "-" if cell == "--" else cell


def test_csv_keeps_numbers_and_provenance(tables):
    rows = {row["system"]: row for row in read_csv(tables / "table1.csv")}
    assert rows["resnet18_w0.125"]["energy_kwh"] == "0.0012345"
    assert rows["resnet50_d"]["parameters_with_head"] == "17170432"
    assert rows["resnet50_d"]["boundary"] == "cpu_package gpu_board"
    assert rows["resnet50_d_2822"]["kinds"] == "estimated measured"
    assert rows["resnet18_w0.125"]["g_per_kwh"] == "344.14"
    assert rows["resnet18_w0.125"]["status"] == "interrupted"
    assert rows["resnet34_d"]["eer_percent"] == ""


FOUR = ("resnet419_d", "resnet200_d", "resnet50_d", "resnet50_w0.25")
AVERAGE, ENERGY, CO2 = "Average EER (%)", "Energy (kWh)", "CO2 (kg)"


def find_bold(directory, name="table1"):
    """Return the labels of the rows whose figure is bold, by column."""
    table = json.loads((directory / f"{name}.json").read_text())
    bold = {
        column["key"]: [
            row["label"] for row in table["rows"] if row["cells"][column["key"]]["best"]
        ]
        for column in table["columns"]
    }
    return {key: rows for key, rows in bold.items() if rows}


def test_the_lowest_of_each_column_is_bold(tmp_path):
    directory = write_all_tables(*build_study(tmp_path, FOUR))
    bold = find_bold(directory)
    assert bold["eer_percent"] == bold["min_dcf"] == ["resnet419_d"]
    assert bold["energy_kwh"] == bold["co2_kg"] == ["resnet50_w0.25"]
    # Printed alike, bold alike: 1.42 cannot be told from 1.42.
    assert bold["eer_percent_vox1_h"] == ["resnet419_d", "resnet200_d"]
    assert not {"parameters", "parameters_with_head", "duration_s"} & set(bold)
    rows = {row["System"]: row for row in read_markdown(directory / "table1.md")}
    assert rows["resnet419_d"][AVERAGE] == "**3.35**"
    assert rows["resnet50_w0.25"][ENERGY] == "**34.35**"
    text = (directory / "table1.md").read_text()
    assert "- Bold: the best, which is the lowest, of its column." in text
    assert "is bold: the figures" not in text
    # Of each test set, over both precisions.
    bold = find_bold(directory, "table2")
    assert bold["energy_kwh"] == ["resnet50_w0.25 commonbench fp16"]
    # 3.460 and 3.462: printed alike.
    assert set(bold["eer_percent"]) >= {
        f"resnet200_d commonbench {precision}" for precision in ("fp32", "fp16")
    }


def test_ties_of_a_precision_are_marked(tmp_path):
    data, exp = build_study(tmp_path, FOUR)

    def read_eers():
        rows = read_markdown(write_all_tables(data, exp, sets=("commonbench",)) / "table2.md")
        assert len(rows) == 8
        return {(row["System"], row["Precision"]): row["EER (%)"] for row in rows}

    eers = read_eers()
    assert eers["resnet200_d", "FP32"] == "**3.46**"
    scores = exp / "resnet200_d" / "scores"
    path = scores / "commonbench_cosine_fp16.json"
    record = {**json.loads(path.read_text()), "eer_percent": 3.47}
    path.write_text(json.dumps(record))
    assert read_eers()["resnet200_d", "FP16"] == "3.47"  # no replicates of its own: nothing is said
    boot = json.loads((scores / "commonbench_cosine.boot.json").read_text())
    own = {**boot, "of_eer_percent": 3.47}
    (scores / "commonbench_cosine_fp16.boot.json").write_text(json.dumps(own))
    assert read_eers()["resnet200_d", "FP16"] == "3.47≈"


def test_energies_that_mean_different_things_are_not_compared(tmp_path):
    data, exp = build_study(tmp_path, FOUR)
    path = exp / "resnet50_w0.25" / "energy" / "05_train.json"
    # Another grid: the energies may be compared, the CO2 not.
    write_sidecar(path, 34.35, MEASURED, GPU, carbon=GERMANY)
    bold = find_bold(write_all_tables(data, exp))
    assert bold["energy_kwh"] == ["resnet50_w0.25"] and "co2_kg" not in bold
    text = (exp / "results" / "table1.md").read_text()
    assert "- No CO2 is bold: the figures have different CO2 factors." in text
    # Without the boards: neither.
    write_sidecar(path, 34.35, MEASURED)
    bold = find_bold(write_all_tables(data, exp))
    assert "energy_kwh" not in bold and "co2_kg" not in bold
    text = (exp / "results" / "table1.md").read_text()
    assert "No energy and no CO2 is bold: the figures cover different parts of the machines" in text
    # One that was estimated.
    estimated = {**GPU, "kind": "estimated"}
    write_sidecar(path, 34.35, MEASURED, estimated, fraction=0.2)
    write_all_tables(data, exp)
    text = (exp / "results" / "table1.md").read_text()
    assert "is bold: the figures are measured in some runs and estimated in others." in text
    # An incomplete one is a lower bound and takes no part.
    write_sidecar(path, 34.35, MEASURED, GPU, status="interrupted")
    assert find_bold(write_all_tables(data, exp))["energy_kwh"] == ["resnet50_d"]


def test_one_system_is_not_the_best_of_one(tmp_path):
    directory = write_all_tables(*build_study(tmp_path, ("resnet50_d",)), sets=("voxceleb1",))
    assert find_bold(directory) == find_bold(directory, "table2") == {}
    assert "Bold" not in (directory / "table1.md").read_text()


# Units, folded rows, and the table of a paper.


def test_energies_and_masses_have_one_unit_by_the_largest(tmp_path):
    data, exp = build_study(tmp_path, FOUR)
    for name, kwh in zip(FOUR, (4e-4, 2e-4, 1e-5, 3.21e-6), strict=True):
        write_sidecar(exp / name / "energy" / "05_train.json", kwh, MEASURED)
    directory = write_all_tables(data, exp)
    rows = read_markdown(directory / "table1.md")
    assert [row["Energy (mWh)"] for row in rows] == ["400.0", "200.0", "10.00", "**3.210**"]
    assert all("CO2 (mg)" in row for row in rows)
    # Programs read kWh and kg.
    kwh = [float(row["energy_kwh"]) for row in read_csv(directory / "table1.csv")]
    assert kwh == [4e-4, 2e-4, 1e-5, 3.21e-6]


@pytest.mark.parametrize(
    ("largest", "unit", "factor"),
    [(895.7, "kWh", 1), (1.0, "kWh", 1), (0.99, "Wh", 1e3), (1e-3, "Wh", 1e3), (9e-4, "mWh", 1e6),
     (1e-9, "mWh", 1e6)],
)  # fmt: skip
def test_the_unit_is_the_one_in_which_the_largest_is_at_least_1(largest, unit, factor):
    assert choose_unit([largest, largest / 7], "kWh") == (unit, factor)
    assert choose_unit([], "kg") == ("kg", 1)


def test_one_list_stands_once(tmp_path):
    data, exp = build_study(tmp_path, FOUR)
    (data / "test_trials").write_text("vox1_o voxceleb1\n")
    for path in exp.glob("*/scores/*"):
        if not path.name.startswith("vox1_o"):
            path.unlink()
    directory = write_all_tables(data, exp)
    (head, *_) = read_markdown(directory / "table1.md")
    assert [key for key in head if "EER" in key] == ["vox1_o EER (%)"]
    (first, *_) = read_csv(directory / "table1.csv")
    assert first["eer_percent"] == first["eer_percent_vox1_o"]


def test_stages_under_1_percent_are_one_row_in_print(tmp_path):
    data, exp = build_study(tmp_path, ("resnet50_d",))
    directory = write_all_tables(data, exp)
    folded = [f"score_{name}_cosine" for name in LISTS]
    shown = [row["Name"] for row in read_markdown(directory / "table3.md")]
    assert shown.count("5 stages under 1 % each") == 1 and not set(folded) & set(shown)
    rows = read_csv(directory / "table3.csv")
    assert set(folded) < {row["name"] for row in rows}
    assert not [row for row in rows if "under 1 %" in row["name"]]


def test_the_table_of_a_paper(tmp_path):
    data, exp = build_study(tmp_path, ("resnet200_d", "resnet50_d_2822", "resnet50_w0.25"))
    write_sidecar(
        exp / "resnet50_w0.25" / "energy" / "05_train.json", 34.35, ESTIMATED, fraction=0.0
    )
    results = collect_results(data, exp)
    text = write_paper_table(build_tables(results)[0], results, tmp_path).read_text()
    for line in (
        r"ResNet-200-D & 59.9 & 3.45 & 0.287 & 222.5 & 3.091 \\",
        r"ResNet-50-D[2,8,2,2] & 10.4 & 3.65 & 0.304 & 52.06 & 0.769 \\",
        r"ResNet-50-W0.25 & 1.26 & 4.58 & 0.382 & 34.35 {$^\dagger$} & 1.518 {$^\dagger$} \\",
        r"{System} & {Params} & {EER} & {minDCF} & {Energy} & {CO$_2$} \\",
        r"{} & {(M)} & {(\%)} & {} & {(kWh)} & {(kg)} \\",
    ):
        assert line in text.splitlines(), text
    assert "estimated, not measured" in text and "phantom" not in text and "resizebox" not in text
    assert text.count("S[table-format=") == 5
