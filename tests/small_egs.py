"""A small training set of made-up speakers, for tests that train a little."""

import tomllib
from pathlib import Path

import numpy as np
import tomli_w
from conftest import ROOT

from sv.data.training_set import make_training_set
from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import read_table, write_data_dir
from sv.train.config import read_train_config


def write_features(root: Path, *kinds: str) -> None:
    """Write the data directory ``root/train`` and a copy ``root/train_<kind>`` of each kind.

    Twelve made-up speakers of eight utterances, each with a spectrum of its own; 21 features.
    """
    rng = np.random.default_rng(0)
    spectra = rng.normal(size=(12, 21)) * 2
    for kind in ("", *kinds):
        name, suffix = (f"train_{kind}", f"-{kind}") if kind else ("train", "")
        frames = {f"s{s:02d}-{n}{suffix}": 50 + 5 * n for s in range(12) for n in range(8)}
        items = [
            (key, np.sin(np.arange(n)[:, None] / 3) * spectra[int(key[1:3])]
             + rng.normal(size=(n, 21)))
            for key, n in frames.items()
        ]  # fmt: skip
        write_archive(root / f"{name}.ark", root / f"{name}.scp", iter(items), method="two-byte")
        feats, utt2spk = read_table(root / f"{name}.scp"), {key: key[:3] for key in frames}
        write_data_dir(root / name, utt2spk, feats_scp=feats, utt2num_frames=frames)


class SmallEgs:
    """A training set of these speakers, for tests that train a little."""

    def __init__(self, root: Path) -> None:
        write_features(root)
        self.data, self.egs = root / "train", root / "egs"
        config = read_train_config(self.write_config(root / "train.toml"))
        make_training_set(self.data, [], self.egs, config.set)

    def write_config(self, path: Path, **changes) -> Path:
        """Write the tiny recipe's train.toml with keys, or whole tables' keys, changed."""
        config = tomllib.loads((ROOT / "tests/egs/tiny/conf/train.toml").read_text())
        config["set"] |= {"min_frames": 50, "min_utterances": 4}
        for key, value in changes.items():
            config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
        path.write_text(tomli_w.dumps(config))
        return path
