"""Copies of features on a machine's own disk: made, checked, read in place of the archives."""

import os
import subprocess

import numpy as np
import pytest

from sv.bin.stage_features import main
from sv.data import space
from sv.data.crops import CropReader, build_crop_index, save_crop_index
from sv.data.loader import read_batch
from sv.data.staging import use_copies
from sv.errors import SvError
from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import read_table


@pytest.fixture
def made(tmp_path, caplog, monkeypatch):
    """Two archives as stage 3 leaves them, their index, and what a call says of each copy."""
    caplog.set_level("INFO")

    class Made:
        def __init__(self):
            rng, feats = np.random.default_rng(0), {}
            for kind in ("clean", "noise"):
                folder = tmp_path / "data" / f"train_{kind}" / "fbank"
                items = ((f"u{n}", rng.normal(size=(40 + n, 21))) for n in range(5))
                scp = folder / "fbank.1.scp"
                write_archive(folder / "fbank.1.ark", scp, items, method="one-byte", checksum=True)
                feats[kind] = read_table(scp)
            self.index = build_crop_index(
                list(feats["clean"]), {f"u{n}": n for n in range(5)}, feats
            )
            save_crop_index(tmp_path / "egs" / "train.npz", self.index)
            self.root = tmp_path / "node" / "disk"
            self.shared = [tmp_path / "data" / f"train_{kind}/fbank/fbank.1.ark" for kind in feats]
            self.copies = [self.root / f"train_{kind}/fbank/fbank.1.ark" for kind in feats]

        def stage(self):
            caplog.clear()
            main(["$NODE_DISK", str(tmp_path / "egs")])
            return [line.split(": ")[1] for line in caplog.messages if ".ark: " in line]

    made = Made()
    monkeypatch.setenv("NODE_DISK", str(made.root))
    return made


def test_copies_are_made_once_and_mended(made):
    assert made.stage() == ["copied", "copied"]
    for shared, copy in zip(made.shared, made.copies, strict=True):
        assert copy.read_bytes() == shared.read_bytes()
        # As sha256sum knows it.
        subprocess.run(
            ["sha256sum", "--check", "--strict", f"{shared.name}.sha256"],
            cwd=shared.parent, capture_output=True, check=True,
        )  # fmt: skip
    assert made.stage() == ["checked before", "checked before"]
    # The same size and another byte; a copy that somebody else made.
    data = bytearray(made.copies[0].read_bytes())
    data[-1] ^= 1
    made.copies[0].write_bytes(data)
    for extra in made.copies[1].parent.glob(".*"):
        extra.unlink()
    assert made.stage() == ["copied again", "checked"]
    # Copies alone are enough; only what must be copied is looked for.
    for shared in made.shared:
        shared.rename(shared.with_suffix(".away"))
    assert made.stage() == ["checked before", "checked before"]
    os.truncate(made.copies[1], 100)
    with pytest.raises(SvError, match=rf"^cannot read {made.shared[1]}: No such file"):
        made.stage()
    assert len(os.listdir(made.copies[1].parent)) == 2  # the archive and the note: no half a copy


def test_a_batch_of_copies_is_that_of_the_archives(made):
    made.stage()
    copied = use_copies(made.index, made.root)
    assert copied.arks == tuple(map(str, made.copies))
    batches = [
        read_batch(CropReader(index), np.arange(5), (1, 2, 3), 30, None)
        for index in (made.index, copied)
    ]
    assert (batches[0].crops == batches[1].crops).all()
    made.copies[0].unlink()
    with pytest.raises(SvError, match=f"cannot read {made.copies[0]}: No such file"):
        CropReader(copied)


def test_what_cannot_be_trusted_is_not_copied(made, monkeypatch):
    checksum = made.shared[0].with_name("fbank.1.ark.sha256")
    text = checksum.read_text()
    checksum.unlink()
    with pytest.raises(SvError, match=r"no such file .*sha256.*\(cd .*fbank && sha256sum fbank"):
        made.stage()
    checksum.write_text(text.replace(text[:4], "0000"))
    with pytest.raises(SvError, match=r"fbank\.1\.ark: differs from .*; make stage 3 again"):
        made.stage()
    assert not made.copies[0].exists()
    checksum.write_text(text)
    made.copies[1].unlink(missing_ok=True)  # by a thread beside the one that failed
    with open(made.shared[1], "ab") as file:
        file.write(b"more")
    with pytest.raises(SvError, match=r"\d+ bytes, but \d+ in stage 4; make stage 4 again"):
        made.stage()
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 9}))
    with pytest.raises(SvError, match=r"no room: .*another --features-root, or none"):
        made.stage()
    monkeypatch.delenv("NODE_DISK")
    with pytest.raises(SvError, match="no such variable is set on this machine"):
        made.stage()


def test_a_training_stages_and_reads_the_copies(small_egs, tmp_path, run_cli):
    """Through the step, and with a variable that the job's machine knows."""
    run_cli("sh", "-c", 'cd "$0" && sha256sum train.ark >train.ark.sha256', small_egs.data.parent)
    done = run_cli(
        "steps/train_xvector.sh", "--model", "resnet18_w0.25", "--max-steps", 2,
        "--config", small_egs.write_config(tmp_path / "train.toml"),
        "--features-root", "$NODE_DISK/copies", small_egs.egs, tmp_path / "exp",
        env={"NODE_DISK": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0
    [copy] = (tmp_path / "copies").rglob("*.ark")
    assert copy.read_bytes() == (small_egs.data.parent / "train.ark").read_bytes()
    assert f"{copy}: copied" in (tmp_path / "exp/log/train.log").read_text()
