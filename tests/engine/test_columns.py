"""References that come block by block: the value and the gradient of the whole table, whichever way it is cut."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import nearfar as nf
from cases import CASES, ONE_EACH, array, call, plain
from nearfar._arrays import namespace
from nearfar.engine import Given, Task
from nearfar.engine.columns import Block, Counts
from nearfar.engine.rules import parts_of
from nearfar.torch._learned import with_values

in_parts = pytest.mark.parametrize("loss", [case for case in ONE_EACH if parts_of(case.values[0])])
CUTS = [[9], [4, 3, 2], [0, 8, 1], [1] * 9, [0, 9, 0]]


@dataclass
class Listed:
    """Blocks out of a list; the first are the references that "lie here"."""

    codes: object
    counts: Counts
    rows: list
    labels: list
    is_self: bool = False
    laps: list = field(default_factory=list)
    into: list = field(default_factory=list)

    def lap(self, home, prepare, gradient):
        self.laps.append(gradient)
        sides = [home, *map(prepare, self.rows[1:])]
        self.into = [side.rows * 0 for side in sides]
        for k, side in enumerate(sides):
            yield Block(side, self.labels[k], self.into[k], self.is_self and k == 0)

    @property
    def gradient(self):
        return self.into[0]


def batch(framework="torch", n=7, m=9):
    rng = np.random.default_rng(5)
    x, r = (array(rng.normal(size=(k, 4)) * 0.8, framework, "float64") for k in (n, m))
    labels, others = rng.integers(0, 4, size=n), rng.integers(0, 4, size=m)
    labels[0] = 77  # no positive
    xp = namespace(x=x)
    return xp, x, xp.asarray(labels), r, xp.asarray(others)


def in_blocks(loss, x, labels, r, others, cut, height=None, gradient=True, **options):
    """Outcome of the table in blocks, and their source."""
    xp = namespace(x=x)
    places = np.cumsum([0, *cut])
    parts = [slice(a, b) for a, b in pairwise(places)]
    counts = Counts.of(xp, labels, others, False, x, None)
    source = Listed(labels, counts, [r[p] for p in parts], [others[p] for p in parts])
    _, task, _ = loss._ready(Given(x, r, nf.Labels(labels, others)), "auto")
    return replace(task, references=source.rows[0], columns=(source,), **options).run(height, gradient), source


@in_parts
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_blocks_equal_the_whole_table(loss, framework):
    """Value, losses, and gradients of anchors and of the references that lie here."""
    _, x, labels, r, others = batch(framework)
    value, (by_x, by_r) = call(loss, x, labels, r, others, engine="dense")
    assert abs(plain(by_x)).max() > 1e-9
    each = plain(loss.per_anchor(x, labels, references=r, reference_labels=others))
    for cut in CUTS:
        for height in (None, 2):
            outcome, source = in_blocks(loss, x, labels, r, others, cut, height)
            assert float(outcome.value) == pytest.approx(float(value), rel=1e-13, abs=1e-18)
            ours, home = map(plain, outcome.gradients)
            np.testing.assert_allclose(ours, plain(by_x), rtol=0, atol=1e-12 * abs(plain(by_x)).max())
            np.testing.assert_allclose(home, plain(by_r)[: cut[0]], rtol=0, atol=1e-12 * abs(plain(by_r)).max())
            assert source.laps == ([False, True] if parts_of(loss) == "pooled" else [True])
        value_only, _ = in_blocks(loss, x, labels, r, others, cut, gradient=False)
        np.testing.assert_allclose(plain(value_only.per_anchor), each, rtol=1e-12, atol=1e-15)


@in_parts
def test_anchors_among_the_blocks(loss):
    """The first block is the anchors themselves: an item never meets itself; the gradient has both its roles."""
    xp, x, labels, r, others = batch()
    both, same = torch.cat([x, r]), torch.cat([labels, others])
    positive = labels[:, None] == same[None, :]
    apart = torch.ones_like(positive)
    apart[:, : len(x)] = ~torch.eye(len(x), dtype=torch.bool)
    mask = nf.Mask(positive & apart, ~positive & apart)
    value, (by_x, by_both) = loss.value_and_grad(x, mask, references=both)
    source = Listed(labels, Counts.of(xp, labels, same, True, x, None), [x, r], [labels, others], True)
    _, task, _ = loss._ready(Given(x, None, nf.Labels(labels)), "auto")
    outcome = replace(task, columns=(source,)).run(3, gradient=True)
    assert float(outcome.value) == pytest.approx(float(value), rel=1e-13)
    expected = plain(by_x + by_both[: len(x)])
    np.testing.assert_allclose(plain(outcome.gradients[0]), expected, rtol=0, atol=1e-12 * abs(expected).max())


LEARNED = {
    "scale": [nf.SupConLoss(temperature=0.3), nf.NCALoss(temperature=0.6), nf.CrossEntropyLoss(temperature=0.4)],
    "shift": [nf.SigLIPLoss(temperature=0.3, bias=-1.0), nf.MarginLoss(beta=0.8)],
}


@pytest.mark.parametrize(("moment", "loss"), [(m, loss) for m, losses in LEARNED.items() for loss in losses], ids=str)
def test_moments(moment, loss):
    """What learned hyper-parameters are made of, with an origin of each anchor too."""
    xp, x, labels, r, others = batch()
    origins = [None]
    if isinstance(loss, nf.MarginLoss):
        loss, origins = with_values(loss, {"beta": 0.0}), [torch.linspace(0.5, 1.5, len(x), dtype=torch.float64)]
    for origin in origins:
        options = {"moments": (moment,), "origin": origin}
        whole = Task(loss, xp, x, r, nf.Labels(labels, others), **options).run(None, gradient=True)
        for cut in CUTS:
            outcome, _ = in_blocks(loss, x, labels, r, others, cut, 3, **options)
            torch.testing.assert_close(getattr(outcome, moment), getattr(whole, moment), rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(outcome.value, whole.value, rtol=1e-13, atol=0)


@pytest.mark.parametrize("loss", [nf.SupConLoss(), nf.InfoNCELoss(), nf.ContrastiveLoss(), nf.CircleLoss()], ids=str)
def test_nothing_and_everything(loss):
    """No anchors, no references: 0; NaN stays NaN; logits far apart neither over- nor underflow."""
    _, x, labels, r, others = batch()
    for a, own, b, other, cut in (
        (x[:0], labels[:0], r, others, [4, 5]),
        (x, labels, r[:0], others[:0], [0, 0]),
    ):
        outcome, _ = in_blocks(loss, a, own, b, other, cut)
        assert outcome.value == 0
        assert all(not plain(g).any() for g in outcome.gradients)
    broken = r.clone()
    broken[-1, 0] = float("nan")
    outcome, _ = in_blocks(loss, x, labels, broken, others, [4, 5])
    assert outcome.value.isnan()
    if isinstance(loss, nf.SupConLoss):
        steep = nf.SupConLoss(temperature=1e-4, measure=nf.Dot())
        value, (by_x, _) = call(steep, x, labels, r, others)
        outcome, _ = in_blocks(steep, x, labels, r, others, [4, 3, 2])
        assert float(outcome.value) == pytest.approx(float(value), rel=1e-12)
        np.testing.assert_allclose(plain(outcome.gradients[0]), plain(by_x), rtol=0, atol=1e-8)


def test_which_losses_come_in_parts():
    """Told apart by what they say of themselves."""
    found = Counter(str(parts_of(loss)) for loss in CASES.values())
    assert found["pooled"] > 10
    assert found["apart"] > 8
    for loss in (nf.TripletLoss(), nf.LiftedStructureLoss(), nf.FastAPLoss(), nf.MultiSimilarityLoss()):
        assert parts_of(loss) is None
    for loss in (nf.MarginLoss(active_only=True), nf.BinomialDevianceLoss(by_anchor=True)):
        assert parts_of(loss) is None
        assert parts_of(type(loss)()) == "apart"
    for loss in (nf.MultiSimilarityLoss(epsilon=None), nf.NPairLoss()):
        assert parts_of(loss) == "pooled"
    assert parts_of(nf.NPairLoss(one_versus_one=True)) is None
