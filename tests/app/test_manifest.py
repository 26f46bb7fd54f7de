"""Damage to a folder is found and named."""

import json

import pytest

from nearfar import ArtefactError
from nearfar.app.files import write_whole
from nearfar.app.manifest import MANIFEST, check_manifest, sha256, write_manifest


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_missing_files_and_folders_have_no_sha256(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ArtefactError, match=r"directory"):
            sha256(path)


def model(folder):
    (folder / "deep").mkdir()
    write_whole(folder / "weights", bytes(range(40)))
    write_whole(folder / "deep" / "é.json", "{}")
    write_whole(folder / ".nearfar-left.tmp", "half")
    write_manifest(folder)
    return folder


def test_manifest_lists_every_visible_file(tmp_path):
    files = json.loads((model(tmp_path) / MANIFEST).read_text())["files"]
    assert files == {
        "deep/é.json": {"sha256": sha256(tmp_path / "deep" / "é.json"), "size": 2},
        "weights": {"sha256": sha256(tmp_path / "weights"), "size": 40},
    }
    check_manifest(tmp_path)
    write_manifest(tmp_path)
    check_manifest(tmp_path)


def test_every_flipped_bit_is_found(tmp_path):
    model(tmp_path)
    for name in ("weights", "deep/é.json", MANIFEST):
        whole = (tmp_path / name).read_bytes()
        for bit in range(8 * len(whole)):
            broken = bytearray(whole)
            broken[bit // 8] ^= 1 << bit % 8
            if name == MANIFEST and broken.lower() == whole.lower() and b"\\u00E9" in broken:
                continue  # another spelling of the same letter in JSON: nothing is damaged
            (tmp_path / name).write_bytes(broken)
            with pytest.raises(ArtefactError):
                check_manifest(tmp_path)
        (tmp_path / name).write_bytes(whole)
    check_manifest(tmp_path)


def test_every_truncation_and_extension_is_found_and_named(tmp_path):
    model(tmp_path)
    whole = (tmp_path / "weights").read_bytes()
    for content in [whole[:n] for n in range(40)] + [whole + b"\0", whole + bytes(4096)]:
        (tmp_path / "weights").write_bytes(content)
        with pytest.raises(ArtefactError, match=r"weights, got \d+ bytes instead of 40"):
            check_manifest(tmp_path)


def test_missing_files_and_a_missing_manifest_are_named(tmp_path):
    model(tmp_path)
    (tmp_path / "weights").unlink()
    with pytest.raises(ArtefactError, match="weights, got no such file"):
        check_manifest(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(ArtefactError, match=r"checksums\.json, got No such file"):
        check_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "expected version 1 .* got 2; update nearfar"),
        ({"format": "x"}, "no list of checksums"),
        ({"files": []}, "no list of files"),
        ({"files": {"../../etc/passwd": {}}}, "leads out of the folder"),
        ({"files": {"/etc/passwd": {}}}, "leads out of the folder"),
        ({"files": {"C:\\x": {}}}, "leads out of the folder"),
        ({"files": {"a": {"size": 1}}}, "no size and SHA-256 for a"),
        ({"files": {"a\0b": {"size": 1, "sha256": ""}}}, "no such file"),
    ],
)
def test_a_hostile_manifest_is_refused(change, reason, tmp_path):
    path = model(tmp_path) / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtefactError, match=reason):
        check_manifest(tmp_path)
