from __future__ import annotations

import numpy as np
import pytest

from nearfar import InputError, ShapeError
from nearfar.torch import BalancedBatches
from nearfar.torch.batches import batch_indices

LABELS = np.array([4, 0, 0, 7, 0, 2, 2, 7, 0, 7, 7, 7, 5, 5, 5, -1, -1])  # class 4 has one item


def classes_of(batch: np.ndarray) -> list[int]:
    return [int(c) for c in LABELS[batch]]


@pytest.mark.parametrize("step", range(12))
def test_a_batch_holds_P_classes_of_K_items_each(step: int) -> None:
    batch = batch_indices(LABELS, P=3, K=2, seed=1, step=step)
    assert batch.dtype == np.int64
    assert len(set(batch.tolist())) == 6
    found = classes_of(batch)
    assert found[0::2] == found[1::2]
    assert len(set(found)) == 3


def test_it_is_a_function_of_seed_and_step_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    once = [batch_indices(LABELS, 3, 2, 11, step).tolist() for step in (5, 0, 9)]
    again = [batch_indices(list(LABELS), 3, 2, 11, step).tolist() for step in (9, 5, 0)]
    assert once == [again[1], again[2], again[0]]
    assert once[0] != once[1]
    assert batch_indices(LABELS, 3, 2, 12, 5).tolist() != once[0]
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_a_class_of_one_and_ignored_items_never_appear() -> None:
    seen = {int(i) for step in range(200) for i in batch_indices(LABELS, 2, 3, 0, step)}
    assert seen == set(range(1, 15))  # every other item does


def test_a_small_class_repeats_its_items_evenly_and_a_large_one_never() -> None:
    for step in range(40):
        batch = batch_indices(LABELS, P=4, K=5, seed=3, step=step)
        for label, size in ((0, 4), (7, 5), (2, 2), (5, 3)):
            mine = batch[LABELS[batch] == label]
            counts = np.unique(mine, return_counts=True)[1]
            assert len(mine) == 5
            assert len(counts) == min(size, 5)
            assert counts.max() - counts.min() <= 1


def test_fewer_classes_than_P_are_all_used() -> None:
    assert sorted(set(classes_of(batch_indices(LABELS, P=50, K=2, seed=0, step=1)))) == [0, 2, 5, 7]


def test_classes_are_equally_frequent_whatever_their_size() -> None:
    draws = 1500
    counts = dict.fromkeys((0, 2, 5, 7), 0)
    for step in range(draws):
        for label in set(classes_of(batch_indices(LABELS, 2, 2, 8, step))):
            counts[label] += 1
    chi_square = sum((n - draws / 2) ** 2 / (draws / 2) for n in counts.values())
    assert chi_square < 16.3  # 99.9 % of 3 degrees of freedom


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"P": 1}, InputError, "expected P to be a whole number, 2 or more, got 1"),
        ({"K": 1}, InputError, "expected K to be a whole number, 2 or more, got 1"),
        ({"seed": -1}, InputError, "expected seed to be a whole number, 0 or more"),
        ({"step": -1}, InputError, "expected step to be a whole number, 0 or more"),
        ({"labels": [[0, 1]]}, ShapeError, "expected labels of shape"),
        ({"labels": [0, 0, 1]}, InputError, "at least two classes with two or more items, got 1"),
        ({"labels": []}, InputError, "got 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        batch_indices(**{"labels": LABELS, "P": 2, "K": 2, "seed": 0, "step": 0, **change})


def test_ranks_share_a_step_without_sharing_a_class() -> None:
    for epoch in range(3):
        ranks = [
            list(BalancedBatches(LABELS, classes=2, items=2, seed=5, rank=r, world_size=2, steps=4).at(epoch))
            for r in (0, 1)
        ]
        for step, (first, second) in enumerate(zip(*ranks, strict=True)):
            assert not set(classes_of(first)) & set(classes_of(second))
            whole = batch_indices(LABELS, 4, 2, 5, 4 * epoch + step).tolist()
            assert sorted(first + second) == sorted(whole)


def test_epochs_differ_and_do_not_depend_on_what_ran_before() -> None:
    batches = BalancedBatches(LABELS, classes=2, items=2, seed=9, steps=5)
    second = list(batches.at(1))
    assert second != list(batches.at(0))
    assert second == list(BalancedBatches(LABELS, classes=2, items=2, seed=9, steps=5, epoch=1))
    assert second == list(batches.at(1))
    assert second == [batches.batch(5 + k) for k in range(5)]


def test_an_epoch_is_about_one_visit_of_each_item() -> None:
    batches = BalancedBatches(np.repeat(np.arange(20), 8), classes=5, items=4)
    assert len(batches) == 8
    assert len(list(batches)) == 8


def test_workers_of_a_data_loader_get_the_same_batches() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.arange(len(LABELS)))
    batches = BalancedBatches(LABELS, classes=2, items=3, seed=2, steps=6)
    loader = torch.utils.data.DataLoader(data, batch_sampler=batches)
    assert [batch[0].tolist() for batch in loader] == list(batches)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": 1}, "expected classes to be a whole number, 2 or more, got 1"),
        ({"items": 1}, "expected items to be a whole number, 2 or more, got 1"),
        ({"classes": None}, "expected classes to be a whole number, 2 or more, got None"),
        ({"seed": 1.5}, "expected seed to be a whole number, 0 or more, got 1.5"),
        ({"rank": "0"}, "expected rank to be a whole number, 0 or more, got '0'"),
        ({"rank": 2, "world_size": 2}, "expected rank of 0 to 1, got 2"),
        ({"world_size": 0}, "expected world_size to be a whole number, 1 or more"),
        ({"labels": ["a", "a", "b", "b"]}, "expected labels to be integers"),
        ({"steps": 0}, "expected steps to be a whole number, 1 or more"),
        ({"epoch": -1}, "expected epoch to be a whole number, 0 or more"),
        ({"rank": 4, "world_size": 5}, "a class for each of 5 ranks, got 4"),
    ],
)
def test_batches_that_cannot_be_drawn_are_refused(change: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        BalancedBatches(**{"labels": LABELS, "classes": 2, "items": 2, **change})
