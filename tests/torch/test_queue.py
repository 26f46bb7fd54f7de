"""The queue of embeddings: what it keeps, what it saves, and who is compared with whom."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import families
import nearfar as nf
from cases import ONE_EACH, is_logits, labels_for
from nearfar.engine import Strips
from nearfar.torch import EmbeddingQueue, backward_in_chunks
from ranks import run_ranks

every_loss = pytest.mark.parametrize("loss", [case for case in ONE_EACH if not is_logits(case.values[0], None)])


def batches(counts, dimension=3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    for count in counts:
        x = torch.randn(count, dimension, generator=generator, dtype=dtype)
        yield x, torch.randint(5, (count,), generator=generator)


def same(queue, other):
    return all(torch.equal(a, b) for a, b in zip(queue.contents(), other.contents(), strict=True))


@pytest.mark.parametrize("size", [1, 4, 7, 12, 100])
def test_it_keeps_the_newest_in_order(size):
    """Against a list that only grows."""
    queue, rows, labels = EmbeddingQueue(size, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    for x, y in batches([3, 0, 4, 1, 9, 12, 2, 30, 5, 7, 7]):
        queue.add(x.requires_grad_(), y)
        rows, labels = torch.cat([rows, x.detach()])[-size:], torch.cat([labels, y])[-size:]
        got, got_labels = queue.contents()
        assert torch.equal(got, rows)
        assert torch.equal(got_labels, labels)
        assert not got.requires_grad
        assert len(queue) == len(rows) == int(queue.filled)
        assert 0 <= int(queue.position) < size


def test_queue_state_roundtrip(tmp_path):
    """Saved in the middle of a round and loaded elsewhere, it goes on as if nothing had happened."""
    for count in (2, 5, 9, 23):  # nothing wrapped yet, exactly filled, wrapped
        queue, loaded = EmbeddingQueue(9, 3), EmbeddingQueue(9, 3)
        loaded.add(*next(batches([4], seed=8)))  # an index of its own, to be forgotten
        for x, y in batches([2] * (count // 2) + [count % 2]):
            queue.add(x, y)
        state = queue.state_dict()
        assert set(state) == {"embeddings", "labels", "position", "filled"}
        torch.save(state, tmp_path / "queue.pt")
        loaded.load_state_dict(torch.load(tmp_path / "queue.pt", weights_only=True))
        others = [loaded, copy.deepcopy(queue), copy.deepcopy(queue).double().float()]
        assigned = EmbeddingQueue(9, 3)
        assigned.load_state_dict({k: v.clone() for k, v in state.items()}, assign=True)
        for other in (*others, assigned):
            assert len(other) == len(queue) == count if count < 9 else 9
            assert same(queue, other)
        for x, y in batches([4, 3, 1], seed=5):
            for one in (queue, *others, assigned):
                one.add(x, y)
            assert all(same(queue, other) for other in (*others, assigned))


def test_it_reads_its_place_once(monkeypatch):
    """No wait for the device in a step; one after loading."""
    reads = []
    original = torch.Tensor.__int__

    def counted(tensor):
        reads.append(1)
        return original(tensor)

    queue = EmbeddingQueue(9, 3)
    monkeypatch.setattr(torch.Tensor, "__int__", counted)
    queue.add(*next(batches([2])))
    del reads[:]
    for x, y in batches([4, 5, 3, 20]):
        queue.with_batch(x, y)
        queue.add(x, y)
        queue.contents()
    assert reads == []
    queue.load_state_dict(queue.state_dict())
    queue.contents()
    assert len(reads) == 2


def test_adding_between_forward_and_backward_changes_nothing():
    queue = EmbeddingQueue(6, 3)
    queue.add(*next(batches([6])))
    found = []
    for early in (False, True):
        (x, y), loss = next(batches([5], seed=1)), nf.SupConLoss()
        leaf, mine = x.clone().requires_grad_(), copy.deepcopy(queue)
        references, labels = mine.contents()
        value = loss(leaf, y, references=references, reference_labels=labels)
        if early:
            mine.add(leaf, y)
        value.backward()
        found.append(leaf.grad)
    assert torch.equal(*found)


def by_mask(loss, x, y, past, past_labels, live=True):
    """The same loss with every pair written down."""
    leaf = x.clone().requires_grad_()
    every = torch.cat([y, past_labels])
    equal, own = y[:, None] == every[None, :], torch.eye(len(y), len(every), dtype=torch.bool)
    mask = nf.Mask(positive=(equal & ~own).double(), negative=(~equal).double())
    value = loss(leaf, mask, references=torch.cat([leaf if live else x, past]))
    value.backward()
    return value.detach(), leaf.grad


@every_loss
@pytest.mark.parametrize("live", [True, False], ids=["live", "detached"])
def test_with_batch_leaves_out_self_and_nothing_else(loss, live, batch, gallery):
    if isinstance(loss, families.LABELS_ONLY):
        pytest.skip("a mask, to compare with, is refused by name")
    x, y = torch.tensor(batch[0]), torch.as_tensor(labels_for(loss, *batch))
    queue = EmbeddingQueue(8, 5, dtype=torch.float64)
    queue.add(torch.tensor(gallery[0]), torch.tensor(gallery[1]))
    expected = by_mask(loss, x, y, *queue.contents(), live)
    for engine in ("auto", "dense", Strips(4)):
        leaf = x.clone().requires_grad_()
        references, relation = queue.with_batch(leaf if live else x, y)
        value = loss(leaf, relation, references=references, engine=engine)
        value.backward()
        torch.testing.assert_close(value.detach(), expected[0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(leaf.grad, expected[1], rtol=1e-10, atol=1e-13)


@every_loss
def test_an_empty_queue_with_the_batch_is_the_batch(loss, batch):
    found = []
    for joined in (True, False):
        x, y = torch.tensor(batch[0], requires_grad=True), torch.tensor(batch[1])
        if joined:
            references, relation = EmbeddingQueue(8, 5, dtype=torch.float64).with_batch(x, y)
            value = loss(x, relation, references=references)
        else:
            value = loss(x, y)
        value.backward()
        found.append((value.detach(), x.grad))
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-14)


def test_a_batch_already_inside_would_be_its_own_positive(batch):
    """Why ``add`` comes after the loss: without self-exclusion a singleton finds a positive."""
    x, y = torch.tensor(batch[0]), torch.tensor(batch[1])
    single = int(np.flatnonzero(batch[1] == 9)[0])
    queue = EmbeddingQueue(20, 5, dtype=torch.float64)
    references, relation = queue.with_batch(x, y)
    loss = nf.SupConLoss()
    assert loss.per_anchor(x, relation, references=references)[single] == 0
    queue.add(x, y)
    references, labels = queue.contents()
    assert loss.per_anchor(x, y, references=references, reference_labels=labels)[single] > 0


def test_ignored_items_take_no_part(batch, gallery):
    x, y = torch.tensor(batch[0]), torch.tensor(batch[1])
    unknown = torch.tensor([0, 3, 12])
    queue, clean = (EmbeddingQueue(12, 5, dtype=torch.float64) for _ in range(2))
    past, past_labels = torch.tensor(gallery[0]), torch.tensor(gallery[1])
    clean.add(past, past_labels)
    queue.add(
        torch.cat([past[:4], x[:2] * 7, past[4:]]), torch.cat([past_labels[:4], -torch.ones(2).long(), past_labels[4:]])
    )
    marked = y.clone()
    marked[unknown] = -1
    rest = marked != -1
    references, relation = queue.with_batch(x, marked, ignore_label=-1)
    fewer, other = clean.with_batch(x[rest], y[rest])
    for loss in (nf.SupConLoss(), nf.ContrastiveLoss(), nf.TripletLoss()):
        value, (gradient, _) = loss.value_and_grad(x, relation, references=references)
        expected, (theirs, _) = loss.value_and_grad(x[rest], other, references=fewer)
        assert torch.equal(value, expected)
        assert torch.equal(gradient[rest], theirs)
        assert not gradient[~rest].any()


def test_with_the_gradient_cache():
    queue, loss = EmbeddingQueue(10, 4, dtype=torch.float64), 0.5 * nf.SupConLoss() + nf.ContrastiveLoss()
    queue.add(*next(batches([7], 4, dtype=torch.float64)))
    x, y = next(batches([9], 6, 3, torch.float64))

    def joined(z, labels):
        references, relation = queue.with_batch(z, labels)
        return loss(z, relation, references=references)

    torch.manual_seed(0)
    model = torch.nn.Linear(6, 4).double()
    joined(model(x), y).backward()
    expected = model.weight.grad.clone()
    model.zero_grad()
    backward_in_chunks(model, joined, x, y, chunk=2)
    torch.testing.assert_close(model.weight.grad, expected, rtol=1e-12, atol=1e-14)


def test_dtypes():
    queue = EmbeddingQueue(4, 3, dtype=torch.bfloat16)
    x, y = next(batches([3]))
    queue.add(x, y.tolist())
    assert queue.contents()[0].dtype == torch.bfloat16
    assert torch.equal(queue.contents()[0], x.bfloat16())
    assert queue.with_batch(x, y)[0].dtype == torch.float32
    assert queue.with_batch(x.half(), y.bool())[0].dtype == torch.float16
    assert "size=4, dimension=3" in repr(queue)


def test_errors():
    for size, dimension in ((0, 3), (3, 0), (2.0, 3), (True, 3)):
        with pytest.raises(nf.InputError, match=r"expected (size|dimension) to be a whole number, 1 or more, got"):
            EmbeddingQueue(size, dimension)
    with pytest.raises(nf.BackendError, match="expected a floating dtype"):
        EmbeddingQueue(3, 3, dtype=torch.int64)
    queue = EmbeddingQueue(4, 3)
    x, y = next(batches([3]))
    for call in (queue.add, queue.with_batch):
        with pytest.raises(nf.ShapeError, match="expected embeddings of 3 features, got 2"):
            call(x[:, :2], y)
        with pytest.raises(nf.ShapeError, match="expected 3 labels, one an item, got 2"):
            call(x, y[:2])
        with pytest.raises(nf.BackendError, match="got strings"):
            call(x, ["a", "b", "c"])
        with pytest.raises(nf.BackendError, match="expected labels to be integers"):
            call(x, y.float())
        with pytest.raises(nf.BackendError, match="expected embeddings on cpu, got ndarray"):
            call(x.numpy(), y)
        with pytest.raises(nf.BackendError, match=r"got layout torch\.strided on device meta"):
            call(x.to("meta"), y)
    assert len(queue) == 0
    references, relation = queue.with_batch(x, y)
    for given in ({}, {"references": references[:2]}):
        with pytest.raises(nf.ShapeError, match="expected references that begin with the 3 anchors"):
            nf.SupConLoss()(x, relation, **given)
    with pytest.raises(nf.InputError, match="say both in the relation"):
        nf.SupConLoss()(x, relation, references=references, reference_labels=y)


@pytest.mark.slow  # test_three_ranks of test_ranks.py has a case of it.
@pytest.mark.timeout(260)
def test_three_ranks_hold_the_same(tmp_path):
    assert run_ranks("torch/queue_on_ranks.py", 3, tmp_path) == ["ok"] * 3
