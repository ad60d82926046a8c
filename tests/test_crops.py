"""Crops and batches: the rows of an archive, what changed under an index, SpecAugment."""

import errno
import os
import threading

import kaldiio
import numpy as np
import pytest

from sv.data.config import SpecAugmentConfig
from sv.data.crops import (
    READ_THREADS,
    CropReader,
    build_crop_index,
    load_crop_index,
    save_crop_index,
    validate_features,
)
from sv.data.loader import read_batch
from sv.errors import SvError
from sv.kaldi.archive import read_matrix, write_archive
from sv.kaldi.data_dir import read_table


@pytest.mark.parametrize("method", ["two-byte", "one-byte", "none"])
def test_crops_are_the_rows_that_kaldiio_reads(tmp_path, method):
    """A batch of more crops than are decoded at once, of short and long utterances."""
    rng = np.random.default_rng(0)
    ids = [f"u{i:02d}" for i in range(40)]
    matrices = [rng.normal(size=(int(n), 21)) * n for n in rng.integers(5, 90, size=40)]
    write_archive(
        tmp_path / "a.ark", tmp_path / "a.scp", zip(ids, matrices, strict=True), method=method
    )
    table = read_table(tmp_path / "a.scp")
    index = build_crop_index(ids, dict.fromkeys(ids, 0), {"clean": table})
    order = rng.permutation(40)
    starts = (rng.random(40) * np.maximum(index.rows[0, order] - 29, 1)).astype(np.int64)
    out = np.full((40, 30, 21), np.nan, np.float32)
    reader = CropReader(index)
    reader.read(np.zeros(40, np.int64), order, starts, out)
    for crop, utterance, start in zip(out, order, starts, strict=True):
        same = np.resize(read_matrix(table[ids[utterance]])[start:], crop.shape)
        np.testing.assert_array_equal(crop, same)
        whole = kaldiio.load_mat(table[ids[utterance]])
        # An utterance shorter than the crop is repeated from its beginning.
        wanted = np.resize(whole[start:], crop.shape)
        np.testing.assert_allclose(crop, wanted, atol=2e-6 * np.abs(whole).max())
    reader.close()


@pytest.mark.parametrize("crops", [READ_THREADS, 200])
def test_a_slow_disk_is_asked_for_many_crops_at_once(tmp_path, monkeypatch, crops):
    """No read ends before as many are under way as there are threads; the batch is the same."""
    values = np.random.default_rng(0).normal(size=(100, 21))
    items = ((f"u{i:03d}", values[i % 50 :]) for i in range(crops))
    write_archive(tmp_path / "a.ark", tmp_path / "a.scp", items, method="two-byte")
    table = read_table(tmp_path / "a.scp")
    index = build_crop_index(list(table), dict.fromkeys(table, 0), {"clean": table})
    masks = SpecAugmentConfig(0.6, 1, 20, 1, 5)
    wanted = read_batch(CropReader(index, threads=1), np.arange(crops), (1, 2, 3), 30, masks)
    preadv, all_read = os.preadv, threading.Event()
    together = threading.Barrier(READ_THREADS, all_read.set, timeout=60)

    def wait_for_the_others(*args):
        if not all_read.is_set():
            together.wait()
        return preadv(*args)

    monkeypatch.setattr(os, "preadv", wait_for_the_others)
    batch = read_batch(CropReader(index), np.arange(crops), (1, 2, 3), 30, masks)
    assert (batch.crops == wanted.crops).all() and (batch.speakers == wanted.speakers).all()
    assert batch.read_s > 0


def test_an_archive_that_is_not_the_indexed_one_is_named(tmp_path):
    def write(*lengths):
        items = ((f"u{i}", np.ones((n, 21))) for i, n in enumerate(lengths))
        write_archive(tmp_path / "a.ark", tmp_path / "a.scp", items, method="none")
        return read_table(tmp_path / "a.scp")

    index = build_crop_index(["u0", "u1"], {"u0": 0, "u1": 1}, {"clean": write(40, 50)})
    reader = CropReader(index)
    os.truncate(tmp_path / "a.ark", 5000)
    with pytest.raises(SvError, match=r"a\.ark: truncated: bytes \d+ to \d+ are not there"):
        reader.read(*(np.array([n], np.int64) for n in (0, 1, 0)), np.empty((1, 30, 21), "f4"))
    write(41, 50)
    with pytest.raises(SvError, match=r"a\.ark: \d+ bytes, but \d+ in stage 4; make stage 4 again"):
        CropReader(index)
    matrix = np.ones((40, 21), np.float32)
    matrix[35, 2] = np.inf
    write_archive(tmp_path / "a.ark", tmp_path / "a.scp", iter([("u0", matrix)]), method="none")
    reader = CropReader(
        build_crop_index(["u0"], {"u0": 0}, {"clean": read_table(tmp_path / "a.scp")})
    )
    where = [np.zeros(1, np.int64), np.zeros(1, np.int64)]
    reader.read(*where, np.array([5]), np.empty((1, 30, 21), "f4"))
    with pytest.raises(SvError, match=r"a\.ark:\d+: NaN or infinity in rows 6-36"):
        reader.read(*where, np.array([6]), np.empty((1, 30, 21), "f4"))


def test_features_made_again_after_stage_4_are_refused(tmp_path):
    """The archive is as long as before and its header alike: the values alone are others."""
    items = [("u0", np.random.default_rng(0).normal(size=(40, 21)))]
    for method, shift in (("none", 1), ("two-byte", 0)):
        ark, scp = tmp_path / f"{method}.ark", tmp_path / "a.scp"
        write_archive(ark, scp, iter(items), method=method, checksum=True)
        path = tmp_path / "train.npz"
        save_crop_index(path, build_crop_index(["u0"], {"u0": 0}, {"clean": read_table(scp)}))
        index = load_crop_index(path)
        validate_features(index)
        moved = [("u0", np.roll(items[0][1], 1, axis=0) + shift)]
        write_archive(ark, scp, iter(moved), method=method, checksum=True)
        assert ark.stat().st_size == index.ark_bytes[0]
        with pytest.raises(SvError, match="other features than in stage 4; make stage 4 again"):
            validate_features(index)
        ark.with_name(f"{ark.name}.sha256").unlink()
        build_crop_index(["u0"], {"u0": 0}, {"clean": read_table(scp)})  # of another program


def test_more_archives_than_files_are_allowed_says_so(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    items = iter([("u", np.ones((9, 4)))])
    write_archive(tmp_path / "a.ark", tmp_path / "a.scp", items, method="none")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SvError, match=r"a\.ark: Too many open files; allow more: ulimit -n"):
        build_crop_index(["u"], {"u": 0}, {"clean": {"u": f"{tmp_path}/a.ark:2"}})


def test_masks_are_as_wide_and_as_many_as_configured(tmp_path):
    rows, count = 100, 2000
    items = iter([("u0", np.ones((rows, 21)))])
    write_archive(tmp_path / "a.ark", tmp_path / "a.scp", items, method="none")
    table = read_table(tmp_path / "a.scp")
    reader = CropReader(build_crop_index(["u0"], {"u0": 0}, {"clean": table}))
    masks = SpecAugmentConfig(0.6, 1, 20, 1, 5)
    crops = read_batch(reader, np.zeros(count, np.int64), (1, 2, 3), rows, masks).crops
    times = (crops == 0).all(axis=2).sum(axis=1)
    bands = (crops == 0).all(axis=1).sum(axis=1)
    for sizes, width in ((times, 20), (bands, 5)):
        assert set(sizes) == set(range(width + 1))
        assert sizes.mean() == pytest.approx(0.6 * width / 2, rel=0.1)
    # One block each, anywhere, and nothing else is touched.
    assert ((crops == 0).sum(axis=(1, 2)) == times * 21 + bands * (rows - times)).all()
    masked = (crops == 0).all(axis=2)
    assert (np.abs(np.diff(masked, axis=1, prepend=False, append=False)).sum(axis=1) <= 2).all()
    assert masked[:, 0].any() and masked[:, -1].any()
