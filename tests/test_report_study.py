"""Our figures beside the published ones, and what each implies."""

import json
import re
import shutil

import pytest
from conftest import ROOT
from report_tree import ESTIMATED, read_csv, write_sidecar
from study_exp import CROPS, LISTS, SYSTEMS, build_study

from sv.errors import SvError
from sv.report.collect import collect_results
from sv.report.study.against import build_comparison
from sv.report.study.disagreements import find_outliers
from sv.report.tables.files import FORMATS

STUDY = ROOT / "egs" / "voxceleb" / "study"
FEW = ("resnet34_d", "resnet18_d", "resnet50_d", "resnet50_w2")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The tables of a tree of all systems with the published EERs and energies."""
    data, exp = build_study(tmp_path_factory.mktemp("study"))
    return {table.name: table for table in build_comparison(collect_results(data, exp), STUDY)}


@pytest.fixture
def few(tmp_path):
    """A tree of four systems, to change."""
    return build_study(tmp_path, FEW, statistics=False)


def compare(data, exp, study=STUDY):
    return {table.name: table for table in build_comparison(collect_results(data, exp), study)}


def edit(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **changes}))


def values(table, key):
    return {row.label: row.cells[key].value for row in table.rows}


# The comparison


def test_no_comparison_without_a_study_or_common_systems(few, tmp_path):
    data, exp = few
    results = collect_results(data, exp)
    assert build_comparison(results, None) == []
    with pytest.raises(SvError, match="none/study.toml"):  # a folder that was named is wanted
        build_comparison(results, tmp_path / "none")
    for name in FEW:
        (exp / name).rename(exp / f"{name}_w0.5")
    assert build_comparison(collect_results(data, exp), STUDY) == []


def test_equal_figures_have_no_difference_and_the_same_order(tables):
    assert list(tables) == ["against1", "against1_lists", "against2", "against_ranks", "implied"]
    first = tables["against1"]
    assert [row.label for row in first.rows] == list(SYSTEMS)
    for row in first.rows:
        assert row.cells["eer_percent_difference"].value == pytest.approx(0, abs=1e-12)
        assert row.cells["eer_percent_difference"].text == "0.00"
        assert row.cells["energy_kwh_ratio"].value == pytest.approx(1)
        assert row.cells["co2_kg_ratio"].value == pytest.approx(1)
    assert {row.cells["eer_percent_difference"].value for row in tables["against1_lists"].rows} == {
        0.0
    }
    assert len(tables["against1_lists"].rows) == 5 * 15
    ranks = {row.label: row.cells for row in tables["against_ranks"].rows}
    whole = ["EER (average)", "energy (training)", *(f"EER ({name})" for name in LISTS)]
    for label in whole:
        assert (ranks[label]["rho"].value, ranks[label]["systems"].value) == (1.0, 15)
    assert ranks["energy (commonbench, FP32)"]["systems"].value == 5
    assert ranks["energy (commonbench, FP16)"]["systems"].value == 6


def test_the_program_writes_comparison_and_advice(few, run_cli):
    data, exp = few
    done = run_cli("sv.bin.make_results", "--study", STUDY, data, exp, timeout=180)
    results = exp / "results"
    for name in ("against1", "against1_lists", "against2", "against_ranks", "implied"):
        for suffix in ("md", "tex", "csv"):
            assert str(results / f"{name}.{suffix}") in done.stdout
    rows = {row["system"]: row for row in read_csv(results / "against1.csv")}
    assert set(rows) == set(FEW)
    assert float(rows["resnet34_d"]["energy_kwh_published"]) == 46.2
    assert float(rows["resnet34_d"]["eer_percent_difference"]) == pytest.approx(0, abs=1e-9)
    ranks = {row["what"]: row for row in read_csv(results / "against_ranks.csv")}
    assert float(ranks["energy (training)"]["rho"]) == 1
    assert (results / "advice.md").read_text().startswith("# Advice from these results")


def test_every_table_has_every_format(tables):
    for table in tables.values():
        texts = {suffix: format_table(table) for suffix, format_table in FORMATS.items()}
        assert table.caption in texts["md"]
        assert f"tab:{table.name}" in texts["tex"]
        assert len(texts["csv"].splitlines()) == len(table.rows) + 1


def test_differences_are_ours_less_the_published(few):
    data, exp = few
    edit(exp / "resnet34_d" / "scores" / "vox1_o_cosine.json", eer_percent=1.09)
    edit(exp / "resnet34_d" / "energy" / "05_train.json", energy_kwh=23.1, measured_fraction=0.5)
    tables = compare(data, exp)
    row = next(row for row in tables["against1"].rows if row.label == "resnet34_d").cells
    assert row["eer_percent_difference"].value == pytest.approx(0.1 / 5)
    assert row["eer_percent_difference"].text == "+0.02"
    ratio = row["energy_kwh_ratio"]
    assert (ratio.value, ratio.text) == (pytest.approx(0.5), "0.500")
    assert ratio.marks == row["energy_kwh"].marks == ("partly_estimated",)
    assert row["energy_kwh_published"].text == "46.2"
    assert any(note.mark == "partly_estimated" for note in tables["against1"].notes)
    lists = values(tables["against1_lists"], "eer_percent_difference")
    assert lists["resnet34_d vox1_o"] == pytest.approx(0.1)
    assert lists["resnet34_d vox1_e"] == 0


def test_averages_are_over_the_same_lists(few):
    data, exp = few
    for name in FEW:
        for trials in ("commonbench", "cnceleb"):
            (exp / name / "scores" / f"{trials}_cosine.json").unlink()
    table = compare(data, exp)["against1"]
    row = next(row for row in table.rows if row.label == "resnet18_d").cells
    assert row["eer_percent_published"].value == pytest.approx((1.19 + 1.19 + 2.04) / 3)
    assert row["eer_percent"].value == pytest.approx(row["eer_percent_published"].value)
    assert row["eer_percent_printed"].text == "4.11"
    text = " ".join(note.text for note in table.notes)
    assert "over vox1_o, vox1_e, vox1_h, those of the study too" in text
    assert "It also has commonbench, cnceleb, not scored here" in text


def test_a_missing_figure_has_a_reason_and_no_difference(few):
    data, exp = few
    (exp / "resnet18_d" / "energy" / "05_train.json").unlink()
    (exp / "resnet18_d" / "scores" / "vox1_e_cosine.json").unlink()
    tables = compare(data, exp)
    row = next(row for row in tables["against1"].rows if row.label == "resnet18_d").cells
    for key in ("energy_kwh", "energy_kwh_ratio", "eer_percent", "eer_percent_difference"):
        assert row[key].value is None
        assert row[key].reason
    ranks = {row.label: row.cells for row in tables["against_ranks"].rows}
    assert ranks["energy (training)"]["rho"].value is None
    assert "3 systems are too few" in ranks["energy (training)"]["rho"].reason
    assert ranks["EER (cnceleb)"]["systems"].value == 4


def test_inference_beside_table_2(tables):
    rows = {row.label: row for row in tables["against2"].rows}
    assert len(rows) == 12
    row = rows["resnet50_d commonbench fp32"]
    assert row.section == "commonbench, FP32"
    assert row.cells["eer_percent_difference"].value == pytest.approx(3.81 - 3.814)
    assert row.cells["eer_percent_difference"].text == "-0.004"
    ours = 1.2 + 50.76 * 0.0387
    assert row.cells["energy_kwh_ratio"].value == pytest.approx(ours / 3.11)
    assert row.cells["duration_s_published"].text == "00:51:57"
    assert row.cells["duration_s_ratio"].value == pytest.approx(3000 / (51 * 60 + 57))
    empty = rows["resnet419_d commonbench fp32"].cells
    assert empty["energy_kwh"].value
    assert empty["energy_kwh_ratio"].reason == "not in the study's Table 2"


def test_no_inference_table_without_extractions(few):
    data, exp = few
    for path in [*exp.glob("*/energy/06_*"), *exp.glob("*/scores/commonbench*")]:
        path.unlink()
    assert "against2" not in compare(data, exp)


# What is implied


def test_implied_figures(tables):
    rows = {(row.section, row.label): row.cells for row in tables["implied"].rows}
    published = rows["Study, training (Table 1)", "resnet101_d"]
    assert published["g_per_kwh"].value == pytest.approx(4263 / 135.27)
    crops = 42 * 1_092_009
    assert published["j_per_crop"].value == pytest.approx(135.27 * 3.6e6 / crops)
    assert published["kwh_per_gmac"].value == pytest.approx(135.27 / 89.87)
    assert "no training time" in published["power_w"].reason
    ours = rows["Ours, training", "resnet101_d"]
    assert ours["j_per_crop"].value == pytest.approx(135.27 * 3.6e6 / CROPS)
    assert ours["power_w"].value == pytest.approx(400)
    section = "Study, extraction for commonbench in fp32 (Table 2)"
    inference = rows[section, "resnet200_d commonbench fp32"]
    assert inference["g_per_kwh"].value == pytest.approx(122.4 / 8.51)
    assert inference["power_w"].value == pytest.approx(8510 / ((2 * 60 + 12 + 48 / 60) / 60))
    assert (section, "resnet419_d commonbench fp32") not in rows


def test_rows_of_the_study_that_do_not_agree(tables):
    rows = {
        row.label: row.cells["disagreements"].value
        for row in tables["implied"].rows
        if row.section.startswith("Study")
    }
    found = {label: text for label, text in rows.items() if text}
    fp32, fp16 = "commonbench fp32", "commonbench fp16"
    assert set(found) == {
        "resnet101_d", "resnet50_d", "resnet18_d", f"resnet101_d {fp32}", f"resnet18_d {fp32}",
        f"resnet200_d {fp16}", f"resnet101_d {fp16}", f"resnet50_d {fp16}", f"resnet18_d {fp16}",
    }  # fmt: skip
    assert found["resnet101_d"].startswith("31.51 gCO2/kWh, the median of the section is 14.7")
    assert found["resnet50_d"].startswith("19.00 gCO2/kWh")
    assert "resnet34_d 46.2 kWh with 48.07 GMAC" in found["resnet18_d"]
    assert found[f"resnet101_d {fp32}"] == "minDCF 0.325 (commonbench), 0.326 in Table 1"
    assert "00:53:37 in fp16, 00:51:57 in fp32" in found[f"resnet50_d {fp16}"]
    assert found[f"resnet200_d {fp16}"].startswith("saves 36 %")
    notes = [note.text for note in tables["implied"].notes]
    assert any(
        "the text gives about 50 gCO2/kWh, the rows imply 10.99 to 31.51" in n for n in notes
    )
    assert any("above the limit of one NVIDIA Tesla V100" in n for n in notes)
    # Every number in the column is explained below, once.
    numbers = [
        number for row in tables["implied"].rows
        for number in re.findall(r"\((\d+)\)", row.cells["see"].text)
    ]  # fmt: skip
    explained = [m[1] for text in notes if (m := re.match(r"\((\d+)\) ", text))]
    assert numbers == explained == [str(n) for n in range(1, len(explained) + 1)]


def test_an_average_that_is_not_the_mean_is_marked_and_left_as_printed(few, tmp_path):
    data, exp = few
    folder = shutil.copytree(STUDY, tmp_path / "study")
    path = folder / "table1.csv"
    # The lists of ResNet-34-D have a mean of 3.902: 3.91 is a rounding away from it, 3.92 is not.
    for average, marked in (("3.91", False), ("3.92", True)):
        path.write_text(
            (STUDY / "table1.csv").read_text().replace("16,48.07,3.90", f"16,48.07,{average}")
        )
        tables = compare(data, exp, folder)
        row = next(row for row in tables["implied"].rows if row.label == "resnet34_d")
        text = f"average EER {average}, the mean of its 5 lists is 3.9020"
        assert (text in row.cells["disagreements"].value) == marked
        averages = {r.label: r.cells for r in tables["against1"].rows}
        assert averages["resnet34_d"]["eer_percent_printed"].text == average


def test_outliers_are_found_by_rule():
    even = {str(n): 14 + 0.1 * n for n in range(9)}
    assert find_outliers(even, "g") == []
    assert [d.row for d in find_outliers({**even, "odd": 31.0}, "g")] == ["odd"]
    assert find_outliers({"a": 1.0, "b": 1.0, "c": 1.0, "d": 9.0}, "g") == []  # too few
    # Equal figures have a MAD of 0: 3 % off is still no outlier, 30 % is.
    same = dict.fromkeys("abcdef", 44.18)
    assert find_outliers({**same, "g": 45.5}, "g") == []
    assert [d.row for d in find_outliers({**same, "g": 57.4}, "g")] == ["g"]


def test_ours_without_cost_or_crops_says_so(few):
    data, exp = few
    path = exp / "resnet18_d" / "model.json"
    path.write_text(json.dumps({"parameters": 1, "parameters_with_head": 2}))
    table = compare(data, exp)["implied"]
    row = next(r for r in table.rows if r.section == "Ours, training" and r.label == "resnet18_d")
    assert row.cells["j_per_crop"].reason == "crops_trained is not in model.json"
    assert row.cells["kwh_per_gmac"].reason == "gmac is not in model.json"


def test_an_estimate_is_called_one_in_every_table(few):
    data, exp = few
    path = exp / "resnet34_d" / "energy" / "05_train.json"
    write_sidecar(path, 46.2, ESTIMATED, fraction=0.0)
    tables = compare(data, exp)
    for name, keys in (
        ("against1", ("energy_kwh", "energy_kwh_ratio", "co2_kg", "co2_kg_ratio")),
        ("implied", ("energy_kwh", "j_per_crop", "kwh_per_gmac", "power_w")),
    ):
        rows = [r for r in tables[name].rows if r.cells["system"].text == "resnet34_d"]
        trained = next(row for row in rows if "extract" not in row.section)
        assert all(trained.cells[key].marks == ("estimated",) for key in keys)
        assert any(note.mark == "estimated" for note in tables[name].notes)
