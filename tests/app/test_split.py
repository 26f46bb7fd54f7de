"""Splits by class: disjoint, complete, the same for the same seed and names."""

import json
from pathlib import Path

import pytest

from nearfar import ArtefactError, DataError, InputError
from nearfar.app.data import Dataset
from nearfar.app.split import Split, folds, load_split, save_split, side_sizes, split_classes


def dataset(*names: str) -> Dataset:
    return Dataset(Path("d"), names, (), (), "")


PEOPLE = tuple(f"s{i}" for i in range(1, 41))


@pytest.mark.parametrize("classes", range(6, 60))
def test_sides_are_disjoint_complete_and_make_both_kinds_of_pairs(classes):
    names = tuple(f"k{i}" for i in range(classes))
    split = split_classes(dataset(*names), seed=5)
    assert sorted(split.train + split.val + split.test) == sorted(names)
    assert min(map(len, (split.train, split.val, split.test))) >= 2
    if classes >= 10:
        assert abs(len(split.val) - 0.2 * classes) <= 0.5
        assert abs(len(split.test) - 0.2 * classes) <= 0.5


def test_the_split_depends_on_seed_and_names_alone():
    split = split_classes(dataset(*PEOPLE), seed=3)
    assert split == split_classes(dataset(*reversed(PEOPLE)), seed=3)
    assert split != split_classes(dataset(*PEOPLE), seed=4)
    assert split.train == tuple(sorted(split.train, key=lambda name: int(name[1:])))


def test_every_class_is_tested_under_some_seed():
    counts = dict.fromkeys(PEOPLE, 0)
    for seed in range(200):
        for name in split_classes(dataset(*PEOPLE), seed).test:
            counts[name] += 1
    assert sum(counts.values()) == 200 * 8
    assert min(counts.values()) > 20  # 40 expected, sd 5.7
    assert max(counts.values()) < 60


def test_the_split_does_not_change_between_versions():
    assert split_classes(dataset(*PEOPLE), seed=0).test == (
        "s6",
        "s10",
        "s16",
        "s18",
        "s19",
        "s28",
        "s33",
        "s39",
    )


def test_names_that_are_not_utf8_are_split():
    names = (*"abcde", b"\xff".decode("utf-8", "surrogateescape"))
    split = split_classes(dataset(*names), 0)
    assert sorted(split.train + split.val + split.test) == sorted(names)


def test_fractions_are_checked():
    for fractions in ((0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (float("nan"), 0.5, 0.5), (1.2, -0.1, -0.1)):
        with pytest.raises(InputError, match="expected positive fractions"):
            split_classes(dataset(*PEOPLE), 0, fractions)
    assert side_sizes(10, (0.05, 0.9, 0.05)) == (2, 6, 2)
    assert side_sizes(40, (0.5, 0.25, 0.25)) == (20, 10, 10)


@pytest.mark.parametrize("fractions", [(0.05, 0.9, 0.05), (0.05, 0.05, 0.9), (0.98, 0.01, 0.01), (0.1, 0.45, 0.45)])
def test_every_side_has_two_classes_whatever_the_fractions(fractions):
    for classes in range(6, 60):
        sizes = side_sizes(classes, fractions)
        assert sum(sizes) == classes
        assert min(sizes) >= 2


@pytest.mark.parametrize("classes", [0, 2, 5])
def test_five_classes_are_too_few(classes):
    with pytest.raises(DataError, match=rf"^expected 6 or more classes .* in d, got {classes}; add classes"):
        split_classes(dataset(*"abcde"[:classes]))
    with pytest.raises(InputError, match=f"got {classes}"):
        side_sizes(classes)


def test_folds_are_consecutive_people():
    blocks = folds(sorted(PEOPLE), 8)
    assert [len(block) for block in blocks] == [5] * 8
    assert blocks[0] == ("s1", "s2", "s3", "s4", "s5")
    assert blocks[7] == ("s36", "s37", "s38", "s39", "s40")


@pytest.mark.parametrize(("n", "k"), [(7, 3), (8, 8), (11, 4), (2, 2)])
def test_uneven_folds(n, k):
    blocks = folds([f"c{i}" for i in range(n)], k)
    assert [name for block in blocks for name in block] == [f"c{i}" for i in range(n)]
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


@pytest.mark.parametrize("k", [0, 1, 41, -3])
def test_impossible_folds(k):
    with pytest.raises(InputError, match="expected k from 2 to the number of classes"):
        folds(PEOPLE, k)


def test_a_split_comes_back_from_its_file(tmp_path):
    names = ("a", "b", "é", "d", "e", b"\xff".decode("utf-8", "surrogateescape"))
    split = Split(names[:2], names[2:4], names[4:])
    save_split(tmp_path / "split.json", split, "f00d")
    assert load_split(tmp_path / "split.json", "f00d") == split


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fingerprint": "beef"}, "data that have changed"),
        ({"format": "other"}, "expected a split, version 1"),
        ({"version": 2}, "expected a split, version 1"),
        ({"val": ["a"]}, "without a common class"),
        ({"val": []}, "without a common class"),
        ({"test": "text"}, "without a common class"),
        ({"test": [1]}, "without a common class"),
        ({"test": None}, "without a common class"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(change, reason, tmp_path):
    path = tmp_path / "split.json"
    save_split(path, Split(("a", "b"), ("c", "d"), ("e", "f")), "f00d")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtefactError, match=reason) as caught:
        load_split(path, "f00d")
    assert str(path) in str(caught.value)
