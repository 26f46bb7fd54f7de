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
