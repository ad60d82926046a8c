"""docs/adding-a-model.md, done as it is written: another architecture is one file and one name."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, call

NAME = "tdnn64"
PADDING = """
import sys, torch
from pathlib import Path
from sv.train.store import load_network
net = load_network(Path(sys.argv[1]), torch.device("cpu"))
generator = torch.Generator().manual_seed(0)
utterances = [torch.randn(n, 21, generator=generator) for n in (50, 49, 7, 1)]
batch = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
with torch.inference_mode():
    alone = torch.cat([net(x[None]) for x in utterances])
    together = net(batch, torch.tensor([50, 49, 7, 1]))
print(float(((alone - together).norm(dim=1) / alone.norm(dim=1)).max()))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the library with the page's example in it; gives a function that runs a program."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "sv", root / "sv", ignore=shutil.ignore_patterns("__pycache__"))
    page = (ROOT / "docs" / "adding-a-model.md").read_text()
    file, line = re.findall(r"```python\n(.*?)```", page, re.S)
    (root / "sv/nnet/tdnn.py").write_text(file)
    names = root / "sv/model_name.py"
    table = re.compile(r"(ARCHITECTURES: dict\[str, str\] = \{\n)")
    assert table.search(names.read_text())
    names.write_text(table.sub(lambda m: m[1] + line, names.read_text()))

    def run(*argv):
        return call([sys.executable, *argv], timeout=60, cwd=root, PYTHONPATH=str(root))

    return run


def test_its_names_are_checked_like_any(extended):
    done = extended("-m", "sv.bin.recipe", "settings", ROOT / "egs/mini/conf", NAME)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, NAME)
    for wrong in ("tdnn064", "tdnn_64", "tdnn"):
        done = extended("-m", "sv.bin.model_info", wrong)
        assert done.returncode == 2 and f"unknown model '{wrong}'" in done.stderr
        assert r"tdnn[1-9]\d{1,3}" in done.stderr


def test_it_is_counted(extended):
    done = extended("-m", "sv.bin.model_info", "--frames", "100", NAME)
    info = json.loads(done.stdout)
    convs = (81 + 64 + 64) * 3 * 64
    attention, linear = 2 * 64 * 32, 128 * 256
    assert info["gmac"] == pytest.approx((100 * (convs + attention) + linear) / 1e9, abs=5e-5)
    biases = 3 * 64 + 32 + 64 + 256
    norms = 2 * (3 * 64 + 256)
    assert info["parameters"] == convs + attention + linear + biases + norms


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_it_trains_and_padding_changes_nothing(extended, small_egs, tmp_path):
    """Also by the recipe of VoxCeleb: it has no blocks whose maps could be recomputed."""
    config = small_egs.write_config(tmp_path / "train.toml", checkpointing="selective")
    exp = tmp_path / NAME
    done = extended("-m", "sv.bin.train", "--model", NAME, "--config", config, small_egs.egs, exp)
    assert done.returncode == 0, done.stderr
    info = json.loads((exp / "model.json").read_text())
    assert (info["name"], info["pooling"], len(info["epochs"])) == (NAME, "asp", 3)
    assert "blocks" not in info
    done = extended("-c", PADDING, exp / "final.pt")
    assert float(done.stdout) < 1e-5, done.stderr
    done = extended("-m", "sv.bin.export", "--format", "torchscript", exp)
    assert done.returncode == 0, done.stderr
    x = torch.from_numpy(np.ones((1, 30, 21), np.float32))
    assert torch.jit.load(exp / f"{NAME}.ts")(x).shape == (1, 16)
