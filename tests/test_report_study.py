"""The published figures as files, and our figures compared with them."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import ROOT
from report_tree import ESTIMATED, leave_out_figures, read_csv, write_sidecar
from scipy import stats
from study_exp import LISTS, SYSTEMS, build_study
from study_systems import STUDY as COUNTS

from sv.errors import SvError
from sv.model_name import check_model_name, parse_model_name
from sv.report.output import FORMATS
from sv.report.published import compute_rank, read_study
from sv.report.results import collect_results
from sv.report.tables.against import build_comparison

STUDY = ROOT / "egs" / "voxceleb" / "study"


def test_published_rows_are_those_of_the_recipe():
    study = read_study(STUDY)
    models = [
        line for line in (STUDY.parent / "conf" / "models.txt").read_text().splitlines()
        if line[0] != "#"
    ]  # fmt: skip
    assert sorted(row.model for row in study.trainings) == sorted(models)
    assert study.lists == tuple(LISTS)
    for row in (*study.trainings, *study.inferences):
        check_model_name(row.model)
        # ResNet-50-D[2,8,2,2] is resnet50_d_2822; Table 2 leaves the -D out.
        folded = re.sub(r"[\[,\]]|-D", "", row.study_name.replace("ResNet-", "resnet").lower())
        folded = folded.replace("-d", "").replace("-w", "_w")
        assert row.model.replace("_d", "").replace("_", "") == folded.replace("_", "")
    by_model = {row.model: row for row in study.trainings}
    for name, (_, _, kwh, co2_kg, *eers) in SYSTEMS.items():
        row = by_model[name]
        assert (row.figures["energy_kwh"].value, row.figures["co2_kg"].value) == (kwh, co2_kg)
        assert [row.figures[f"eer_percent_{trials}"].value for trials in LISTS] == eers
    assert by_model["resnet34_d"].figures["energy_kwh"].text == "46.2"  # as printed
    assert by_model["resnet50_w4"].figures["min_dcf_cnceleb"].text == "0.545"


def test_published_inference():
    rows = {(row.model, row.precision): row for row in read_study(STUDY).inferences}
    assert len(rows) == 12
    assert set(rows["resnet419_d", "fp32"].figures.values()) == {None}
    row = rows["resnet200_d", "fp16"]
    values = {key: figure.value for key, figure in row.figures.items()}
    assert (row.trials, row.figures["co2_kg"].text) == ("commonbench", "0.0685")
    assert values == {
        "eer_percent": 3.462, "min_dcf": 0.327, "energy_kwh": 5.45, "co2_kg": 0.0685,
        "duration_s": 3600 + 53 * 60 + 11,
    }  # fmt: skip


def test_size_and_gmac_next_to_the_published_figures_are_those_of_our_networks():
    from sv.nnet.architectures import compute_cost  # noqa: PLC0415 - torch, for this test alone

    for row in read_study(STUDY).trainings:
        _, _, with_head, gmac = COUNTS[row.model]  # which test_model_name has the program count
        assert row.figures["gmac"].value == gmac
        assert row.figures["parameters_m"].value == with_head // 10**6
        if sum(parse_model_name(row.model).blocks) < 30:  # the deep ones take seconds
            _, counted = compute_cost(row.model, 81, 350, 256)
            assert counted == pytest.approx(gmac, abs=0.005), row.model


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("table1.csv", "ResNet-34-D,Depth scaling,16,48.07,3.90", "ResNet-34-D,Depth scaling,16,"
         "48.07,3.9x", "line 8: eer_percent is '3.9x', expected a number above 0 or nothing"),
        ("table1.csv", "16,48.07,", "16,", "line 8 has 18 fields, expected 19"),
        ("table1.csv", "min_dcf_vox1_e", "dcf_vox1_e", "no column min_dcf_vox1_e for"),
        ("table1.csv", "energy_kwh", "energy", "no column energy_kwh in line 3"),
        ("table1.csv", "resnet18_d,", "resnet34_d,", "resnet34_d has two rows"),
        ("table1.csv", '"ResNet-50-D[8,2,2,2]"', '"ResNet-50-D[8,2,2,2]', "line 10 has 2 fields"),
        ("table2.csv", "02:12:48", "2:72:48", "duration is '2:72:48', expected hh:mm:ss"),
        ("table2.csv", "resnet34_d,ResNet-34", ",ResNet-34", "has no model"),
        ("table2.csv", "3.11,", "0,", "energy_kwh is '0', expected a number above 0"),
        ("study.toml", "gpu =", "gpus =", "unknown key 'gpus' (did you mean 'gpu'?)"),
    ],
)  # fmt: skip
def test_a_broken_study_is_one_line(tmp_path, file, old, new, message):
    folder = shutil.copytree(STUDY, tmp_path / "study")
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(SvError) as caught:
        read_study(folder)
    assert message in str(caught.value)
    assert str(folder / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rank_correlation_is_spearmans():
    x = [3.1, 2.0, 5.5, 4.0, 4.0, 9.0]
    y = [1.0, 2.0, 3.0, 7.0, 5.0, 6.0]
    rank = compute_rank(x, y)
    assert rank.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    low, high = rank.interval
    assert -1 < low < rank.rho < high < 1
    # By hand: atanh(rho) -+ 1.96 sqrt((1 + rho^2 / 2) / (n - 3)).
    half = 1.959964 * np.sqrt((1 + rank.rho**2 / 2) / 3)
    assert np.arctanh(high) - np.arctanh(rank.rho) == pytest.approx(half)
    assert compute_rank(x, [-v for v in y]).rho == pytest.approx(-rank.rho)


def test_p_value_counts_orders():
    rank = compute_rank([1, 2, 3, 4], [10, 20, 30, 40])
    assert (rank.rho, rank.interval) == (1.0, None)
    assert rank.p_value == pytest.approx(2 / 24)  # the best and the worst of 24 orders
    many = compute_rank(range(15), range(15))
    assert 0 < many.p_value < 0.001
    assert compute_rank(range(15), range(15)) == many  # the same seed


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [([1, 2, 3], [1, 2, 3], "3 systems are too few"), ([1] * 5, range(5), "all ours"),
     (range(5), [2] * 5, "all published")],
)  # fmt: skip
def test_no_rank_correlation_has_a_reason(x, y, reason):
    rank = compute_rank(x, y)
    assert (rank.rho, rank.interval, rank.p_value) == (None, None, None)
    assert rank.reason.startswith(reason)


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
    assert list(tables) == ["against1", "against1_lists", "against2", "against_ranks"]
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
    env = leave_out_figures(data.parent)
    run_cli("sv.bin.make_results", "--study", STUDY, data, exp, env=env, check=False)
    results = exp / "results"
    for name in ("against1", "against1_lists", "against2", "against_ranks"):
        for suffix in ("md", "tex", "csv"):
            assert (results / f"{name}.{suffix}").is_file()
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


def test_inference_next_to_table_2(tables):
    rows = {row.label: row for row in tables["against2"].rows}
    assert len(rows) == 12
    row = rows["resnet50_d commonbench fp32"]
    assert row.section == "commonbench, FP32"
    assert row.cells["eer_percent_difference"].value == pytest.approx(3.81 - 3.814)
    assert row.cells["eer_percent_difference"].text == "0.00"
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


def test_an_estimate_is_called_one(few):
    data, exp = few
    path = exp / "resnet34_d" / "energy" / "05_train.json"
    write_sidecar(path, 46.2, ESTIMATED, fraction=0.0)
    table = compare(data, exp)["against1"]
    row = next(row for row in table.rows if row.label == "resnet34_d")
    for key in ("energy_kwh", "energy_kwh_ratio", "co2_kg", "co2_kg_ratio"):
        assert row.cells[key].marks == ("estimated",)
    assert any(note.mark == "estimated" for note in table.notes)
