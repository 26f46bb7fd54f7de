"""The pictures of forces: from the loss's own gradient, for every loss that compares pairs."""

import re
from pathlib import Path

import numpy as np
import pytest
from benchmarks.gallery import pictured

import nearfar as nf

DOCS = Path(__file__).parents[1] / "docs"


def test_contrastive_forces_are_the_papers():
    """½d² pulls with d, ½(m − d)² pushes with m − d; the mean over the two pairs halves both."""
    found = nf.plot.probe(nf.ContrastiveLoss(margin=1.5))
    np.testing.assert_allclose(found.positive, -found.distance / 2, atol=1e-12)
    np.testing.assert_allclose(found.negative, np.maximum(1.5 - found.distance, 0) / 2, atol=1e-12)


@pytest.mark.parametrize("measure", [nf.Cosine(), nf.Dot()])
def test_n_pair_forces_on_the_sphere(measure):
    """s = 1 − d²/2 along the circle: the force is the missing probability times d."""
    found = nf.plot.probe(nf.NPairLoss(measure=measure), fixed=0.7)
    s, other = 1 - found.distance**2 / 2, 1 - 0.7**2 / 2
    np.testing.assert_allclose(found.positive, -found.distance / (1 + np.exp(s - other)), rtol=1e-9)
    np.testing.assert_allclose(found.negative, found.distance / (1 + np.exp(other - s)), rtol=1e-9)


@pytest.mark.parametrize(
    "name", [pytest.param(v, marks=pytest.mark.slow if k % 4 else ()) for k, v in enumerate(pictured())]
)
def test_forces_of_every_loss(name):
    """One in four in make test."""
    found = nf.plot.probe(getattr(nf, name)())
    assert np.isfinite(found.positive).all()
    assert np.isfinite(found.negative).all()
    assert np.abs(found.positive).max() + np.abs(found.negative).max() > 0


@pytest.mark.parametrize("name", pictured())
def test_every_loss_has_a_picture_of_forces(name):
    assert (DOCS / "forces" / f"{name}.svg").exists(), "python -m benchmarks.gallery"
    assert f"forces/{name}.svg" in (DOCS / "gallery.md").read_text()


def test_gallery_shows_no_loss_that_is_gone():
    shown = set(re.findall(r"^## (\w+)$", (DOCS / "gallery.md").read_text(), re.M))
    assert shown == set(pictured())


def test_draws_on_given_axes():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    _, axes = pyplot.subplots()
    assert nf.plot.forces(nf.SupConLoss(), ax=axes) is axes
    pyplot.close("all")


@pytest.mark.parametrize("fixed", [0.0, 2.0, -1.0])
def test_a_place_without_a_direction_is_refused(fixed):
    with pytest.raises(nf.InputError, match="between 0 and 2"):
        nf.plot.probe(nf.SupConLoss(), fixed=fixed)


def test_what_compares_no_pairs_is_refused():
    with pytest.raises(nf.InputError, match="have no distance"):
        nf.plot.probe(object())
