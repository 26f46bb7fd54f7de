"""Logistic losses beside their papers' formulas: binomial deviance, noise-contrastive estimation, negative sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nearfar as nf

RNG = np.random.default_rng(37)
LABELS = torch.tensor(np.repeat(np.arange(5), (2, 3, 4, 5, 6))[RNG.permutation(20)])
ROWS = torch.tensor(RNG.normal(size=(20, 6)) + 0.8 * RNG.normal(size=(5, 6))[LABELS])
WORDS, CONTEXTS = torch.tensor(RNG.normal(size=(2, 7, 4)))
DRAWN = torch.tensor(RNG.normal(size=(7, 5, 4)))


def run(form, *arrays):
    leaves = [a.clone().requires_grad_() for a in arrays]
    value = form(*leaves)
    return value.item(), torch.autograd.grad(value, leaves)


def alike(ours, theirs, rel=1e-11):
    assert ours[0] == pytest.approx(theirs[0], rel=rel)
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert b.abs().max() > 1e-6
        assert (a - b).abs().max() <= rel * b.abs().max()


# ------------------------------------------------------------ binomial deviance


def deviance(x, labels, alpha, base, cost):
    """Yi's matrices: ln(exp(−α (S − β) ∘ M) + 1) ∘ W with M = 1, −c and W one over the number of pairs of each side."""
    unit = torch.nn.functional.normalize(x)
    same = labels[:, None] == labels
    signs = torch.where(same, 1.0, -cost)
    counts = (same.sum() - len(x)).item(), (~same).sum().item()
    weights = torch.where(same, 1 / counts[0], torch.tensor(1 / counts[1], dtype=x.dtype)) * (1 - torch.eye(len(x)))
    return (weights * torch.log1p(torch.exp(-alpha * (unit @ unit.T - base) * signs))).sum()


@pytest.mark.parametrize("setting", [(2.0, 0.5, 2.0), (3.0, 0.1, 0.5), (1.0, -0.2, 25.0)])
def test_deviance_is_the_paper_s_matrix_form(setting):
    loss = nf.BinomialDevianceLoss(*setting)
    alike(run(lambda x: loss(x, LABELS), ROWS), run(lambda x: deviance(x, LABELS, *setting), ROWS))


def test_deviance_by_anchor_is_the_mean_of_two_means():
    """Wang 2019's form, one row at a time; an anchor without a positive has its negatives only."""
    labels = LABELS.clone()
    labels[4] = 77

    def form(x):
        s = torch.nn.functional.normalize(x)
        s, rows = s @ s.T, []
        for i in range(20):
            p = [j for j in range(20) if labels[j] == labels[i] and j != i]
            n = [j for j in range(20) if labels[j] != labels[i]]
            rows.append(torch.log1p(torch.exp(2 * 3 * (s[i, n] - 0.4))).mean())
            if p:
                rows[-1] = rows[-1] + torch.log1p(torch.exp(-2 * (s[i, p] - 0.4))).mean()
        return torch.stack(rows).mean()

    loss = nf.BinomialDevianceLoss(2.0, 0.4, 3.0, by_anchor=True)
    alike(run(lambda x: loss(x, labels), ROWS), run(form, ROWS))


def test_weightings_agree_where_every_anchor_has_as_many_pairs():
    labels = np.repeat(np.arange(5), 4)
    by_table, by_anchor = (nf.BinomialDevianceLoss(by_anchor=b) for b in (False, True))
    alike(run(lambda x: by_table(x, labels), ROWS), run(lambda x: by_anchor(x, labels), ROWS))
    assert by_table(ROWS, LABELS).item() != pytest.approx(by_anchor(ROWS, LABELS).item(), rel=1e-3)


def test_deviance_of_many_items_on_half_tiles():
    """Above the size of half tiles: the loss of the whole table at once."""
    x = np.random.default_rng(3).normal(size=(1100, 5))
    y = np.arange(1100) % 90
    loss = nf.BinomialDevianceLoss()
    value, gradient = loss.value_and_grad(x, y)
    expected, theirs = loss.value_and_grad(x, y, engine="dense")
    assert float(value) == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_allclose(gradient, theirs, rtol=1e-9, atol=1e-14)


def test_online_contrastive_1p1n():
    """One positive and one negative pair: each side's own term, not 0."""
    value = nf.BinomialDevianceLoss(cost=1.0).similarities(np.array([0.5, 0.5]), [1, 0])
    assert float(value) == pytest.approx(2 * math.log(2), rel=1e-14)


def test_deviance_refuses_what_cannot_be():
    for bad in ({"alpha": 0.0}, {"cost": -1.0}, {"base": math.inf}):
        with pytest.raises(nf.InputError, match=next(iter(bad))):
            nf.BinomialDevianceLoss(**bad)


# ------------------------------------------------------------ noise-contrastive estimation


def scores(words, contexts, drawn):
    rows = torch.cat([contexts[:, None], drawn], 1)
    return (words[:, None] * rows).sum(-1)


def test_negative_sampling_is_mikolov_s_sum():
    def form(*given):
        s = scores(*given)
        log_sigmoid = torch.nn.functional.logsigmoid
        return -(log_sigmoid(s[:, 0]) + log_sigmoid(-s[:, 1:]).sum(1)).mean()

    alike(run(nf.NoiseContrastiveLoss().samples, WORDS, CONTEXTS, DRAWN), run(form, WORDS, CONTEXTS, DRAWN))


@pytest.mark.parametrize("listed", [False, True])
def test_noise_contrastive_estimation_is_a_posterior(listed):
    """P(data | w) = e^s / (e^s + k q(w)): minus its log for the true context, and of the rest for the drawn ones."""
    chance = torch.tensor(RNG.uniform(0.01, 0.9, size=(7, 6)))

    def form(*given):
        data = torch.exp(scores(*given))
        posterior = data / (data + 5 * chance)
        return -(torch.log(posterior[:, 0]) + torch.log(1 - posterior[:, 1:]).sum(1)).mean()

    noise = torch.log(chance).tolist() if listed else torch.log(chance)
    loss = nf.NoiseContrastiveLoss()
    given = (WORDS, CONTEXTS, DRAWN)
    alike(run(lambda *v: loss.samples(*v, noise=noise), *given), run(form, *given), rel=1e-10)


def test_negative_sampling_is_noise_of_one_draw_expected():
    loss, noise = nf.NoiseContrastiveLoss(), np.full((7, 6), -math.log(5))
    arrays = [v.numpy() for v in (WORDS, CONTEXTS, DRAWN)]
    assert float(loss.samples(*arrays, noise=noise)) == pytest.approx(float(loss.samples(*arrays)), rel=1e-14)


def test_self_normalising():
    """Gutmann's point: with the true log-ratio for a score the loss is least, here on one context of two outcomes."""
    data, chance = np.array([0.7, 0.3]), np.array([0.4, 0.6])
    loss = nf.NoiseContrastiveLoss()

    def expected(score):
        total = 0.0
        for positive in (0, 1):
            for drawn in (0, 1):
                rows = [np.array([[score[k]]]) for k in (positive, drawn)]
                noise = np.log(chance[[positive, drawn]])[None]
                value = loss.samples(np.ones((1, 1)), rows[0], rows[1][:, None], noise=noise)
                total += data[positive] * chance[drawn] * float(value)
        return total

    best = expected(np.log(data))
    for step in ([0.01, 0.0], [0.0, 0.01], [-0.01, 0.0], [0.01, 0.01], [-0.01, -0.01]):
        assert expected(np.log(data) + step) > best


def test_without_draws_and_without_items():
    loss = nf.NoiseContrastiveLoss()
    one = loss.samples(WORDS, CONTEXTS, DRAWN[:, :0])
    expected = torch.nn.functional.softplus(-(WORDS * CONTEXTS).sum(1)).mean()
    assert one.item() == pytest.approx(expected.item(), rel=1e-13)
    assert loss.samples(WORDS[:0], CONTEXTS[:0], DRAWN[:0]).item() == 0


def test_samples_refuse_what_does_not_fit():
    loss = nf.NoiseContrastiveLoss()
    with pytest.raises(nf.ShapeError, match="its own draws"):
        loss.samples(WORDS, CONTEXTS, DRAWN[:4])
    with pytest.raises(nf.ShapeError, match="its own draws"):
        loss.samples(WORDS, CONTEXTS, DRAWN[0])
    with pytest.raises(nf.ShapeError, match="noise of shape"):
        loss.samples(WORDS, CONTEXTS, DRAWN, noise=np.zeros((7, 5)))
    with pytest.raises(nf.ShapeError, match="expected anchor of shape"):
        loss.samples(WORDS[0], CONTEXTS[0], DRAWN[0])


def test_saturated_scores():
    """Scores of ±1000 cost what they say, in float32 as well."""
    one = np.ones((1, 1), dtype=np.float32)
    value = nf.NoiseContrastiveLoss().samples(one, -1000 * one, 1000 * one[:, None])
    assert float(value) == 2000
