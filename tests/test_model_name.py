"""Model names: one spelling for each, and the study's numbers from every one."""

import json
import tomllib
from decimal import Decimal

import pytest
from conftest import ROOT
from study_systems import OURS, STUDY

from sv.errors import UsageError
from sv.model_name import NetworkConfig, check_model_name, format_model_name, parse_model_name

VARIANTS = [
    "resnet152_d", "resnet50_d_3-24-36-3", "resnet18_d_1111", "resnet50_d_10-2-2-2",
    "resnet50_d_2882_w0.125", "resnet18_w0.125", "resnet18_w0.0625", "resnet34_w1.5",
    "resnet50_d_3-24-36-3_w2", "resnet18_d_1111_w0.015625",
]  # fmt: skip


@pytest.mark.parametrize("name", [*STUDY, *OURS, *VARIANTS])
def test_format_is_the_inverse_of_parse(name):
    assert format_model_name(parse_model_name(name)) == name


def test_a_name_says_blocks_channels_and_layers():
    model = parse_model_name("resnet50_d_3-24-36-3_w0.5")
    assert model.blocks == (3, 24, 36, 3)
    assert model.count_channels() == (64, 64, 128, 128)
    assert model.count_channels(NetworkConfig(base_channels=(8, 8, 16, 16))) == (4, 4, 8, 8)
    assert (model.convs_per_block, model.layers) == (3, 200)
    assert parse_model_name("resnet34_w2").convs_per_block == 2


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("resnet50", "resnet50_d"),
        ("resnet050_d", "resnet50_d"),
        ("resnet50_d_3463", "resnet50_d"),
        ("resnet50_d_2-8-8-2", "resnet50_d_2882"),
        ("resnet50_d_3-04-36-3", "resnet50_d_3-4-36-3"),
        ("resnet50_w1", "resnet50_d"),
        ("resnet50_w0.50", "resnet50_w0.5"),
        ("resnet50_w02", "resnet50_w2"),
        ("resnet50_w2.0", "resnet50_w2"),
        ("resnet50_d_w0.5", "resnet50_w0.5"),
        ("resnet50_d_2882_w1.0", "resnet50_d_2882"),
        ("ResNet-50-D", "resnet50_d"),
        ("ResNet-50-D[2,8,2,2]", "resnet50_d_2822"),
        ("ResNet-50-D[3,4,6,3]", "resnet50_d"),
        ("resnet50_d [3,24,36,3]", "resnet50_d_3-24-36-3"),
        ("ResNet-50-W0.5", "resnet50_w0.5"),
        ("ResNet-50-W1.0", "resnet50_d"),
        ("Resnet34_D", "resnet34_d"),
        ("resnet-101", "resnet101_d"),
        ("resnt50_d", "resnet50_d"),
    ],
)
def test_another_spelling_is_refused_with_the_right_one(wrong, right):
    with pytest.raises(UsageError) as error:
        parse_model_name(wrong)
    assert f"'{wrong}'" in str(error.value)
    assert f"'{right}'" in str(error.value)
    assert format_model_name(parse_model_name(right)) == right  # what is suggested is accepted


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("resnet51_d", "no stage table for depth 51 (known: 18, 34, 50, 101, 152, 200, 419)"),
        ("resnet50_d_2082", "every stage needs at least one block"),
        ("resnet50_w0", "a width of 0"),
        ("resnet50_d_288", "did you mean"),
        ("", "a name is resnet50_d"),
        ("vgg", "a name is resnet50_d"),
        ("resnet50_d\n", "did you mean 'resnet50_d'"),
        ("resnet" + "9" * 5000, "a name is resnet50_d"),
        ("resnet50_w" + "9" * 40, "unknown model"),
        ("resnet٥٠_d", "unknown model"),
    ],
)
def test_no_network_no_name(wrong, message):
    with pytest.raises(UsageError) as error:
        parse_model_name(wrong)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("base", "wrong", "step", "right"),
    [
        ((128, 128, 256, 256), "0.3", "0.0078125", "0.015625"),
        ((128, 128, 256, 256), "0.0078125", "0.0078125", "0.015625"),
        ((8, 8, 16, 16), "0.125", "0.125", "0.25"),
        ((8, 8, 16, 16), "1.3", "0.125", "0.25"),
        ((12, 12, 24, 24), "0.125", "0.25", "0.25"),
        ((3, 6, 9, 15), "0.5", "1", "1"),
        ((1, 1, 2, 2), "0.5", "1", "2"),
    ],
)
def test_a_width_without_whole_channels_is_refused_with_those_that_do(base, wrong, step, right):
    network = NetworkConfig(base_channels=base)
    with pytest.raises(UsageError) as error:
        check_model_name(f"resnet50_w{wrong}", network)
    assert f"{right} and more in steps of {step}" in str(error.value)
    for width in (Decimal(right), Decimal(right) + Decimal(step)):
        name = "resnet50_d" if width == 1 else f"resnet50_w{width.normalize():f}"
        assert min(parse_model_name(name).count_channels(network)) >= 2


@pytest.mark.parametrize("recipe", ["voxceleb", "mini", "an4"])
def test_the_studys_names_are_networks_of_every_recipe(run_cli, recipe):
    """The blocks and layers of a name, and the channels of the recipe."""
    conf = ROOT / "egs" / recipe / "conf"
    base = tomllib.loads((conf / "train.toml").read_text())["network"]["base_channels"]
    listed = [line.split("#")[0].strip() for line in (conf / "models.txt").read_text().splitlines()]
    assert sorted(filter(None, listed)) == sorted(STUDY)
    argv = ["--config", conf / "train.toml", "--cost", "false", *STUDY]
    infos = json.loads(run_cli("sv.bin.model_info", *argv).stdout)
    for info, (layers, *_) in zip(infos, STUDY.values(), strict=True):
        factor = Decimal(info["name"].partition("_w")[2] or "1")
        assert (info["layers"], info["channels"]) == (layers, [n * factor for n in base])


def test_model_info_gives_the_numbers_of_the_study(run_cli):
    expected = {**STUDY, **OURS}
    infos = json.loads(run_cli("sv.bin.model_info", "--memory", "false", *expected).stdout)
    assert [info["name"] for info in infos] == list(expected)
    for info, (layers, parameters, with_head, gmac) in zip(infos, expected.values(), strict=True):
        counts = (info["layers"], info["parameters"], info["parameters_with_head"])
        assert counts == (layers, parameters, with_head), info["name"]
        assert info["gmac"] == pytest.approx(gmac, abs=0.01), info["name"]


def test_without_the_cost_nothing_is_built(run_cli):
    info = json.loads(run_cli("sv.bin.model_info", "--cost", "false", "resnet419_d").stdout)
    assert info == {
        "name": "resnet419_d",
        "blocks": [4, 44, 87, 4],
        "channels": [128, 128, 256, 256],
        "layers": 419,
    }


def test_the_cost_is_of_the_configs_parts(run_cli, tmp_path):
    """Plain statistics have no attention network: two layers less, with their biases."""
    tiny = (ROOT / "tests/egs/tiny/conf/train.toml").read_text()
    heads = tiny.replace("[margin]", '[margin]\nhead = "sub_centre_aam"')
    infos = []
    for text in (tiny, heads.replace("[network]", '[network]\npooling = "mean_std"')):
        (tmp_path / "train.toml").write_text(text)
        argv = ["--config", tmp_path / "train.toml", "--input-dim", 41, "--speakers", 10]
        argv += ["--memory", "false"]
        infos.append(json.loads(run_cli("sv.bin.model_info", *argv, "resnet18_d").stdout))
    asp, plain = infos
    dim, bottleneck = 16 * 6, 8  # 41 features by eighths
    assert asp["parameters"] - plain["parameters"] == 2 * dim * bottleneck + bottleneck + dim
    assert asp["gmac"] >= plain["gmac"]
    assert asp["parameters_with_head"] - asp["parameters"] == 10 * 16
    assert plain["parameters_with_head"] - plain["parameters"] == 3 * 10 * 16


def test_wrong_name_is_one_line_with_status_2(run_cli):
    done = run_cli("sv.bin.model_info", "resnet18_d", "ResNet-50-W0.5", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "sv.bin.model_info: unknown model 'ResNet-50-W0.5' (did you mean 'resnet50_w0.5'?)\n"
    )


@pytest.mark.parametrize("conf", sorted(ROOT.glob("egs/*/conf")), ids=str)
def test_every_recipe_names_models_that_exist(run_cli, conf):
    assert run_cli("sv.bin.recipe", "settings", conf, "study").stdout.splitlines()[0].split()


def test_study_stands_for_its_fifteen_systems(run_cli):
    words = ["settings", ROOT / "egs/voxceleb/conf", "resnet50_d", "study", "resnet18_w0.5"]
    names = run_cli("sv.bin.recipe", *words).stdout.splitlines()[0].split()
    assert len(names) == 16 and names[-1] == "resnet18_w0.5"  # resnet50_d is listed once
    assert set(names[:-1]) == set(STUDY)


def test_a_recipe_without_any_model_is_refused(run_cli, tmp_path):
    (tmp_path / "models.txt").write_text("# nothing yet\n\n")
    done = run_cli("sv.bin.recipe", "settings", tmp_path, "study", check=False)
    assert done.returncode == 2
    assert done.stderr == f"sv.bin.recipe: {tmp_path / 'models.txt'}: no model name in it\n"
