"""The published figures as files, and rank correlation."""

import re
import shutil

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats
from study_exp import LISTS, SYSTEMS
from study_systems import STUDY as COUNTS

from sv.errors import SvError
from sv.model_name import check_model_name, parse_model_name
from sv.report.published import compute_rank, read_study

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
        assert (row.energy_kwh.value, row.co2_kg.value) == (kwh, co2_kg)
        assert [row.lists[trials].eer_percent.value for trials in LISTS] == eers
    assert by_model["resnet34_d"].energy_kwh.text == "46.2"  # as printed
    assert by_model["resnet50_w4"].lists["cnceleb"].min_dcf.text == "0.545"


def test_published_inference():
    rows = {(row.model, row.precision): row for row in read_study(STUDY).inferences}
    assert len(rows) == 12
    empty = rows["resnet419_d", "fp32"]
    assert (empty.measures.eer_percent, empty.energy_kwh, empty.duration_s) == (None, None, None)
    row = rows["resnet200_d", "fp16"]
    assert (row.trials, row.energy_kwh.value, row.co2_kg.text) == ("commonbench", 5.45, "0.0685")
    assert row.duration_s.value == 3600 + 53 * 60 + 11
    assert (row.measures.eer_percent.value, row.measures.min_dcf.value) == (3.462, 0.327)


def test_size_and_gmac_beside_the_published_figures_are_those_of_our_networks():
    from sv.nnet.architectures import compute_cost  # noqa: PLC0415 - torch, for this test alone

    for row in read_study(STUDY).trainings:
        _, _, with_head, gmac = COUNTS[row.model]  # which test_model_name has the program count
        assert row.gmac.value == gmac
        assert row.parameters_m.value == with_head // 10**6
        if sum(parse_model_name(row.model).blocks) < 30:  # the deep ones take seconds
            cost = compute_cost(row.model, 81, 350, 256)
            assert cost.gmac == pytest.approx(row.gmac.value, abs=0.005), row.model


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
