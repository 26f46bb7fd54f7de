"""Softmax losses beside the papers' and other libraries' formulas; the forms that are no table: MNRL, DCLW, Guided.

Where a peer differs, the test says in what.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar.engine import Strips

RNG = np.random.default_rng(31)
LABELS = torch.tensor(np.repeat(np.arange(5), (2, 3, 4, 5, 6))[RNG.permutation(20)])
ROWS = torch.tensor(RNG.normal(size=(20, 6)) + 0.8 * RNG.normal(size=(5, 6))[LABELS])
OTHERS, OTHER_LABELS = torch.tensor(RNG.normal(size=(14, 6))), torch.tensor(np.arange(14) % 5)
QUERIES, DOCUMENTS, HARD = (torch.tensor(RNG.normal(size=(9, 6))) for _ in range(3))
HARD_TOO = torch.tensor(RNG.normal(size=(9, 2, 6)))


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


def run(form, *arrays):
    leaves = [a.clone().requires_grad_() for a in arrays]
    value = form(*leaves)
    return value.item(), torch.autograd.grad(value, leaves)


def alike(ours, theirs, rel=1e-11):
    assert ours[0] == pytest.approx(theirs[0], rel=rel)
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert b.abs().max() > 1e-6
        assert (a - b).abs().max() <= rel * b.abs().max()


# ------------------------------------------------------------ one batch, many values (tests/losses/test_golden.py)


@pytest.fixture(scope="module")
def twelve():
    rng, y = np.random.default_rng(0), np.repeat(np.arange(4), 3)
    centre = rng.normal(size=(4, 8))
    rows = centre[y] + 0.9 * rng.normal(size=(12, 8))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), y


GOLDEN = {
    "SupCon in": (nf.SupConLoss(form="in"), 1.805008),
    "one positive at a time": (nf.SupConLoss(denominator="one"), 2.192607),
    "negatives only": (nf.SupConLoss(denominator="negatives"), 1.475096),
    "DCL": (nf.DecoupledContrastiveLoss(), 1.475096),
    # −Σ p = −3.711805 in scikit-learn and metric-learn; here the mean of 1 − p.
    "NCA, probabilities": (nf.NCALoss(log=False), 1 - 3.711805 / 12),
    "NCA": (nf.NCALoss(), 1.216639),
    "soft nearest neighbour": (nf.SoftNearestNeighborLoss(), 1.216639),
}


@pytest.mark.parametrize(("loss", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_batch_of_twelve(loss, expected, twelve):
    assert float(loss(*twelve)) == pytest.approx(expected, rel=2e-6)


def test_deep_nca_form_is_the_in_form_without_the_number_of_positives(twelve):
    """−log Σ p = 1.111861: the "in" form without 1/|P|, log 2 lower with two positives each."""
    assert float(nf.SupConLoss(form="in")(*twelve)) - math.log(2) == pytest.approx(1.111861, rel=2e-6)


def test_in_batch_negatives_of_twelve(twelve):
    x, q, k = twelve[0], [0, 3, 6, 9], [1, 4, 7, 10]
    assert float(nf.MultipleNegativesRankingLoss(0.1).aligned(x[q], x[k])) == pytest.approx(0.730578, rel=2e-6)


# ------------------------------------------------------------ the forms are one another


def test_forms_and_denominators_meet():
    """One positive each: "in" is "out". The "one" denominator is InfoNCE, "negatives" DCL."""
    z = ROWS[:8], ROWS[8:16]
    for denominator in ("all", "one", "negatives"):
        out, inside = (nf.SupConLoss(0.3, form=f, denominator=denominator) for f in ("out", "in"))
        alike(run(out.views, *z), run(inside.views, *z))
    for loss, same in ((nf.InfoNCELoss(0.3), "one"), (nf.DecoupledContrastiveLoss(0.3), "negatives")):
        other = nf.SupConLoss(0.3, denominator=same)
        alike(run(lambda x, f=loss: f(x, LABELS), ROWS), run(lambda x, f=other: f(x, LABELS), ROWS))


def test_in_is_below_out():
    """Jensen: the logarithm of a mean is at least the mean of the logarithms (Khosla 2020, eq. 4)."""
    for denominator in ("all", "one", "negatives"):
        values = [float(nf.SupConLoss(form=f, denominator=denominator)(ROWS, LABELS)) for f in ("in", "out")]
        assert values[0] < values[1]


def test_soft_nearest_neighbour_is_nca():
    alike(
        run(lambda x: nf.SoftNearestNeighborLoss(0.7)(x, LABELS), ROWS),
        run(lambda x: nf.NCALoss(0.7)(x, LABELS), ROWS),
    )


def test_nca_objective_of_scikit_learn():
    """scikit-learn maximises Σ p: here the mean of 1 − p, and the gradient of the rows makes that of the map."""
    nca = pytest.importorskip("sklearn.neighbors").NeighborhoodComponentsAnalysis
    labels, x = LABELS.numpy(), ROWS.numpy()
    model = nca()
    model.n_iter_, model.random_state_ = 0, np.random.RandomState(0)
    same = labels[:, None] == labels
    value, gradient = model._loss_grad_lbfgs(np.eye(6), x, same, -1.0)
    ours, rows = nf.NCALoss(log=False).value_and_grad(x, labels)
    assert float(ours) == pytest.approx(1 + value / 20, rel=1e-10)
    np.testing.assert_allclose(20 * rows.T @ x, gradient.reshape(6, 6), rtol=1e-8, atol=1e-10)


def test_prior_zero_is_infonce_and_beta_zero_is_debiased():
    infonce, plain = nf.InfoNCELoss(0.4), nf.DebiasedContrastiveLoss(0.4, 0.0)
    alike(run(lambda x: infonce(x, LABELS), ROWS), run(lambda x: plain(x, LABELS), ROWS))
    debiased, hard = nf.DebiasedContrastiveLoss(0.4, 0.15), nf.HardNegativeContrastiveLoss(0.4, 0.15, 0.0)
    alike(run(lambda x: hard(x, LABELS), ROWS), run(lambda x: debiased(x, LABELS), ROWS))


# ------------------------------------------------------------ the authors' formulas, in exponentials


def corrected(beta, prior, temperature):
    """Chuang's and Robinson's estimator for two views, as their code has it."""

    def form(a, b):
        x, n = unit(torch.cat([a, b])), len(a)
        e = torch.exp(x @ x.T / temperature)
        place = torch.arange(2 * n)
        positive = e[place, (place + n) % (2 * n)]
        negative = e[(place[:, None] - place) % n != 0].reshape(2 * n, -1)
        count, weight = 2 * n - 2, negative**beta
        rest = (weight * negative).sum(1) / weight.mean(1)
        rest = ((rest - prior * count * positive) / (1 - prior)).clamp(min=count * math.exp(-1 / temperature))
        return -torch.log(positive / (positive + rest)).mean()

    return form


@pytest.mark.parametrize(("temperature", "prior"), [(0.5, 0.1), (0.3, 0.6), (1.0, 0.0)])
def test_debiased_and_hard_negatives_are_their_authors_code(temperature, prior):
    z = ROWS[:8], ROWS[8:16]
    ours = nf.DebiasedContrastiveLoss(temperature, prior)
    alike(run(ours.views, *z), run(corrected(0.0, prior, temperature), *z))
    for beta in (0.5, 1.0, 2.0):
        ours = nf.HardNegativeContrastiveLoss(temperature, prior, beta)
        alike(run(ours.views, *z), run(corrected(beta, prior, temperature), *z))


@pytest.mark.parametrize(("turn", "prior"), [(-0.2, 0.4), (-0.1, 0.1)], ids=["negative", "small"])
def test_the_floor_of_the_estimator_is_reached(turn, prior):
    """Positives so near and negatives so far that the estimate is too small: N e^(−1/τ) instead, without gradient."""
    x = torch.tensor([[1.0, 0.02], [1.0, 0.0], [turn, 1.0], [turn - 0.01, 1.0]], dtype=torch.float64)
    loss = nf.DebiasedContrastiveLoss(0.5, prior)
    value = loss(x, [0, 0, 1, 1])
    s = unit(x) @ unit(x).T / 0.5
    expected = [torch.nn.functional.softplus(math.log(2) - 2 - s[i, i ^ 1]).item() for i in range(4)]
    assert value.item() == pytest.approx(np.mean(expected), rel=1e-12)
    alike(run(lambda a: loss(a, [0, 0, 1, 1]), x), run(lambda a: corrected_pairs(a, 0.5), x))


def corrected_pairs(x, temperature):
    s = unit(x) @ unit(x).T / temperature
    own = torch.stack([s[i, i ^ 1] for i in range(4)])
    return torch.nn.functional.softplus(math.log(2) - 1 / temperature - own).mean()


def dcl(a, b, temperature, sigma=None):
    x, n = unit(torch.cat([a, b])), len(a)
    s = x @ x.T
    place = torch.arange(2 * n)
    positive = s[place, (place + n) % (2 * n)]
    negative = s[(place[:, None] - place) % n != 0].reshape(2 * n, -1) / temperature
    weight = 1.0 if sigma is None else 2 - 2 * n * torch.softmax(positive.detach() / sigma, 0)
    return (torch.logsumexp(negative, 1) - weight * positive / temperature).mean()


@pytest.mark.parametrize("sigma", [None, 0.5, 0.2])
def test_decoupled_and_its_weights(sigma):
    z = ROWS[:8], ROWS[8:16]
    ours = nf.DecoupledContrastiveLoss(0.2, sigma=sigma)
    alike(run(ours.views, *z), run(lambda a, b: dcl(a, b, 0.2, sigma), *z))
    assert float(ours.views(*(v.numpy() for v in z))) == pytest.approx(ours.views(*z).item(), rel=1e-12)


def test_decoupled_weights_need_two_views():
    loss = nf.DecoupledContrastiveLoss(sigma=0.5)
    with pytest.raises(nf.InputError, match="views"):
        loss(ROWS, LABELS)
    with pytest.raises(nf.ShapeError, match="two views"):
        loss.views(ROWS, ROWS, ROWS)
    with pytest.raises(nf.InputError, match="group"):
        loss.views(ROWS, ROWS, group=object())


def test_one_versus_one_is_the_sum_over_pairs():
    def form(a, b):
        s = a @ b.T
        odds = s - torch.diagonal(s)[:, None]
        return (torch.nn.functional.softplus(odds) * (1 - torch.eye(9))).sum(1).mean()

    alike(run(nf.NPairLoss(one_versus_one=True).aligned, QUERIES, DOCUMENTS), run(form, QUERIES, DOCUMENTS))


# ------------------------------------------------------------ multiple negatives ranking

Q, D, DQ, DD = "query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"
CHOICES = [(Q,), (Q, D), (Q, DQ), (Q, D, DQ), (Q, DQ, DD), (Q, D, DQ, DD)]


def joint(directions, temperature):
    """sentence-transformers' joint partition: one softmax over the chosen tables, the positive in two of them."""

    def form(queries, documents, *runs):
        q, own = unit(queries), unit(documents)
        docs = [own, *(unit(r) for run in runs for r in ([run] if run.ndim == 2 else run.unbind(1)))]
        everyone, eye = torch.cat(docs), torch.eye(len(q), dtype=torch.bool)
        tables = {
            Q: q @ everyone.T,
            D: (q @ q.T).masked_fill(eye, -math.inf),
            DQ: own @ q.T,
            DD: (own @ everyone.T).masked_fill(eye.repeat(1, len(docs)), -math.inf),
        }
        z = torch.cat([tables[name] for name in directions], 1) / temperature
        return (torch.logsumexp(z, 1) - torch.diagonal(tables[Q]) / temperature).mean()

    return form


@pytest.mark.parametrize("directions", CHOICES, ids="+".join)
@pytest.mark.parametrize("runs", [(), (HARD,), (HARD_TOO,)], ids=["pairs", "triplets", "two hard negatives"])
def test_joint_softmax_of_all_directions(directions, runs):
    loss = nf.MultipleNegativesRankingLoss(0.2, directions)
    given = (QUERIES, DOCUMENTS, *runs)
    theirs = run(joint(directions, 0.2), *given)
    alike(run(loss.aligned, *given), theirs)
    for engine in (Strips(1), Strips(4), "dense"):
        alike(run(lambda *v, e=engine: loss.aligned(*v, engine=e), *given), theirs)
    arrays = [v.numpy() for v in given]
    assert float(loss.aligned(*arrays)) == pytest.approx(theirs[0], rel=1e-12)


def test_a_softmax_for_each_direction_is_clip():
    def form(a, b):
        z = unit(a) @ unit(b).T / 0.2
        place = torch.arange(len(a))
        return (torch.nn.functional.cross_entropy(z, place) + torch.nn.functional.cross_entropy(z.T, place)) / 2

    alike(run(nf.InfoNCELoss(0.2).aligned, QUERIES, DOCUMENTS), run(form, QUERIES, DOCUMENTS))


def test_mnrl_is_cross_entropy():
    """TensorFlow Similarity's MultiNegativesRankLoss adds 1 to the denominator."""
    z = (unit(QUERIES) @ unit(DOCUMENTS).T * 20).requires_grad_()
    expected = torch.nn.functional.cross_entropy(z, torch.arange(9)).item()
    assert nf.MultipleNegativesRankingLoss().aligned(QUERIES, DOCUMENTS).item() == pytest.approx(expected, rel=1e-12)


def test_targets_after_gather():
    """Hard negatives stand behind the documents, and each query's target stays its own document."""
    loss, far = nf.MultipleNegativesRankingLoss(0.05), -unit(QUERIES)
    assert loss.aligned(QUERIES, QUERIES, far).item() < loss.aligned(QUERIES, far, QUERIES).item() - 10


def test_mnrl_refuses_what_does_not_fit():
    with pytest.raises(nf.InputError, match="directions"):
        nf.MultipleNegativesRankingLoss(directions=(DQ,))
    with pytest.raises(nf.InputError, match="doc_to_query"):
        nf.MultipleNegativesRankingLoss(directions=(Q, DD))
    with pytest.raises(nf.ShapeError, match="negatives of 9 queries"):
        nf.MultipleNegativesRankingLoss().aligned(QUERIES, DOCUMENTS, HARD[:4])


@pytest.mark.parametrize("count", [0, 1])
def test_mnrl_without_negatives(count):
    for directions in CHOICES:
        loss = nf.MultipleNegativesRankingLoss(directions=directions)
        q, d = (v[:count].clone().requires_grad_() for v in (QUERIES, DOCUMENTS))
        value = loss.aligned(q, d)
        value.backward()
        assert value.item() == 0
        assert not q.grad.any()


# ------------------------------------------------------------ Guided


def guided_form(keep, temperature):
    """InfoNCE over a mask of negatives."""

    def form(x, y):
        z = unit(x) @ unit(y).T / temperature
        return (torch.logsumexp(z.masked_fill(~keep, -math.inf), 1) - torch.diagonal(z)).mean()

    return form


@pytest.mark.parametrize(("margin", "relative"), [(0.0, False), (0.15, False), (-0.1, False), (0.2, True)])
def test_guided_masks_as_gist_does(margin, relative):
    """A relative margin is a share of the size: sentence-transformers 6.2, before it (1 − m) times the similarity."""
    guide, others = unit(torch.tensor(RNG.normal(size=(9, 3)))), unit(torch.tensor(RNG.normal(size=(9, 3))))
    g = guide @ others.T
    own = torch.diagonal(g)[:, None]
    keep = g <= own - margin * (own.abs() if relative else 1)
    assert 0 < (own < 0).sum() < 9
    keep |= torch.eye(9, dtype=torch.bool)
    assert 9 < keep.sum() < 81
    alone = keep.sum(1) > 1
    relation = nf.Guided(nf.Aligned(), 3 * guide, others, margin=margin, relative=relative)
    loss = nf.InfoNCELoss(0.2)

    def ours(x, y):
        return loss(x, relation, references=y)

    def theirs(x, y):  # an anchor without a negative left is 0 there, and counts for nothing here
        return guided_form(keep, 0.2)(x, y) * 9 / alone.sum()

    alike(run(ours, QUERIES, DOCUMENTS), run(theirs, QUERIES, DOCUMENTS))
    for engine in (Strips(1), Strips(4)):
        value = loss(QUERIES, relation, references=DOCUMENTS, engine=engine)
        assert value.item() == pytest.approx(ours(QUERIES, DOCUMENTS).item(), rel=1e-13)


def guided_mask(guide, labels):
    g = unit(guide) @ unit(guide).T
    same = (labels[:, None] == labels) & ~torch.eye(len(labels), dtype=torch.bool)
    least = (g * same).sum(1, keepdim=True) / same.sum(1, keepdim=True).clamp(min=1)
    return same, (labels[:, None] != labels) & ((g <= least) | (same.sum(1, keepdim=True) == 0))


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize(
    "loss",
    [nf.SupConLoss(0.3), nf.TripletLoss(0.4), nf.ContrastiveLoss(4.0, balanced=True), nf.MultiSimilarityLoss()],
    ids=lambda v: type(v).__name__,
)
def test_guided_labels_are_a_mask(loss, framework):
    """Any loss: the mean similarity of several positives is the threshold; totals are those of what stays."""
    labels, guide = LABELS.clone(), torch.tensor(RNG.normal(size=(20, 4)))
    labels[3] = 77  # alone: nothing of it is left out
    mask = nf.Mask(*guided_mask(guide, labels))
    expected, gradient = loss.value_and_grad(ROWS, mask)
    assert float(loss(ROWS, labels)) != pytest.approx(float(expected), rel=1e-4)
    x, guide, labels = (v.numpy() if framework == "numpy" else v for v in (ROWS, guide, labels))
    for engine in ("auto", Strips(3)):
        value, ours = loss.value_and_grad(x, nf.Guided(nf.Labels(labels), guide), engine=engine)
        assert float(value) == pytest.approx(float(expected), rel=1e-12)
        np.testing.assert_allclose(ours, gradient, rtol=1e-10, atol=1e-13)


def test_guided_keeps_to_ignored_labels():
    guide = torch.tensor(RNG.normal(size=(20, 4)))
    kept = LABELS != 2
    relation = nf.Guided(nf.Labels(LABELS, ignore=2), guide)
    value = nf.SupConLoss()(ROWS, relation)
    expected = nf.SupConLoss()(ROWS[kept], nf.Guided(nf.Labels(LABELS[kept]), guide[kept]))
    assert value.item() == pytest.approx(expected.item(), rel=1e-14)


def test_guided_refuses_what_does_not_fit():
    with pytest.raises(nf.InputError, match="margin"):
        nf.Guided(nf.Labels(LABELS), ROWS, margin=math.nan)
    with pytest.raises(nf.InputError, match="reference_guide"):
        nf.SupConLoss()(QUERIES, nf.Guided(nf.Aligned(), QUERIES), references=DOCUMENTS)
    with pytest.raises(nf.ShapeError, match="guide of 20 rows"):
        nf.SupConLoss()(ROWS, nf.Guided(nf.Labels(LABELS), QUERIES))


# ------------------------------------------------------------ pytorch-metric-learning


def test_equal_to_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    for ours, theirs in (
        (nf.SupConLoss(0.2), losses.SupConLoss(0.2)),
        (nf.SoftNearestNeighborLoss(0.5), losses.NCALoss(2.0)),
    ):
        alike(run(lambda x, f=ours: f(unit(x), LABELS), ROWS), run(lambda x, f=theirs: f(x, LABELS), ROWS), rel=1e-6)


def test_ntxent_of_pytorch_metric_learning_is_weighed_by_positives():
    """Their mean is over pairs, so that an anchor counts as often as it has positives; ours is over anchors."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    count = (LABELS[:, None] == LABELS).sum(1) - 1.0
    loss = nf.SupConLoss(0.2, denominator="one")

    def ours(x):
        return (loss.per_anchor(x, LABELS) * count).sum() / count.sum()

    alike(run(ours, ROWS), run(lambda x: losses.NTXentLoss(0.2)(x, LABELS), ROWS), rel=1e-6)


def test_one_pos_one_neg_not_zero():
    """pytorch-metric-learning's SupCon and NT-Xent return 0 for one positive and one negative pair."""
    x, labels = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]), [0, 0, 1]
    for loss in (nf.SupConLoss(form="in"), nf.SupConLoss(denominator="one"), nf.HardNegativeContrastiveLoss()):
        assert loss(x, labels).item() > 0.1


def test_lonely_anchor_finite():
    """0 / 0 in SetFit and BioEncoder: an anchor without a positive, in every form."""
    labels = torch.cat([LABELS[:-1], torch.tensor([99])])
    for form in ("out", "in"):
        for denominator in ("all", "one", "negatives"):
            value, gradient = nf.SupConLoss(form=form, denominator=denominator).value_and_grad(ROWS, labels)
            assert torch.isfinite(value)
            assert torch.isfinite(gradient).all()


def test_one_view_normalisation():
    """google's one-view branch divides by the number of positives twice: here one view is the batch, divided once."""
    one = nf.SupConLoss(0.2)(ROWS, LABELS)
    s = (unit(ROWS) @ unit(ROWS).T / 0.2).masked_fill(torch.eye(20, dtype=torch.bool), -math.inf)
    same = (LABELS[:, None] == LABELS) & ~torch.eye(20, dtype=torch.bool)
    logs = s - torch.logsumexp(s, 1, keepdim=True)
    expected = -(logs.masked_fill(~same, 0.0).sum(1) / same.sum(1)).mean()
    assert one.item() == pytest.approx(expected.item(), rel=1e-12)
