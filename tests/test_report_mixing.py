"""Systems of different settings are refused, or named: by the real program, on real configs."""

import ast
import json
import shutil
import zipfile

import pytest
import torch
from conftest import ROOT
from report_tree import leave_out_figures, write
from study_exp import build_study

from sv.errors import SvError
from sv.report.mixing import HOW_KEYS, find_differences, find_front_end
from sv.report.results import collect_results, read_system
from sv.train.store import FORMAT, save_checkpoint

A, B, C = SYSTEMS = ("resnet200_d", "resnet50_d", "resnet18_d")
CONFIG = """
num_epochs = {epochs}
precision = "{precision}"
checkpoint_minutes = {minutes}
final_weights = "last"
average_epochs = {minutes}
[margin]
scale = 30.0
head = "aam"
sub_centres = {minutes}
[fine_tuning]
num_epochs = 0
crop_frames = {minutes}
"""


def write_config(exp, name, *, epochs=42, precision="fp32", minutes=15):
    text = CONFIG.format(epochs=epochs, precision=precision, minutes=minutes)
    write(exp / name / "config.toml", text)


def write_front_end(exp, name, **features):
    """Write a network without weights."""
    save_checkpoint(exp / name / "final.pt", {"model": name, "features": features})


@pytest.fixture
def study(tmp_path):
    data, exp = build_study(tmp_path, SYSTEMS, statistics=False)
    for name in SYSTEMS:
        write_config(exp, name)
    return data, exp


def differences(data, exp):
    return {found.key: found.values for found in find_differences(collect_results(data, exp))}


def test_alike_systems_are_not_refused(study):
    data, exp = study
    # How something is computed or kept; what another key switches off; 42 and 42.0.
    write_config(exp, B, epochs="42.0", minutes=3)
    # Written before there was a base: it was the study's.
    with open(exp / A / "config.toml", "a") as file:
        file.write("\n[network]\nbase_channels = [128, 128, 256, 256]\n")
    (exp / C / "config.toml").unlink()  # not trained
    write_front_end(exp, A, num_mel_bins=80)
    assert differences(data, exp) == {}


def test_another_scale_is_another_setting(study):
    data, exp = study
    with open(exp / A / "config.toml", "a") as file:
        file.write("\n[network]\nbase_channels = [8, 8, 16, 16]\n")
    found = {"[8, 8, 16, 16]": (A,), "[128, 128, 256, 256]": (B, C)}
    assert differences(data, exp) == {"network.base_channels": found}


def test_tables_of_energies_say_what_was_computed_twice(study, run_cli):
    data, exp = study
    with open(exp / B / "config.toml") as file:
        text = file.read()
    write(exp / B / "config.toml", f'checkpointing = "selective"\ncompile = true\n{text}')
    with open(exp / C / "config.toml") as file:
        text = file.read()
    write(exp / C / "config.toml", f"activation_checkpointing = true\n{text}")  # of before
    env = leave_out_figures(data.parent)
    done = run_cli("steps/make_results.sh", data, exp, env=env, check=False)
    assert "different settings" not in done.stderr
    tables = {n: json.loads((exp / "results" / f"table{n}.json").read_text()) for n in range(1, 5)}
    for key, parts in (
        (HOW_KEYS[0], (f"selective ({B})", f"none ({A})", f"full ({C})")),
        (HOW_KEYS[1], (f"true ({B})", f"false ({A}, {C})")),
    ):
        noted = {
            n: [x["text"] for x in t["notes"] if f"{key} is" in x["text"]]
            for n, t in tables.items()
        }
        assert noted[1] == noted[3] and not noted[2] and not noted[4]
        assert all(part in noted[1][0] for part in parts)


def test_the_program_refuses_or_names_what_differs(study, run_cli):
    data, exp = study
    write_config(exp, C, epochs=2, precision="bf16")
    done = run_cli("steps/make_results.sh", data, exp, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "sv.bin.make_results: systems of different settings would stand in one table: num_epochs "
        "is 42 (resnet200_d, resnet50_d) and 2 (resnet18_d); precision differs too; run "
        "steps/make_results.sh with --models of alike ones, or with --allow-mixed true"
    )
    assert not list((exp / "results").glob("table*"))
    assert find_differences(collect_results(data, exp, [A, B])) == []
    env = leave_out_figures(data.parent)
    run_cli("steps/make_results.sh", "--allow-mixed", "true", data, exp, env=env, check=False)
    for name in ("table1", "table2", "table3", "table4"):
        text = (exp / "results" / f"{name}.md").read_text()
        for key, low, high in (("num_epochs", "42", "2"), ("precision", "fp32", "bf16")):
            note = f"{key} is {low} (resnet200_d, resnet50_d) and {high} (resnet18_d)."
            assert f"- Mixed, and so not comparable: {note}" in text
    advice = (exp / "results" / "advice.md").read_text()
    assert "No advice on systems of different settings: num_epochs is 42" in advice


def test_every_kind_of_setting_is_compared(study):
    data, exp = study
    write_front_end(exp, A, num_mel_bins=80)
    write_front_end(exp, B, num_mel_bins=40)
    model = exp / C / "model.json"
    write(model, {**json.loads(model.read_text()), "speakers": 100})
    write(
        exp / A / "model.json", {**json.loads((exp / A / "model.json").read_text()), "speakers": 99}
    )
    path = exp / B / "scores" / "vox1_o_cosine.json"
    write(path, {**json.loads(path.read_text()), "backend_parameters": {"top_n": 300}})
    path = exp / C / "scores" / "cnceleb_cosine.json"
    write(path, {**json.loads(path.read_text()), "targets": 999, "trials": 2999})
    boot = {"seed": 0, "speakers": 9, "replicates": 1, "eer_percent": [None], "min_dcf": {}}
    for name, digest in ((A, "a" * 64), (B, "b" * 64)):
        path = exp / name / "scores" / "vox1_h_cosine"
        eer_percent = json.loads(path.with_suffix(".json").read_text())["eer_percent"]
        record = {**boot, "trials_digest": digest, "of_eer_percent": eer_percent}
        write(path.with_suffix(".boot.json"), record)
    assert differences(data, exp) == {
        "front end num_mel_bins": {"80": (A,), "40": (B,)},
        "speakers of model.json": {"99": (A,), "100": (C,)},
        "top_n of vox1_o (cosine)": {"not set": (A, C), "300": (B,)},
        "number of trials of cnceleb (cosine)": {"1000 + 2000": (A, B), "999 + 2000": (C,)},
        "digest of the list of vox1_h (cosine)": {"a" * 12: (A,), "b" * 12: (B,)},
    }


def test_a_real_training_says_its_front_end(tiny, tmp_path):
    features = json.loads((tiny.data / "egs" / "egs.json").read_text())["features"]
    assert find_front_end(read_system(tiny.exp / tiny.model)) == features
    exp = tmp_path / "exp"
    other = f"{tiny.model}_1111"
    for name in (tiny.model, other):
        shutil.copytree(tiny.exp / tiny.model, exp / name)
    # As trainings of before model.json had it: final.pt is asked.
    network = json.loads((exp / other / "model.json").read_text())
    write(exp / other / "model.json", {k: v for k, v in network.items() if k != "features"})
    assert find_front_end(read_system(exp / other)) == features
    assert differences(tiny.data, exp) == {}
    config = exp / other / "config.toml"
    config.write_text(config.read_text().replace("peak_lr = 0.05", "peak_lr = 0.1"))
    assert differences(tiny.data, exp) == {
        "optimizer.peak_lr": {"0.05": (tiny.model,), "0.1": (other,)}
    }
    final = exp / other / "final.pt"
    with zipfile.ZipFile(tmp_path / "torn.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"}u.")
    for broken in (final.read_bytes()[:1000], (tmp_path / "torn.pt").read_bytes(), b""):
        final.write_bytes(broken)
        with pytest.raises(SvError, match=r"final\.pt: not a checkpoint \(.+\)"):
            differences(tiny.data, exp)


def test_model_json_says_the_front_end(study):
    data, exp = study
    for name, mels in ((A, 80), (B, 40)):
        model = exp / name / "model.json"
        features = {"num_mel_bins": mels}
        write(model, {**json.loads(model.read_text()), "features": features})
        write(exp / name / "final.pt", "not read")
    assert differences(data, exp) == {"front end num_mel_bins": {"80": (A,), "40": (B,)}}


def test_nothing_that_a_pickle_names_is_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'harm')!r}, 'w')",))

    state = {"format": FORMAT, "features": {"num_mel_bins": 80}, "net": Harmful()}
    torch.save(state, tmp_path / "final.pt")
    with pytest.raises(SvError, match=r"final\.pt: not a checkpoint"):
        find_front_end(read_system(tmp_path))
    assert not (tmp_path / "harm").exists()


def test_the_keys_that_do_not_count_are_those_of_the_training():
    """A resumed training may change them; so may a system of the same table."""
    tree = ast.parse((ROOT / "sv/train/config.py").read_text())
    values = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "NOT_COMPARED"
    ]
    assert set(values[0]) == set(HOW_KEYS)
