"""Files from this machine, the cache, or a server on the loopback that misbehaves in every way."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import pytest

from jdl.check import InputError
from jdl.data import CorruptData, DataUnavailable, cache_dir, fetch, verify

GOOD = random.Random(0).randbytes(2**20)  # several reads
SHA256 = "sha256:" + hashlib.sha256(GOOD).hexdigest()
MD5 = "md5:" + hashlib.md5(GOOD).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kind = self.path.strip("/")
        self.server.asked.append(kind)
        if kind == "missing":
            return self.send_error(404)
        body = self.server.files.get(kind, GOOD)
        self.send_response(200)
        if kind != "unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            if kind == "truncated":
                self.wfile.write(body[: len(body) // 2])  # and the connection closes
            elif kind == "stalls":
                self.wfile.write(body[: len(body) // 2])
                self.server.release.wait(20)
            else:
                self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.files, served.asked, served.release = {"corrupt": b"not it"}, [], threading.Event()
        served.at = f"http://127.0.0.1:{served.server_port}/"
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.release.set()
        served.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for name in ("JDL_DATA_DIR", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JDL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def everything_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"JDL_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/jdl"),
        ({"HOME": "/h"}, {"linux": "/h/.cache/jdl", "darwin": "/h/Library/Caches/jdl"}),
    ],
)
def test_cache_dir(environment, expected, monkeypatch):
    for name in ("JDL_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for platform, path in expected.items() if isinstance(expected, dict) else [("linux", expected)]:
        monkeypatch.setattr("sys.platform", platform)
        assert cache_dir() == Path(path)


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_user_without_a_home(tmp_path, monkeypatch, platform):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")  # as pathlib does

    for name in ("JDL_CACHE_DIR", "XDG_CACHE_HOME", "JDL_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(DataUnavailable, match="no home; set JDL_CACHE_DIR"):
        cache_dir()
    with pytest.raises(DataUnavailable, match="JDL_CACHE_DIR"):
        fetch("cats", "cats.bin", "http://localhost:1/cats.bin")
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "cats.bin").write_bytes(b"cat")
    monkeypatch.setenv("JDL_DATA_DIR", str(tmp_path))
    assert fetch("cats", "cats.bin", ()) == tmp_path / "cats" / "cats.bin"


@pytest.mark.parametrize("checks", [{"checksum": SHA256}, {"checksum": MD5.upper().replace("MD5", "md5")}, {}])
@pytest.mark.parametrize("kind", ["file", "unsized"])
def test_downloads_once(server, cache, checks, kind):
    for _ in range(2):
        path = fetch("set", "data.bin", server.at + kind, **checks)
        assert path == cache / "set" / "data.bin"
        assert path.read_bytes() == GOOD
    assert server.asked == [kind]
    assert everything_in(cache) == ["set/data.bin"] + ["set/data.bin.sha256"] * (not checks)


def test_own_folder_comes_first(server, cache, tmp_path, monkeypatch):
    own = tmp_path / "own"
    (own / "set").mkdir(parents=True)
    monkeypatch.setenv("JDL_DATA_DIR", str(own))
    assert fetch("set", "data.bin", server.at + "file", checksum=SHA256) == cache / "set" / "data.bin"
    (own / "set" / "data.bin").write_bytes(GOOD)
    assert fetch("set", "data.bin", server.at + "file", checksum=SHA256) == own / "set" / "data.bin"
    assert len(server.asked) == 1
    (own / "set" / "data.bin").write_bytes(b"other")
    with pytest.raises(CorruptData, match=f"own/set/data.bin is corrupt: expected sha256 {SHA256[7:]}, found d9298a10"):
        fetch("set", "data.bin", server.at + "file", checksum=SHA256)
    assert (own / "set" / "data.bin").read_bytes() == b"other"  # the user's: not ours to delete


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("missing", DataUnavailable, "HTTP Error 404"),
        ("truncated", DataUnavailable, r"ended after \d+ of 1048576 bytes|IncompleteRead"),
        ("corrupt", CorruptData, f"/corrupt is corrupt: expected sha256 {SHA256[7:]}, found 06121725"),
        ("stalls", DataUnavailable, "timed out"),
    ],
)
def test_bad_download_leaves_nothing(server, cache, kind, error, message):
    with pytest.raises(error, match=message):
        fetch("set", "data.bin", server.at + kind, checksum=SHA256, timeout=0.3)
    assert everything_in(cache) == []
    # The next address is tried, and a later call starts afresh.
    urls = (server.at + kind, server.at + "file")
    assert fetch("set", "data.bin", urls, checksum=SHA256, timeout=0.3).read_bytes() == GOOD
    assert everything_in(cache) == ["set/data.bin"]


def test_truncated_download_of_unknown_checksum(server, cache):
    with pytest.raises(DataUnavailable):
        fetch("set", "data.bin", server.at + "truncated")
    assert everything_in(cache) == []


def test_offline_says_what_to_do(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("JDL_DATA_DIR", str(tmp_path / "own"))
    with pytest.raises(DataUnavailable) as caught:
        fetch("set", "data.bin", "http://127.0.0.1:9/data.bin", checksum=SHA256, timeout=1)
    text = str(caught.value)
    for part in (
        "set needs the file data.bin",
        f"{tmp_path / 'own' / 'set' / 'data.bin'} (JDL_DATA_DIR): no such file",
        f"{cache / 'set' / 'data.bin'}: no such file",
        "http://127.0.0.1:9/data.bin: <urlopen error",
        "download it elsewhere (http://127.0.0.1:9/data.bin)",
        f"put it at {cache / 'set' / 'data.bin'}, or at <folder>/set/data.bin with the variable JDL_DATA_DIR=<folder>",
    ):
        assert part in text
    assert issubclass(DataUnavailable, InputError)


def test_first_download_is_recorded(server, cache):
    path = fetch("set", "data.bin", server.at + "file")
    assert (cache / "set" / "data.bin.sha256").read_text().strip() == SHA256
    path.write_bytes(b"damaged on disk")
    assert fetch("set", "data.bin", server.at + "file").read_bytes() == GOOD
    path.write_bytes(b"damaged again")
    with pytest.raises(DataUnavailable, match=r"cache/set/data\.bin is corrupt: expected sha256 .*; deleted"):
        fetch("set", "data.bin", server.at + "missing")
    server.files["file"] = b"changed at its source"
    with pytest.raises(CorruptData, match=r"delete .*data\.bin\.sha256"):
        fetch("set", "data.bin", server.at + "file")
    (cache / "set" / "data.bin.sha256").unlink()
    assert fetch("set", "data.bin", server.at + "file").read_bytes() == b"changed at its source"


def test_checksum_of_the_content(server, cache):
    packed = gzip.compress(GOOD, compresslevel=1)
    for kind, body in (("packed", packed), ("cut", packed[:-9]), ("flipped", packed[:2000] + b"\xff" + packed[2001:])):
        server.files[kind] = body
    for kind in ("file", "cut", "flipped"):
        with pytest.raises(CorruptData, match=f"content of .*{kind} is corrupt: expected md5 .* found"):
            fetch("set", "data.gz", server.at + kind, content=MD5)
    assert everything_in(cache) == []
    assert gzip.decompress(fetch("set", "data.gz", server.at + "packed", content=MD5).read_bytes()) == GOOD


def test_parts_of_killed_processes_go(server, cache):
    (cache / "set").mkdir(parents=True)
    old, new, other = (cache / "set" / name for name in ("data.bin.1.part", "data.bin.2.part", "more.bin.1.part"))
    for part in (old, new, other):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    fetch("set", "data.bin", server.at + "file", checksum=SHA256)
    assert everything_in(cache) == ["set/data.bin", "set/data.bin.2.part", "set/more.bin.1.part"]


def _fetch_and_read(url, queue):
    queue.put(hashlib.sha256(fetch("set", "data.bin", url).read_bytes()).hexdigest())


def test_killed_in_the_middle(server, cache):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_fetch_and_read, args=(server.at + "stalls", queue))
    process.start()
    for _ in range(3000):
        if any(part.stat().st_size > 0 for part in cache.rglob("*.part")):
            break
        time.sleep(0.01)
    process.kill()
    process.join()
    (left,) = everything_in(cache)  # what SIGKILL leaves: never the file itself
    assert left.endswith(".part")
    assert fetch("set", "data.bin", server.at + "file", checksum=SHA256).read_bytes() == GOOD


@pytest.mark.slow
def test_two_processes_at_once(server, cache):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_fetch_and_read, args=(server.at + "file", queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert {queue.get(timeout=60) for _ in processes} == {SHA256[7:]}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert everything_in(cache) == ["set/data.bin", "set/data.bin.sha256"]


def test_progress_only_for_a_terminal(server, monkeypatch, capsys):
    fetch("set", "quiet.bin", server.at + "file")
    assert capsys.readouterr() == ("", "")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    fetch("set", "shown.bin", server.at + "file")
    assert "shown.bin" in terminal.getvalue() and "1.0/1.0 MB" in terminal.getvalue()


def test_verify(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(GOOD)
    verify(path, SHA256)
    verify(path, MD5)
    with pytest.raises(CorruptData, match="expected sha256 00, found"):
        verify(path, "sha256:00")
