"""Fetching corpora from a server that breaks off, lies and packs paths that lead elsewhere."""

import functools
import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile

import pytest
from corpora import run_here

PAYLOAD = os.urandom(300_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``files``; breaks off ``breaks`` times; may not know ranges."""

    def __init__(self, state, *args):
        self.state = state
        super().__init__(*args)

    def do_GET(self):
        state, name = self.state, self.path.strip("/")
        state["asked"].append((name, self.headers.get("Range")))
        if name not in state["files"]:
            self.send_error(404)
            return
        data, start = state["files"][name], 0
        asked = self.headers.get("Range")
        if asked and state["ranges"]:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start < len(data) else 416)
        else:
            self.send_response(200)
        rest = data[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if state["breaks"] > 0:
            state["breaks"] -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    state = {"files": {}, "breaks": 0, "ranges": True, "asked": []}
    http_server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, state)
    )
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    state["url"] = f"http://127.0.0.1:{http_server.server_port}"
    yield state
    http_server.shutdown()
    http_server.server_close()


def make_tar(names):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(PAYLOAD)
            archive.addfile(info, io.BytesIO(PAYLOAD))
    return buffer.getvalue()


def make_zip(names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, PAYLOAD)
    return buffer.getvalue()


def write_table(tmp_path, server, name, data, *, md5=None, url=True, proof="a/wav/x.wav"):
    server["files"][name] = data
    md5 = md5 or hashlib.md5(data).hexdigest()
    address = f', url = "{server["url"]}/{name}"' if url else ""
    table = tmp_path / "downloads.toml"
    table.write_text(
        f'[a]\nunpack = "a"\nproof = "{proof}"\nrequest = "their form"\n'
        f'files = [{{ name = "{name}", md5 = "{md5}"{address} }}]\n'
    )
    return table


def download(tmp_path, check=True):
    return run_here(
        "local.download_corpora", "--table", tmp_path / "downloads.toml", tmp_path / "corpora",
        check=check,
    )  # fmt: skip


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_an_archive_is_fetched_checked_and_unpacked(tmp_path, server, make):
    write_table(tmp_path, server, "x.tgz", make(["wav/x.wav", "wav/y.wav"]))
    download(tmp_path)
    assert (tmp_path / "corpora/a/wav/y.wav").read_bytes() == PAYLOAD
    asked = len(server["asked"])
    download(tmp_path)
    assert len(server["asked"]) == asked  # nothing is asked for twice


def test_a_connection_that_breaks_off_is_resumed(tmp_path, server):
    server["breaks"] = 1
    data = make_tar(["wav/x.wav"])
    write_table(tmp_path, server, "x.tgz", data)
    done = download(tmp_path)
    assert "try 2 of 5" in done.stderr
    assert [byte_range for _, byte_range in server["asked"]] == [None, f"bytes={len(data) // 2}-"]
    assert (tmp_path / "corpora/a/wav/x.wav").read_bytes() == PAYLOAD


def test_a_server_without_ranges_begins_again(tmp_path, server):
    server["breaks"], server["ranges"] = 1, False
    write_table(tmp_path, server, "x.tgz", make_tar(["wav/x.wav"]))
    download(tmp_path)
    assert (tmp_path / "corpora/a/wav/x.wav").read_bytes() == PAYLOAD


def test_another_file_than_the_published_is_removed(tmp_path, server):
    write_table(tmp_path, server, "x.tgz", make_tar(["wav/x.wav"]), md5="0" * 32)
    done = download(tmp_path, check=False)
    assert done.returncode == 1 and "00000 was published; the fetched file is" in done.stderr
    assert not (tmp_path / "corpora/a").exists()
    assert list((tmp_path / "corpora/archives").iterdir()) == []


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil-of-the-download-test"])
def test_no_path_leaves_the_folder(tmp_path, server, make, name):
    write_table(tmp_path, server, "x.tgz", make(["wav/x.wav", name]))
    done = download(tmp_path, check=False)
    assert done.returncode == 1 and "cannot be unpacked" in done.stderr
    assert not (tmp_path / "corpora/a/wav").exists()
    assert not list(tmp_path.rglob("evil*"))
    assert not os.path.lexists("/tmp/evil-of-the-download-test")


def test_a_missing_file_does_not_keep_others_back(tmp_path, server):
    table = write_table(tmp_path, server, "x.tgz", make_tar(["wav/x.wav"]))
    text = table.read_text()
    gone = text.replace("[a]", "[gone]").replace("/x.tgz", "/gone.tgz")
    table.write_text(
        gone.replace('"x.tgz"', '"gone.tgz"').replace('proof = "a', 'proof = "b') + text
    )
    done = download(tmp_path, check=False)
    assert done.returncode == 1 and "gone.tgz: HTTP status 404" in done.stderr
    assert (tmp_path / "corpora/a/wav/x.wav").exists()


def test_what_must_be_asked_for_is_said_then_verified_in_parts(tmp_path, server):
    data = make_zip(["wav/x.wav"])
    halves = {"part_a": data[:100_000], "part_b": data[100_000:]}
    rows = ", ".join(
        f'{{ name = "{name}", md5 = "{hashlib.md5(part).hexdigest()}" }}'
        for name, part in halves.items()
    )
    (tmp_path / "downloads.toml").write_text(
        f'[a]\nunpack = "a"\nproof = "a/wav/x.wav"\nrequest = "their form"\nfiles = [{rows}]\n'
    )
    done = download(tmp_path, check=False)
    assert done.returncode == 1 and "request it at their form, put part_a, part_b" in done.stderr
    folder = tmp_path / "corpora/archives"
    folder.mkdir(parents=True)
    for name, part in halves.items():
        (folder / name).write_bytes(part)
    download(tmp_path)
    assert (tmp_path / "corpora/a/wav/x.wav").read_bytes() == PAYLOAD
    (folder / "part_b").write_bytes(b"damaged")
    (tmp_path / "corpora/a/wav/x.wav").unlink()
    done = download(tmp_path, check=False)
    assert done.returncode == 1 and "part_b: MD5" in done.stderr
