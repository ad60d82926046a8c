"""Stage 8 through the real program, on the trees of report_tree.py."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, environment
from report_tree import (
    build_tree,
    leave_out_figures,
    read_csv,
    write,
    write_all_tables,
)

from sv.errors import SvError
from sv.report.results import collect_results, system_order
from sv.report.tables.cells import format_duration, format_millions, format_significant
from sv.report.tables.latex import escape_latex
from sv.report.tables.systems import prefer_sets

FIGURES = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<svg"}


@pytest.fixture
def tree(tmp_path):
    return build_tree(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Run the program once for all tests that only read: data, exp, what it printed."""
    data, exp = build_tree(tmp_path_factory.mktemp("report"))
    done = subprocess.run(
        [sys.executable, "-m", "sv.bin.make_results", data, exp],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    return data, exp, done


def test_the_program_prints_tables_and_paths(reported):
    data, exp, done = reported
    for name in ("table1", "table2"):
        assert (exp / "results" / f"{name}.md").read_text() in done.stdout
    said = done.stdout.splitlines()[-1]
    assert said.startswith(f"Results: {exp / 'results'} (") and done.stderr == ""
    listed = (exp / "results" / "contents.txt").read_text().splitlines()
    for path in (exp / "results" / "table3.csv", data / "energy" / "03_fbank.json"):
        assert str(path) in listed


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


def test_every_part_is_written_and_a_rerun_is_identical(reported, run_cli):
    data, exp, done = reported
    directory = exp / "results"
    first = {path.name: path.read_bytes() for path in directory.iterdir()}
    tables = {f"table{n}.{kind}" for n in (1, 2, 3, 4) for kind in ("md", "tex", "csv", "json")}
    figures = {f"{stem}.{kind}" for stem in ("det_vox1_o", "scores_vox1_e") for kind in FIGURES}
    assert {*tables, *figures, "advice.md", "index.html"} <= set(first)
    for name in (name for name in first if name.endswith(tuple(FIGURES))):
        assert len(first[name]) > 6000, name
        assert first[name].startswith(FIGURES[name[-3:]])
        assert b"CreationDate" not in first[name]
    lacking = "det_vox1_o: no vox1_o_cosine.det.json of resnet50_d_2822\n"
    assert lacking in (directory / "contents.txt").read_text()
    # What an earlier run left of other tables is no longer true; a person's file stays.
    for kind in ("md", "tex", "csv", "json"):
        (directory / f"against1.{kind}").write_bytes(first[f"table1.{kind}"])
    write(directory / "mine.json", {"a": 1})
    write(directory / "det_removed.png", "of an earlier run")
    run_cli("sv.bin.make_results", data, exp, timeout=240)
    (directory / "mine.json").unlink()
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == first


def test_a_part_that_fails_costs_no_other(tree, run_cli):
    data, exp = tree
    for name in ("resnet34_d", "resnet18_w0.125"):
        shutil.rmtree(exp / name)
    error = "ModuleNotFoundError(\"No module named 'matplotlib'\")"
    write(data.parent / "without" / "matplotlib.py", f"raise {error}\n")
    path = {"PYTHONPATH": f"{data.parent / 'without'}:{ROOT}"}
    study = data.parent / "study"
    study.mkdir()
    options = ("--study", study)
    done = run_cli("sv.bin.make_results", *options, data, exp, env=path, check=False)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"sv.bin.make_results: the tables are in {exp / 'results'}, but no ")
    assert "no comparison: cannot read" in line and "study.toml" in line
    assert "no figures: No module named 'matplotlib'" in line and "no page" not in line
    written = {path.name for path in (exp / "results").iterdir()}
    assert {"table1.md", "table4.json", "advice.md", "index.html"} <= written
    assert "det_vox1_o.pdf" not in written and "Traceback" not in done.stderr


def test_options(tree, run_cli):
    data, exp = tree
    # A study whose Table 2 is of another list: its test set is the one that Table 2 shows.
    study = shutil.copytree(ROOT / "egs/voxceleb/study", data.parent / "study")
    table2 = study / "table2.csv"
    table2.write_text(table2.read_text().replace(",commonbench,", ",vox1_o,"))
    options = ("--models", "resnet50_d resnet101_d", "--allow-missing", "false", "--study", study)
    done = run_cli("sv.bin.make_results", *options, data, exp, check=False)
    assert done.returncode == 1
    assert "reasons for missing figures, first: " in done.stderr.splitlines()[-1]
    rows = {row["system"]: row for row in read_csv(exp / "results" / "table1.csv")}
    assert list(rows) == ["resnet101_d", "resnet50_d"]
    assert f"no folder {exp / 'resnet101_d'}" in done.stdout
    assert {row["test_set"] for row in read_csv(exp / "results" / "table2.csv")} == {"voxceleb1"}
    assert (exp / "results" / "against1.tex").is_file()
    results = collect_results(data, exp)
    assert prefer_sets(results, ["cnceleb"]) is None  # no system has extracted it: all are shown
    for wrong in (("--models", "resnet50"), ("--inference-sets", "vox")):
        done = run_cli("sv.bin.make_results", *wrong, data, exp, check=False)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, wrong
    assert done.stderr == "sv.bin.make_results: no test set 'vox' (known: voxceleb1, cnceleb)\n"


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
        ("energy/05_train.json", {"schema": "other/1"}, 'schema is "other/1"'),
        ("energy/05_train.json", {"schema": "energy-sidecar/2"}, "missing key 'stage'"),
        ("scores/vox1_o_cosine.json", {"trials_name": "vox1_o"}, "missing key 'data_set'"),
        ("scores/vox1_o_cosine.json", "[1]", "not a JSON object"),
        ("scores/vox1_o_cosine.det.json", {"p_fa": [0, 2], "p_miss": [1, 0]}, "p_fa holds 2"),
        ("scores/vox1_o_cosine.boot.json", {"of_eer_percent": 0.88, "replicates": 2, "seed": 0,
          "speakers": 3, "trials_digest": "x", "eer_percent": [1], "min_dcf": {}},
         "eer_percent has 1 values, not 2"),
        ("scores/vox1_o_cosine.hist.json", {"edges": [0, 1], "targets": [1, 2],
                                            "nontargets": [3]}, "one edge more than targets"),
        ("xvectors_voxceleb1/info.json", {"data_set": "voxceleb1", "precision": "fp32",
                                          "utterances": "many"}, "utterances must be int"),
        ("model.json", {"parameters": 3}, "missing key 'parameters_with_head'"),
        ("model.json", '{"parameters": NaN}', "nan is no number"),
    ],
)  # fmt: skip
def test_broken_json(tree, name, content, message):
    data, exp = tree
    path = exp / "resnet50_d" / name
    whole = {system.name for system in collect_results(*tree).systems}
    write(path, content)
    results = collect_results(data, exp)
    (line,) = results.broken
    assert line.startswith(f"{path}: ") and message in line and "\n" not in line
    assert {system.name for system in results.systems} == whole - {"resnet50_d"}
    with pytest.raises(SvError) as caught:
        collect_results(data, exp, ["resnet50_d"])
    assert str(caught.value) == line


def test_a_broken_file_costs_its_own_system_and_no_other(tree, run_cli):
    data, exp = tree
    path = exp / "resnet50_d" / "model.json"
    write(path, {"parameters": 3})
    env = leave_out_figures(data.parent)
    done = run_cli("sv.bin.make_results", data, exp, env=env, check=False)
    assert done.returncode == 1
    assert f"not read: {path}: missing key" in done.stderr.splitlines()[-1]
    table = (exp / "results" / "table1.csv").read_text()
    assert "resnet34_d," in table and "resnet50_d," not in table


def test_remarks_of_stage_1_stand_below_every_table_with_scores(tree, run_cli):
    data, exp = tree
    (data / "remarks.tsv").write_text("*\ttrained on less\nvox1_o\tpartial: 2 of 3 trials\n")
    directory = write_all_tables(data, exp)
    for name in ("table1", "table2"):
        text = (directory / f"{name}.md").read_text()
        assert "- All lists: trained on less." in text and "- vox1_o: partial: 2 of 3" in text
    assert "trained on less" not in (directory / "table3.md").read_text()
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
    counts = {133550080: "134", 17170432: "17.2", 5813888: "5.81", 126000: "0.126", 1.2e9: "1200"}
    assert {n: format_millions(n) for n in counts} == counts
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
    env = leave_out_figures(data.parent)
    run_cli("steps/make_results.sh", "--models", "resnet34_d", data, exp, env=env, check=False)
    assert sidecar.is_file()
    assert "score_vox1_o" in (exp / "results" / "table3.md").read_text()
