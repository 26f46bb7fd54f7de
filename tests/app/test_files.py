"""Files are replaced whole or not at all; what is not JSON is named."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from nearfar import ArtefactError, InputError, UsageError
from nearfar.app.files import TEMPORARY, read_json, shown, write_json, write_whole


def test_content_and_mode_are_those_of_an_ordinary_file(tmp_path):
    write_whole(tmp_path / "a", b"\0\1")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").read_bytes() == b"\0\1"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)
    write_whole(tmp_path / "a", "ü and \udcff")
    assert (tmp_path / "a").read_bytes() == "ü and \\udcff".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
def test_a_refusal_of_the_system_leaves_the_old_file_and_is_named(call, code, tmp_path, monkeypatch):
    write_whole(tmp_path / "a", "old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    if call == "write":
        monkeypatch.setattr("pathlib.Path.open", refuse)
    elif call == "fsync":
        monkeypatch.setattr("os.fsync", refuse)
    else:
        monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(UsageError, match=f"expected to write .*a, got {os.strerror(code)}"):
        write_whole(tmp_path / "a", "new")
    monkeypatch.undo()
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_named():
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("no such device here")
    script = (
        "import os, pathlib\n"
        "from nearfar.app.files import write_whole\n"
        "real = pathlib.Path.open\n"
        "pathlib.Path.open = lambda self, mode: real(pathlib.Path('/dev/full'), 'wb', 0)\n"
        "pathlib.Path.unlink = lambda self: None\n"
        "write_whole('a', b'x' * 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "UsageError: expected to write a, got No space left on device" in done.stderr


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="No such file or directory"):
        write_whole(tmp_path / "no" / "a", "x")


def test_the_bytes_are_synced_before_the_name_and_the_folder_after(tmp_path, monkeypatch):
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def watched_replace(*names: object) -> None:
        order.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_whole(tmp_path / "a", "x")
    assert order == ["file", "rename", "folder"]


def test_a_kill_at_any_moment_leaves_old_or_new(tmp_path):
    write_whole(tmp_path / "a", b"0" * 200_000)
    script = (
        "import itertools, sys\n"
        "from nearfar.app.files import write_whole\n"
        "for i in itertools.count(1):\n"
        "    write_whole(sys.argv[1], str(i % 10) * 200_000)\n"
        "    print(i, flush=True)\n"
    )
    for turn in range(4):
        child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(3 + 5 * turn):
            child.stdout.readline()
        child.kill()
        child.wait()
        child.stdout.close()
        content = (tmp_path / "a").read_text()
        assert len(content) == 200_000
        assert len(set(content)) == 1
        others = {p.name for p in tmp_path.iterdir()} - {"a"}
        assert all(name.startswith(TEMPORARY) for name in others)


def test_json_is_sorted_strict_and_equal_for_equal_content(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, None, "é\udcff"], "a": 0.1})
    first = path.read_bytes()
    assert read_json(path) == {"a": 0.1, "b": [1, None, "é\udcff"]}
    write_json(path, {"a": 0.1, "b": [1, None, "é\udcff"]})
    assert path.read_bytes() == first
    for bad in (float("nan"), float("-inf"), {1, 2}, b"x"):
        with pytest.raises(InputError, match="expected plain data with finite numbers"):
            write_json(path, {"x": bad})
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": NaN}', "NaN, which is not JSON"),
        (b'{"a": 1, "a": 2}', "the same key twice"),
        (b"\xff\xfe{}", "decode"),
        (b"[" * 100_000, "recursion"),
        (b"1" * 10_000, "digits"),
        (b"{} trailing", "Extra data"),
    ],
)
def test_what_is_not_json_is_named(content, reason, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=f"expected a JSON file at .*a.json, got .*{reason}"):
        read_json(path)


def test_missing_and_folders_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ArtefactError, match=r"directory"):
            read_json(path)


def test_shown_fits_one_line():
    assert shown("é 😀.png") == "é 😀.png"
    assert shown("a\nb\r\x1b[31m\udcff") == "a\\nb\\r\\x1b[31m\\udcff"
