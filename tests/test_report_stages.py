"""Table 3: every stage, its totals, the quality of its energy, and what lies next to sidecars."""

import json
import re

import pytest
from metered import ESTIMATE, PACKAGE, end, head, sample, write_journal
from report_tree import (
    FRANCE,
    GPU,
    MEASURED,
    METER,
    build_tree,
    leave_out_figures,
    read_csv,
    write,
    write_all_tables,
    write_sidecar,
)

from sv.energy.carbon_web import choose_carbon
from sv.energy.sidecar import write_sidecar as write_energy
from sv.errors import SvError
from sv.report.advice import find_candidates
from sv.report.output import build_tables, recompute_co2
from sv.report.results import collect_results, write_model_results
from sv.report.tables.paper import format_paper_table

NODE = {**MEASURED, "id": "ipmi.node", "boundary": "node", "source": "ipmitool"}
NO_BOARD = {**GPU, "kind": "unavailable", "in_total": False, "reason": "no driver"}


@pytest.fixture
def tree(tmp_path):
    return build_tree(tmp_path)


def test_stage_table_and_its_totals(tree):
    tables = write_all_tables(*tree)
    rows = read_csv(tables / "table3.csv")
    assert (rows[0]["name"], rows[0]["system"], rows[0]["energy_all_kwh"]) == (
        "fbank", "shared", "1.0",
    )  # fmt: skip
    by_key = {(row["system"], row["name"]): row for row in rows}
    mixed = by_key["resnet50_d_2822", "train"]
    assert (mixed["measured_percent"], mixed["estimated_percent"]) == ("75.0", "25.0")
    assert by_key["resnet34_d", "train"]["status"] == "failed"
    total = by_key["resnet50_d", "total"]
    assert float(total["energy_kwh"]) == pytest.approx(51.69 + 3.11 + 2.3)
    assert float(total["energy_all_kwh"]) == pytest.approx(2 * (51.69 + 3.11 + 2.3))
    assert float(total["co2_all_kg"]) == pytest.approx(2 * 57.1 * 0.044179)
    assert (total["attempts"], float(total["duration_s"])) == ("3", 15000.0)
    # A single stage is its own total; one that did not complete is said to be in the sum.
    assert ("shared", "total") not in by_key and ("resnet50_d_2822", "total") not in by_key
    part = by_key["resnet18_w0.125", "total"]
    assert part["energy_kwh_marks"] == "estimated incomplete"
    # What covers different parts is summed apart, and what is not known is named.
    whole = {name: row for (system, name), row in by_key.items() if system == "all"}
    assert set(whole) == {"total of cpu_package", "total of cpu_package + gpu_board"}
    cpu, both = whole.values()
    assert float(cpu["energy_kwh"]) == pytest.approx(0.5 + 0.0012345 + 0.000111 + 0.0001)
    assert float(both["energy_kwh"]) == pytest.approx(57.1 + 52.06)
    assert float(both["estimated_percent"]) == pytest.approx(25 * 52.06 / (57.1 + 52.06))
    assert both["energy_kwh_marks"] == "partly_estimated incomplete"
    assert (cpu["boundary"], both["boundary"]) == ("cpu_package", "cpu_package gpu_board")
    text = (tables / "table3.md").read_text()
    assert "without 05_train resnet34_d, whose energy is not known" in text
    order = ["Shared stages", "resnet50_d", "resnet18_w0.125", "Results", "Everything"]
    places = [text.index(f"**{section}**") for section in order]
    assert places == sorted(places)
    assert "journals without a sidecar" in text
    assert "resnet34_d/energy/06_extract_voxceleb1.journal.jsonl" in text


def test_uncertainty_and_a_jobs_part(tree):
    data, exp = tree
    write_sidecar(
        exp / "resnet50_d" / "energy" / "05_train.json", 51.69, NODE, NO_BOARD,
        energy_node_kwh=80.0, attribution={"rule": "cpu_share", "inputs": {"jobs_on_node": 2},
        "reason": None}, uncertainty_kwh=2.5, boundary=["node"],
    )  # fmt: skip
    tables = write_all_tables(data, exp)
    rows = {(row["name"], row["system"]): row for row in read_csv(tables / "table3.csv")}
    train = rows["train", "resnet50_d"]
    assert float(train["uncertainty_kwh"]) == 2.5
    assert (train["attribution"], train["boundary"]) == ("cpu_share", "node")
    assert float(train["energy_node_kwh"]) == 80.0
    text = (tables / "table3.md").read_text()
    assert "± (kWh, k = 2)" in text
    # Rows that cover something else are named below the table, and the job's part is called so.
    assert "Energy covers different parts between rows, which must not be compared" in text
    assert "node, of which the job's part by the rule cpu_share (05_train resnet50_d)" in text
    assert rows["train", "resnet50_d_2822"]["uncertainty_kwh"] == ""


def test_energy_of_a_part_of_the_run_is_marked(tree):
    data, exp = tree
    for path in (exp / "resnet18_w0.125" / "energy").iterdir():
        path.unlink()
    reason = "without attempt 2, whose energy is unknown"
    path = exp / "resnet50_d" / "energy" / "05_train.json"
    write_sidecar(path, 51.69, MEASURED, fraction=None, reason=reason)
    text = (write_all_tables(data, exp) / "table1.md").read_text()
    assert "51.69§¶" in text
    assert f"§ incomplete or disputed: {reason}" in text
    assert "¶ the sidecar does not say which part was measured (05_train.json)" in text


def test_what_was_tried_has_the_marks_of_all_attempts(tmp_path):
    """10 h at 100 W, estimated, that left nothing; then 1 h at 100 W, measured."""
    clock = {"period_s": 60.0, "started_utc": "2026-01-01T00:00:00.000Z"}
    lost = [head({**ESTIMATE, "power_w_per_core": 100.0}, **clock)]
    lost += [sample(60.0 * i, cpu_time=60_000_000 * i) for i in range(601)]
    again = [head(PACKAGE, t_s=40_000.0, awake_s=40_000.0, **clock)]
    again += [
        sample(40_000.0 + 60 * i, rapl__package__0=6_000_000_000 * i % 262_143_328_850)
        for i in range(61)
    ]
    journal = tmp_path / "exp" / "resnet50_d" / "energy" / "05_train.journal.jsonl"
    write_journal(journal, *lost, end(36_000.0, 1), *again, end(43_600.0))
    sidecar = write_energy(journal)
    assert (sidecar.energy_kwh, sidecar.measured_fraction) == (pytest.approx(0.1), 1.0)
    table = build_tables(collect_results(tmp_path / "data", tmp_path / "exp"))[2]
    cells = table.rows[0].cells
    assert cells["energy_kwh"].marks == cells["co2_kg"].marks == ()
    assert cells["energy_all_kwh"].value == pytest.approx(1.1)
    assert cells["energy_all_kwh"].marks == cells["co2_all_kg"].marks == ("partly_estimated",)
    (note,) = [note.text for note in table.notes if note.mark]
    assert note == "partly estimated from CPU time x power (cpu_package), 90.9 %, the rest measured"


def test_what_was_tried_is_incomplete_where_any_attempt_or_stage_is(tree):
    data, exp = tree
    attempts = ({"energy_kwh": 1.0, "reason": "a gap of 40 s"}, {})
    path = exp / "resnet50_d" / "energy" / "05_train.json"
    write_sidecar(path, 51.69, MEASURED, GPU, NO_BOARD, attempts=attempts)
    rows = {row.label: row for row in build_tables(collect_results(data, exp))[2].rows}
    train = rows["05_train resnet50_d"].cells
    assert train["energy_kwh"].marks == () and train["energy_all_kwh"].marks == ("incomplete",)
    # A stage that was interrupted was tried all the same; one of no known energy is missing.
    small = rows["05_train resnet18_w0.125"].cells
    assert small["energy_kwh"].marks == ("estimated", "incomplete")
    assert small["energy_all_kwh"].marks == ("estimated",)
    total = rows["total, resnet18_w0.125"].cells
    assert total["energy_kwh"].marks == ("estimated", "incomplete")
    assert total["energy_all_kwh"].marks == ("estimated",)
    whole = rows["total of cpu_package, Everything"]
    assert "incomplete" in whole.cells["energy_all_kwh"].marks
    assert whole.tried.sidecar.reason == ("without 05_train resnet34_d, whose energy is not known")


def test_a_doubt_of_the_co2_alone_marks_the_co2_alone(tree):
    data, exp = tree
    carbon = {**FRANCE, "reason": "half is missing"}
    write_sidecar(exp / "resnet50_d/energy/05_train.json", 51.69, MEASURED, GPU, carbon=carbon)
    write_sidecar(exp / "resnet50_d_2822/energy/05_train.json", 52.06, MEASURED, GPU)
    results = collect_results(data, exp, ["resnet50_d", "resnet50_d_2822"])
    tables = build_tables(results)
    row = tables[0].rows[0]
    assert row.cells["energy_kwh"].best and row.cells["energy_kwh"].marks == ()
    assert row.cells["co2_kg"].marks == ("incomplete",) and not row.cells["co2_kg"].best
    total = next(row for row in tables[2].rows if row.is_total)
    assert total.cells["energy_kwh"].marks == ()
    assert total.cells["co2_kg"].marks == ("incomplete",)
    (note,) = [note.text for note in tables[2].notes if note.mark == "incomplete"]
    assert "CO2: half is missing: 05_train resnet50_d" in note
    assert "CO2: with 05_train resnet50_d, whose CO2 is incomplete or disputed" in note
    tex = format_paper_table(tables[0], results)
    assert r"& 51.69 & 2.284 {$^\S$}" in tex and r"$^\S$: incomplete or disputed" in tex


def test_machines_of_a_stage(tree):
    data, exp = tree
    path = exp / "resnet50_d" / "energy" / "05_train.json"
    meter = {**METER, "host": "node2", "label": "train.1.node1", "energy_kwh": 20.5}
    lost = {**meter, "label": "train.1.node2", "status": "missing", "energy_kwh": None,
            "reason": "no journal"}  # fmt: skip
    reason = "without train.1.node2: no journal"
    write_sidecar(path, 51.69, {**MEASURED, "host": "node2"}, reason=reason,
                  attempts=[{"meters": [meter, lost]}])  # fmt: skip
    text = (write_all_tables(data, exp) / "table1.md").read_text()
    assert "51.69§" in text
    assert f"§ incomplete or disputed: several reasons: {reason}: resnet50_d" in text
    rows = {row["system"]: row for row in read_csv(exp / "results" / "table1.csv")}
    assert rows["resnet50_d"]["host"] == "node1 node2"
    write_model_results(collect_results(data, exp))
    joined = json.loads((exp / "resnet50_d" / "results.json").read_text())["training"]
    assert joined["channels"][0]["host"] == "node2"
    assert [(node["host"], node["energy_kwh"], node["reason"]) for node in joined["nodes"]] == [
        ("node2", 20.5, None), ("node2", None, "no journal"),
    ]  # fmt: skip
    write_sidecar(path, 51.69, MEASURED, attempts=[{"meters": ["node2"]}])
    (line,) = collect_results(data, exp).broken
    assert re.search(r"05_train\.json: .*meters must be a table", line)


# What lies next to the sidecars.


def read_notes(data, exp):
    record = json.loads((write_all_tables(data, exp) / "table3.json").read_text())
    return [note["text"] for note in record["notes"] if note["text"].startswith("resnet50_d: ")]


def test_companions_are_notes_with_their_ratio(tree):
    data, exp = tree
    assert read_notes(data, exp) == []
    folder = exp / "resnet50_d"
    ceems = {
        "schema": "energy-imported/1", "imported": {"energy_kwh": 2.0},
        "source": {"system": "CEEMS", "job": "12", "cluster": "slurm-0", "url": "http://x"},
        "ours": {"energy_kwh": 1.8}, "ratio": {"energy_kwh": None},
        "ratio_reason": "CEEMS counts GPUs that our figure lacks",
    }  # fmt: skip
    write(folder / "energy/ceems.json", ceems)
    expected = {"energy_kwh": 10.0, "energy_kwh_low": 8.0, "energy_kwh_high": 12.0, "hours": 1.0}
    forecast = {
        "schema": "energy-forecast/1", "expected": expected, "outcome": None,
        "extrapolation": "125 times the steps",
    }  # fmt: skip
    write(folder / "forecast.json", forecast)
    imported, before = read_notes(data, exp)
    assert "CEEMS counts 2.000 kWh for job 12 of slurm-0" in imported
    assert "not known (CEEMS counts GPUs" in imported and "our meter 1.800 kWh" in imported
    assert "10.00 kWh (8.000 kWh to 12.00 kWh)" in before and "has not ended" in before
    outcome = {"energy_kwh": 9.0, "ratio": {"energy_kwh": 0.9}, "inside": {"energy_kwh": True}}
    write(folder / "forecast.json", {**forecast, "outcome": outcome})
    assert "9.000 kWh came, 0.90 times the forecast" in read_notes(data, exp)[1]
    write(folder / "forecast.json", {**forecast, "schema": "energy-forecast/9"})
    assert re.search(r"forecast\.json: schema .* 'energy-forecast/9'", read_notes(data, exp)[1])


def test_a_forecast_or_a_refused_training_is_no_row_but_its_energy_counts(tree):
    data, exp = tree
    before = write_all_tables(data, exp)
    tables = ("table1.csv", "table2.csv", "table4.csv")
    rows = {name: read_csv(before / name) for name in tables}
    _, excluded = find_candidates(collect_results(data, exp))
    train = exp / "resnet200_d/energy/05_train.json"
    write_sidecar(exp / "resnet419_d/energy/05_forecast.json", 7.0, MEASURED)
    write_sidecar(train, 0.25, MEASURED, status="failed")
    alone = ["resnet419_d", "resnet200_d"]
    results = collect_results(data, exp)
    assert [system.name for system in results.without_result] == alone
    assert not {system.name for system in results.systems} & set(alone)
    after = write_all_tables(data, exp)
    assert {name: read_csv(after / name) for name in tables} == rows
    assert find_candidates(results)[1] == excluded
    spent = {r["system"]: r["energy_kwh"] for r in read_csv(after / "table3.csv")}
    assert [spent[name] for name in alone] == ["7.0", "0.25"]
    written = {path.parent.name for path in write_model_results(results)}
    assert "resnet50_d" in written and not written & set(alone)
    # Asked for by name, or with something made, a system is a row.
    named = collect_results(data, exp, ["resnet419_d", "resnet50_d"])
    assert [system.name for system in named.systems] == ["resnet419_d", "resnet50_d"]
    epoch = {"mark": "epoch", "t_s": 1.0, "energy_kwh": 0.1, "payload": {}, "meter": None}
    write_sidecar(train, 0.25, MEASURED, status="failed", attempts=({"marks": [epoch]},))
    (exp / "resnet419_d/energy/05_train.journal.jsonl").write_text("")  # it is being trained
    assert collect_results(data, exp).without_result == ()


def test_forecasts_alone_are_no_results(tree, tmp_path):
    data, _ = tree
    write_sidecar(tmp_path / "new/resnet419_d/energy/05_forecast.json", 7.0, MEASURED)
    with pytest.raises(SvError, match="run stages 5 to 7 first"):
        collect_results(data, tmp_path / "new")


# At another carbon factor.


def test_tables_at_another_carbon_factor(tree, run_cli):
    data, exp = tree
    done = run_cli(
        "steps/make_results.sh", "--carbon", "fixed", "--g-per-kwh", 100, data, exp,
        env=leave_out_figures(data.parent), check=False,
    )  # fmt: skip
    assert "not needed here" in done.stderr.splitlines()[-1]
    rows = read_csv(exp / "results" / "table3.csv")
    for row in (row for row in rows if not row["name"].startswith("total")):
        assert (row["g_per_kwh"], row["carbon_provider"]) == ("100.0", "fixed")
        if row["energy_kwh"]:
            assert float(row["co2_kg"]) == pytest.approx(float(row["energy_kwh"]) / 10)
            assert float(row["co2_all_kg"]) == pytest.approx(float(row["energy_all_kwh"]) / 10)
    text = (exp / "results" / "table1.md").read_text()
    assert "- CO2 factor: 100.0 g/kWh, fixed" in text
    assert "instead of the recorded 44.18 g/kWh, owid, zone FRA, 2024" in text


def test_a_factor_of_a_country_and_year(tree):
    results = collect_results(*tree)
    recorded = results.shared[0]
    config = choose_carbon("owid", country="DEU", year=2023)
    again = recompute_co2(results, config, {}).shared[0]
    assert again.recorded_carbon == recorded.sidecar.carbon
    carbon = again.sidecar.carbon
    assert (carbon.zone, carbon.year) == ("DEU", 2023)
    assert again.sidecar.co2_g == pytest.approx(recorded.energy_kwh * carbon.g_per_kwh)
    assert again.energy_kwh == recorded.energy_kwh


def test_a_factor_that_varies_needs_the_journal(tree, run_cli):
    data, exp = tree
    with pytest.raises(SvError, match=r"no such file .*05_train\.journal\.jsonl"):
        recompute_co2(collect_results(data, exp), choose_carbon("rte"), {})
    done = run_cli("sv.bin.make_results", "--country", "FRA", data, exp, check=False)
    assert done.returncode == 2 and "--carbon" in done.stderr and done.stderr.count("\n") == 1
