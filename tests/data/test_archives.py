"""Archives that want to write where they should not."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile

import pytest

from jdl.check import InputError
from jdl.data import UnsafeArchive, extract


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            if isinstance(content, tuple):  # a link
                info.create_system = 3
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                content = content[0].encode()
            archive.writestr(info, content)
    return path


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.linkname = content[0]
                info.type = content[1] if len(content) > 1 else tarfile.SYMTYPE
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


MAKERS = [(make_zip, "a.zip"), (make_tar, "a.tar.gz")]


@pytest.mark.parametrize(("make", "file"), MAKERS)
def test_unpacks_once(make, file, tmp_path):
    archive = make(tmp_path / file, [("one.txt", b"1"), ("deep/er/two.txt", b"22"), ("./three..txt", b"3")])
    folder = extract(archive, tmp_path / "out" / "data")
    assert folder == tmp_path / "out" / "data"
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {"one.txt": b"1", "deep/er/two.txt": b"22", "three..txt": b"3"}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["data"]
    archive.unlink()
    assert extract(archive, folder) == folder  # it is there already


@pytest.mark.parametrize(("make", "file"), MAKERS)
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("../evil.txt", b"x", "leads out of the folder"),
        ("a/../../evil.txt", b"x", "leads out of the folder"),
        ("/tmp/jdl-evil.txt", b"x", "leads out of the folder"),
        ("..\\evil.txt", b"x", "leads out of the folder"),
        ("C:\\evil.txt", b"x", "leads out of the folder"),
        ("link", ("/etc",), "is a link or a device"),
        ("hard", ("one.txt", tarfile.LNKTYPE), "is a link or a device"),
        ("fifo", ("", tarfile.FIFOTYPE), "is a link or a device"),
    ],
)
def test_unsafe_member_is_refused(make, file, name, content, reason, tmp_path):
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "in" / file, [("one.txt", b"1"), (name, content)])
    with pytest.raises(UnsafeArchive) as caught:
        extract(archive, tmp_path / "out" / "data")
    assert f"its member {name!r} {reason}; nothing was written" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize(("make", "file"), MAKERS)
@pytest.mark.parametrize("damage", ["cut", "flip", "text"])
def test_damaged_archive_leaves_nothing(make, file, damage, tmp_path):
    archive = make(tmp_path / file, [("one.txt", bytes(range(256)) * 300), ("two.txt", b"2")])
    data = bytearray(archive.read_bytes())
    if damage == "flip":
        for position in range(60, min(160, len(data) - 1)):
            data[position] ^= 0xFF
    archive.write_bytes({"cut": data[: len(data) // 2], "flip": data, "text": b"hello"}[damage])
    with pytest.raises(InputError, match="is damaged or no zip or tar file"):
        extract(archive, tmp_path / "out" / "data")
    assert list((tmp_path / "out").iterdir()) == []


def test_another_process_was_first(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", [("one.txt", b"1")])
    from jdl.data import archives

    unpack = archives._unpack

    def and_meanwhile(archive, folder):
        unpack(archive, folder)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "one.txt").write_bytes(b"1")

    monkeypatch.setattr(archives, "_unpack", and_meanwhile)
    assert (extract(archive, tmp_path / "data") / "one.txt").read_bytes() == b"1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "data"]
