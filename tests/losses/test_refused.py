"""Input that no loss can be right about is refused by name, before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar._errors import BackendError, InputError

X = np.random.default_rng(0).normal(size=(6, 4))
Y = np.array([0, 0, 1, 1, 2, 3])
W = np.random.default_rng(1).normal(size=(4, 4))
WITH_CLASSES = {
    "cross-entropy": nf.CrossEntropyLoss(),
    "arcface": nf.ArcFaceLoss(),
    "proxy-nca": nf.losses.ProxyNCALoss(),
    "proxy-anchor": nf.losses.ProxyAnchorLoss(),
    "sub-centres": nf.losses.SubCenterArcFaceLoss(per_class=2),
}
GIVEN = {
    "nothing": (None, "got NoneType"),
    "masked": (np.ma.array(X, mask=X > 1), "without a mask"),
    "sparse": (torch.tensor(X).to_sparse(), "layout torch.sparse_coo"),
    "meta": (torch.empty(6, 4, device="meta"), "on device meta"),
    "float8": (torch.tensor(X).to(torch.float8_e4m3fn), "real floating"),
}


def rows(name):
    return np.repeat(W, 2, axis=0) if name == "sub-centres" else W


@pytest.mark.parametrize("outside", [4, -1, -100, 2**40])
@pytest.mark.parametrize("name", WITH_CLASSES)
def test_labels_without_a_row(name, outside):
    """A label that no row of the class weights stands for counted for nothing, silently."""
    loss, labels = WITH_CLASSES[name], np.where(Y == 3, outside, Y)
    with pytest.raises(InputError, match=f"from 0 to 3, one for each of 4 classes, got {outside}"):
        loss(X, labels, class_weights=rows(name))
    with pytest.raises(InputError, match="from 0 to 3"):
        loss.value_and_grad(torch.tensor(X), labels, class_weights=torch.tensor(rows(name)))
    left_out = loss(X, labels, class_weights=rows(name), ignore_label=outside)
    assert left_out == pytest.approx(loss(X[:5], Y[:5], class_weights=rows(name)), rel=1e-12)


@pytest.mark.parametrize("outside", [4, -1])
def test_logits_without_a_column(outside):
    labels = np.where(Y == 3, outside, Y)
    with pytest.raises(InputError, match="from 0 to 3"):
        nf.CrossEntropyLoss()(X, labels)
    left_out = nf.CrossEntropyLoss()(X, labels, ignore_label=outside)
    assert left_out == pytest.approx(nf.CrossEntropyLoss()(X[:5], Y[:5]), rel=1e-12)


@pytest.mark.parametrize("name", GIVEN)
def test_what_holds_no_numbers(name):
    given, words = GIVEN[name]
    with pytest.raises(BackendError, match=words):
        nf.SupConLoss()(given, Y)
    with pytest.raises(BackendError, match="expected"):
        nf.ArcFaceLoss()(given, Y, class_weights=W)


@pytest.mark.parametrize("many", [[0, 1], np.array([0, 1, 2]), {1}, 1.0, torch.tensor([0, 1])], ids=repr)
@pytest.mark.parametrize("name", ["supcon", "arcface", "proxy-anchor", "logits"])
def test_one_label_is_ignored(name, many):
    """Others were compared item by item, or ignored nothing."""
    calls = {
        "supcon": lambda label: nf.SupConLoss()(X, Y, ignore_label=label),
        "logits": lambda label: nf.CrossEntropyLoss()(X, Y, ignore_label=label),
        **{
            key: lambda label, key=key: WITH_CLASSES[key](X, Y, class_weights=W, ignore_label=label)
            for key in ("arcface", "proxy-anchor")
        },
    }
    with pytest.raises(InputError, match="expected ignore_label to be one integer or string"):
        calls[name](many)
    expected = calls[name](3)
    for same in (np.int64(3), np.array(3), torch.tensor(3)):
        assert calls[name](same) == expected


def test_the_ignored_label_is_of_their_kind():
    """It ignored nothing, silently."""
    names = list("aabbcd")
    with pytest.raises(InputError, match="of the kind of the labels, got 'd' beside integers"):
        nf.SupConLoss()(X, Y, ignore_label="d")
    with pytest.raises(InputError, match="of the kind of the labels, got 3 beside strings"):
        nf.SupConLoss()(X, names, ignore_label=3)
    assert nf.SupConLoss()(X, names, ignore_label="e") == nf.SupConLoss()(X, names)
    assert nf.SupConLoss()(X[:0], [], ignore_label="e") == 0


def test_no_batch_of_several_may_be_left_out():
    for call in (
        lambda: nf.SupConLoss().views(X, None),
        lambda: nf.ContrastiveLoss().pairs(X, None, Y > 1),
        lambda: nf.TripletLoss().triplets(X, X[::-1], None),
    ):
        with pytest.raises(BackendError, match="got NoneType"):
            call()


def test_scores_of_one_number():
    with pytest.raises(InputError, match="a batch of pairs, got a number"):
        nf.CoSENTLoss().similarities(np.array(0.3), [1.0])


@pytest.mark.parametrize("what", [np.array(["2020-01-01"] * 6, dtype="M8[D]"), Y * 1j], ids=["dates", "complex"])
def test_answers_that_are_no_numbers(what):
    for batch in (X, torch.tensor(X)):
        with pytest.raises(BackendError, match="expected numbers, got"):
            nf.ContrastiveLoss().pairs(batch, batch, what)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nf.ContrastiveLoss(margin=None), "margin of ContrastiveLoss to be a number, got None"),
        (lambda: nf.SupConLoss(temperature="0.1"), "temperature of SupConLoss to be a number, got '0.1'"),
        (lambda: nf.SupConLoss(form=["out"]), "form of SupConLoss to be a string"),
        (lambda: nf.MarginLoss(beta=torch.ones(3)), "beta of MarginLoss to be a number"),
        (lambda: nf.UniformityLoss(t=10**400), "t of UniformityLoss to be a number"),
        (lambda: nf.ContrastiveLoss(balanced=1), "balanced of ContrastiveLoss to be True or False, got 1"),
        (lambda: nf.ContrastiveLoss(factors=0.5), "factors of ContrastiveLoss to be two numbers in a tuple"),
        (lambda: nf.Matryoshka(nf.SupConLoss(), (2,), (None,)), "weights of Matryoshka to be numbers in a tuple"),
        (lambda: nf.MultipleNegativesRankingLoss(directions=None), "to be strings in a tuple"),
        (lambda: nf.Guided(Y, X), "expected a relation, got ndarray"),
        (lambda: nf.Guided(nf.Labels(Y), X, margin="1"), "a finite margin, got 1"),
    ],
)
def test_hyper_parameters_of_another_kind(make, words):
    """They came to a TypeError of a comparison, or to nothing."""
    with pytest.raises(InputError, match=words):
        make()


def test_numbers_of_any_library_are_numbers():
    expected = nf.SupConLoss(temperature=0.5)(X, Y)
    for half in (np.float32(0.5), np.array(0.5), np.float64(0.5)):
        assert nf.SupConLoss(temperature=half)(X, Y) == expected
    assert nf.SupConLoss(temperature=torch.tensor(0.5))(torch.tensor(X), Y) == pytest.approx(float(expected))
    for loss, call in (
        (nf.SupConLoss(temperature=torch.tensor(0.5)), lambda v: v(X, Y)),
        (nf.UniformityLoss(t=torch.tensor(0.5)), lambda v: v.value_and_grad(X)),
    ):
        with pytest.raises(BackendError, match=r"as a number beside other arrays, got a tensor; pass float\(t"):
            call(loss)


@pytest.mark.parametrize("same", [[1, -1, 1, -1, 1, 1], [1, 2, 1, 2, 1, 2], [0, 1, float("nan"), 1, 0, 1]])
@pytest.mark.parametrize("library", [np.asarray, torch.tensor])
def test_answers_are_0_and_1(same, library):
    """PyTorch's −1 for "another" weighed a pair as a positive below 0 and twice as a negative."""
    x = library(X)
    with pytest.raises(InputError, match=r"expected same of 0 and 1, got (-1|2|nan)"):
        nf.ContrastiveLoss().pairs(x, x, library(same))
    with pytest.raises(InputError, match="expected same of 0 and 1"):
        nf.BinaryCrossEntropyLoss().similarities(x[:, 0], library(same))
