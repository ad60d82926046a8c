"""A trained network outside the recipe: TorchScript, ONNX, and embeddings from audio files."""

import json

import kaldiio
import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
import torchaudio
from conftest import ROOT, call

from sv.bin.embed import main
from sv.data.config import FbankConfig
from sv.data.fbank import compute_fbank
from sv.errors import SvError, UsageError
from sv.kaldi.data_dir import read_table
from sv.train.store import load_checkpoint, rebuild_network


@pytest.fixture(scope="module")
def exp(tiny):
    return tiny.exp / tiny.model


@pytest.fixture(scope="module")
def utterances(tiny):
    """Utterance, audio file and stage 6's embedding, of the test set."""
    wavs = read_table(tiny.data / "mini_test" / "wav.scp")
    scp = tiny.exp / tiny.model / "xvectors_mini_test" / "xvector.scp"
    embeddings = dict(kaldiio.load_scp_sequential(str(scp)))
    return [(key, wavs[key], embeddings[key]) for key in sorted(wavs)]


def embed(path, batch, frames):
    """What the network says to random features, and these features."""
    state = load_checkpoint(path)
    x = torch.randn(batch, frames, state["input_dim"])
    with torch.inference_mode():
        return x, rebuild_network(state, path).eval()(x)


def assert_same(found, expected):
    difference = np.linalg.norm(np.asarray(found) - np.asarray(expected), axis=-1)
    assert (difference / np.linalg.norm(expected, axis=-1)).max() < 1e-4


def test_model_json_has_the_front_end_of_the_weights(exp):
    info = json.loads((exp / "model.json").read_text())
    assert info["features"] == load_checkpoint(exp / "final.pt")["features"]
    assert info["features"]["num_mel_bins"] == 16


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_torchscript_gives_the_same_embeddings(exp, run_cli, tmp_path):
    out = tmp_path / "net.ts"
    done = run_cli("sv.bin.export", "--format", "torchscript", exp, out)
    assert done.stdout == f"{out}\n"
    files = {"network.json": ""}
    net = torch.jit.load(out, _extra_files=files)
    for batch, frames in ((1, 3), (4, 333)):
        x, expected = embed(exp / "final.pt", batch, frames)
        assert_same(net(x).detach(), expected)
    what = json.loads(files["network.json"])
    assert what["model"] == exp.name and what["features"]["num_mel_bins"] == 16
    # Who has torchaudio and this text alone computes our features.
    front_end = what["front_end"]
    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    scaled = torch.from_numpy(samples)[None] * front_end["sample_scale"]
    theirs = torchaudio.compliance.kaldi.fbank(scaled, **front_end["fbank"]).numpy()
    own = compute_fbank(samples, FbankConfig(**what["features"]))
    assert own.shape == (98, 17) and np.abs(own - theirs).max() < 1e-3


def test_onnx_gives_the_same_embeddings(exp, run_cli, tmp_path):
    out = tmp_path / "net.onnx"
    done = run_cli("sv.bin.export", "--format", "onnx", exp, out, timeout=240)
    assert len(done.stderr.splitlines()) == 1 and "differ from the network's by" in done.stderr
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", "frames", 17]
    for batch, frames in ((1, 3), (4, 333)):
        x, expected = embed(exp / "final.pt", batch, frames)
        assert_same(session.run(None, {"features": x.numpy()})[0], expected)
    what = json.loads(session.get_modelmeta().custom_metadata_map["network.json"])
    assert what["model"] == exp.name


def test_without_onnx_it_says_what_to_install(exp, tmp_path):
    """A package that cannot be found, without the others being touched."""
    code = (
        "import importlib.util, sys; from sv.bin import cli, export\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'onnxscript' else find(n, *a)\n"
        f"sys.argv[1:] = ['--format', 'onnx', {str(exp)!r}, {str(tmp_path / 'x')!r}]\n"
        "sys.exit(cli.run('sv.bin.export', export.main))"
    )
    done = call(["python3", "-c", code], timeout=60, cwd=ROOT)
    assert done.returncode == 1 and done.stderr.endswith("pip install onnxscript\n")
    assert not list(tmp_path.iterdir())


def test_an_export_that_computes_something_else_is_not_published(exp, tmp_path):
    code = (
        "import sys; from sv.train import export; from sv.bin import cli, export as program\n"
        "whole = export._make_torchscript\n"
        "def spoil(net, *rest):\n"
        "    import copy; net = copy.deepcopy(net); net.linear.bias.data += 1; "
        "return whole(net, *rest)\n"
        "export._make_torchscript = spoil\n"
        f"sys.argv[1:] = ['--format', 'torchscript', {str(exp)!r}, {str(tmp_path / 'x')!r}]\n"
        "sys.exit(cli.run('sv.bin.export', program.main))"
    )
    done = call(["python3", "-c", code], timeout=60, cwd=ROOT)
    assert done.returncode == 1 and "not written: its embeddings differ" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "keras"], "'keras' (choose from 'torchscript', 'onnx')"),
        (["--format", "torchscript", "--opset", "18"], "--opset: only ONNX has one"),
    ],
)
def test_a_wrong_export_is_one_line(exp, run_cli, options, message):
    done = run_cli("sv.bin.export", *options, exp, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("sv.bin.export: ") and message in done.stderr


def test_audio_gives_the_embeddings_of_the_recipe(exp, utterances, run_cli, tmp_path):
    chosen = utterances[:3]
    wav = tmp_path / "again.wav"  # another format of the same samples
    soundfile.write(wav, *soundfile.read(chosen[2][1]), subtype="FLOAT")
    paths = [chosen[0][1], chosen[1][1], wav]
    done = run_cli("sv.bin.embed", exp, *paths)
    (tmp_path / "vectors").write_text(done.stdout)
    found = dict(kaldiio.load_ark(str(tmp_path / "vectors")))
    assert list(found) == [str(path) for path in paths]
    for path, (_, _, expected) in zip(paths, chosen, strict=True):
        assert_same(found[str(path)], expected)


def test_two_files_give_their_score(exp, utterances, run_cli, tiny):
    (a, wav_a, _), (b, wav_b, _) = utterances[:2]
    scores = (tiny.exp / tiny.model / "scores" / "mini_cosine.txt").read_text().splitlines()
    expected = next(float(s) for x, y, s in map(str.split, scores) if {x, y} == {a, b})
    left, right, score = run_cli("sv.bin.embed", exp, wav_a, wav_b).stdout.split()
    assert (left, right) == (wav_a, wav_b) and float(score) == pytest.approx(expected, abs=1e-4)
    lines = run_cli("sv.bin.embed", "--score", "false", exp, wav_a, wav_b).stdout.splitlines()
    assert len(lines) == 2 and lines[0].startswith(f"{wav_a}  [ ")


def test_audio_that_it_cannot_take_is_one_line(exp, run_cli, tmp_path):
    noise = np.random.default_rng(0).normal(size=(16000, 2)) * 0.1
    soundfile.write(tmp_path / "slow.wav", noise[:, 0], 8000)
    soundfile.write(tmp_path / "two.wav", noise, 16000)
    soundfile.write(tmp_path / "short.wav", noise[:300, 0], 16000)
    soundfile.write(tmp_path / "empty.wav", noise[:0, 0], 16000)
    (tmp_path / "text.wav").write_text("no audio")
    for name, message in (
        ("slow", "8000 Hz; resample it to 16000 Hz"),
        ("two", "2 channels"),
        ("short", "shorter than one window"),
        ("empty", "no samples in it"),
        ("text", "not readable as audio"),
        ("none", "not readable as audio"),
    ):
        with pytest.raises(SvError) as error:
            main([str(exp), str(tmp_path / f"{name}.wav")])
        assert f"{name}.wav: " in str(error.value) and message in str(error.value)
        assert not isinstance(error.value, UsageError) and "\n" not in str(error.value)
    done = run_cli("sv.bin.embed", exp, tmp_path / "slow.wav", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_front_end_must_be_known_and_fit(exp, tmp_path, capsys):
    state = load_checkpoint(exp / "final.pt")
    torch.save({**state, "features": None}, tmp_path / "final.pt")
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.ones(16000, np.float32) / 8, 16000)
    own = ["--features", ROOT / "tests/egs/tiny/conf/features.toml"]
    other = ["--features", ROOT / "egs/mini/conf/features.toml"]
    for argv, message in (
        ([tmp_path, audio], "give --features"),
        ([*other, tmp_path, audio], "takes 17 features a frame, not 41"),
        ([exp, tmp_path / "a b.wav"], "white space"),
        (["--score", "true", exp, audio], "give two files, not 1"),
        (["--precision", "int8", exp, audio], "'int8' .choose from 'fp32', 'fp16', 'bf16'"),
    ):
        with pytest.raises(UsageError, match=message):
            main([str(word) for word in argv])
    assert capsys.readouterr().out == ""
    assert main([str(word) for word in (*own, tmp_path, audio)]) == 0
    assert capsys.readouterr().out.startswith(f"{audio}  [ ")
