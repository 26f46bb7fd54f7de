"""Other libraries as installed, in float32, through nearfar.conventions: one number to a relative 1e-6.

Where a library differs, its case says in what. Gradients, other settings and uneven classes: test_peers*.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar import conventions

# Four classes of four, in runs: pytorch-metric-learning's Smooth-AP takes runs of as many rows as there are classes.
Y = np.repeat(np.arange(4), 4)
RNG = np.random.default_rng(61)
ROWS = (RNG.normal(size=(4, 8))[Y] + 0.9 * RNG.normal(size=(16, 8))).astype(np.float32)
OTHERS = (ROWS + 0.7 * RNG.normal(size=(16, 8))).astype(np.float32)
WEIGHTS = RNG.normal(size=(4, 8)).astype(np.float32)
CENTRES = RNG.normal(size=(12, 8)).astype(np.float32)
SCORES = RNG.normal(size=(16, 5)).astype(np.float32)
SIGNS = np.where(RNG.uniform(size=16) < 0.5, 1, -1)
X, Z, LABELS = torch.tensor(ROWS), torch.tensor(OTHERS), torch.tensor(Y)


def unit(x):
    return torch.nn.functional.normalize(x)


def equal(ours, theirs, rel=1e-6):
    assert torch.as_tensor(ours).dtype == torch.float32
    assert abs(float(theirs)) > 1e-3
    assert float(ours) == pytest.approx(float(theirs), rel=rel)


# ------------------------------------------------------------ pytorch-metric-learning

LIKE = (Y[:, None] == Y) & ~np.eye(16, dtype=bool)
UNLIKE = Y[:, None] != Y


def margin_by_triplets(x):
    """It sums over triplets, in which every pair stands three or twelve times."""
    weights = nf.Mask(LIKE * UNLIKE.sum(1, keepdims=True), UNLIKE * LIKE.sum(1, keepdims=True))
    return conventions.pytorch_metric_learning_margin()(unit(x), weights)


def first_of_each_class(x):
    return conventions.pytorch_metric_learning_npairs().aligned(x[::4], x[1::4])


def given(loss):
    return lambda x: loss(unit(x), LABELS)


PML = {
    "contrastive": (given(conventions.pytorch_metric_learning_contrastive()), "ContrastiveLoss", {}),
    "margin": (margin_by_triplets, "MarginLoss", {}),
    "triplet": (given(conventions.pytorch_metric_learning_triplet()), "TripletMarginLoss", {}),
    "triplet, other": (given(conventions.pytorch_metric_learning_triplet(0.3)), "TripletMarginLoss", {"margin": 0.3}),
    "NT-Xent": (given(conventions.pytorch_metric_learning_ntxent()), "NTXentLoss", {}),
    "SupCon": (given(conventions.pytorch_metric_learning_supcon()), "SupConLoss", {}),
    "NCA": (given(conventions.pytorch_metric_learning_nca(2.0)), "NCALoss", {"softmax_scale": 2}),
    "N-pairs": (first_of_each_class, "NPairsLoss", {}),
    "tuplet margin": (given(conventions.pytorch_metric_learning_tuplet_margin()), "TupletMarginLoss", {}),
    "lifted": (given(conventions.pytorch_metric_learning_lifted_structure()), "LiftedStructureLoss", {}),
    "generalised lifted": (
        given(conventions.pytorch_metric_learning_generalized_lifted_structure()), "GeneralizedLiftedStructureLoss", {}
    ),
    "circle": (given(conventions.pytorch_metric_learning_circle()), "CircleLoss", {}),
    "multi-similarity": (given(conventions.pytorch_metric_learning_multi_similarity()), "MultiSimilarityLoss", {}),
    "FastAP": (given(conventions.pytorch_metric_learning_fast_ap()), "FastAPLoss", {}),
    "histogram": (given(conventions.pytorch_metric_learning_histogram()), "HistogramLoss", {"n_bins": 100}),
    "PNP": (
        lambda x: conventions.pytorch_metric_learning_pnp(anneal=0.1)(x, LABELS, references=x, reference_labels=LABELS),
        "PNPLoss", {"anneal": 0.1},
    ),
    "Smooth-AP": (
        lambda x: conventions.pytorch_metric_learning_smooth_ap(0.1)(x, LABELS, references=x, reference_labels=LABELS),
        "SmoothAPLoss", {"temperature": 0.1},
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # theirs, of its histogram
@pytest.mark.parametrize(("ours", "name", "options"), PML.values(), ids=PML)
def test_pytorch_metric_learning(ours, name, options):
    theirs = getattr(pytest.importorskip("pytorch_metric_learning.losses"), name)(**options)
    equal(ours(X), theirs(X, LABELS))


def test_smooth_triplets():
    """Its mean is over triplets above 0, all of them."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    ours = conventions.pytorch_metric_learning_triplet(smooth=True)
    equal(ours(unit(X), LABELS), losses.TripletMarginLoss(smooth_loss=True)(X, LABELS))


def test_angular():
    """It leaves the negatives as they are, ours takes unit rows of all: on unit rows."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    equal(conventions.pytorch_metric_learning_angular()(X, LABELS), losses.AngularLoss()(unit(X), LABELS))


def test_ranked_list():
    """It adds 1e-5 for every item to the sum of an anchor's weights, which are at least 1 each."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    ours = conventions.pytorch_metric_learning_ranked_list(0.4, 4.0)(unit(X), LABELS)
    equal(ours, losses.RankedListLoss(0.4, 4.0)(X, LABELS), rel=2e-4)


def test_vicreg():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    equal(conventions.pytorch_metric_learning_vicreg()(X, Z), losses.VICRegLoss()(X, ref_emb=Z))


PML_WEIGHTS = {
    "normalised softmax": (conventions.pytorch_metric_learning_normalized_softmax(), "NormalizedSoftmaxLoss", {}),
    "ArcFace": (conventions.pytorch_metric_learning_arcface(), "ArcFaceLoss", {}),
    "sub-centre": (conventions.pytorch_metric_learning_sub_center_arcface(), "SubCenterArcFaceLoss", {}),
    "CosFace": (conventions.pytorch_metric_learning_cosface(), "CosFaceLoss", {}),
    "SphereFace": (conventions.pytorch_metric_learning_sphereface(), "SphereFaceLoss", {}),
    "SoftTriple": (conventions.pytorch_metric_learning_soft_triple(3), "SoftTripleLoss", {"centers_per_class": 3}),
    "ProxyNCA": (conventions.pytorch_metric_learning_proxy_nca(), "ProxyNCALoss", {}),
    "ProxyAnchor": (conventions.pytorch_metric_learning_proxy_anchor(), "ProxyAnchorLoss", {}),
}


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # theirs, with NumPy 2
@pytest.mark.parametrize(("ours", "name", "options"), PML_WEIGHTS.values(), ids=PML_WEIGHTS)
def test_class_weights_of_pytorch_metric_learning(ours, name, options):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    theirs = getattr(losses, name)(num_classes=4, embedding_size=8, **options)
    w = torch.tensor(CENTRES if hasattr(ours, "per_class") else WEIGHTS)
    held = next(name for name in ("W", "fc", "proxies") if hasattr(theirs, name))
    with torch.no_grad():
        getattr(theirs, held).copy_(w if held == "proxies" else w.T)
    x = unit(X) if name == "SphereFaceLoss" else X  # its scale is the norm
    equal(ours(x, LABELS, class_weights=w), theirs(x, LABELS).detach())


# ------------------------------------------------------------ PyTorch, open_clip


def test_triplets_of_torch():
    """With its eps of 0; its default of 1e-6 on each difference is that much on the anchor."""
    a, p, n = X[:5], X[5:10], Z[:5]
    ours = conventions.torch_triplet_margin(2.0)
    equal(ours.triplets(a, p, n), torch.nn.TripletMarginLoss(2.0, eps=0.0)(a, p, n))
    equal(ours.triplets(a + 1e-6, p, n), torch.nn.TripletMarginLoss(2.0)(a, p, n))
    swapped = conventions.torch_triplet_margin(2.0, swap=True)
    equal(swapped.triplets(a, p, n), torch.nn.TripletMarginLoss(2.0, eps=0.0, swap=True)(a, p, n))
    for swap in (False, True):
        ours = conventions.torch_triplet_margin(2.0, swap, p=1)
        equal(ours.triplets(a, p, n), torch.nn.TripletMarginLoss(2.0, p=1, eps=0.0, swap=swap)(a, p, n))
        ours = conventions.torch_triplet_margin_with_distance(0.5, swap, nf.CosineDistance())
        theirs = torch.nn.TripletMarginWithDistanceLoss(
            distance_function=lambda u, v: 1 - torch.nn.functional.cosine_similarity(u, v), margin=0.5, swap=swap
        )
        equal(ours.triplets(a, p, n), theirs(a, p, n), rel=2e-6)


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_pairs_of_torch(margin):
    """Cosine embedding adds a tiny number under its root; labels are 1 and −1 there."""
    signs, same = torch.tensor(SIGNS), SIGNS > 0
    ours = conventions.torch_cosine_embedding(margin).pairs(X, Z, same)
    equal(ours, torch.nn.CosineEmbeddingLoss(margin)(X, Z, signs))
    d = (X - Z).norm(dim=1)
    equal(
        conventions.torch_hinge_embedding(3 + margin).distances(d, same),
        torch.nn.HingeEmbeddingLoss(3 + margin)(d, signs),
    )


def test_cross_entropies_of_torch():
    s, classes = torch.tensor(SCORES), torch.tensor(np.arange(16) % 5)
    equal(conventions.torch_cross_entropy()(s, classes), torch.nn.functional.cross_entropy(s, classes))
    answers = torch.tensor(SIGNS > 0)
    ours = conventions.torch_binary_cross_entropy().similarities(s[:, 0], answers)
    equal(ours, torch.nn.BCEWithLogitsLoss()(s[:, 0], answers.float()))
    equal(ours, torch.nn.SoftMarginLoss()(s[:, 0], torch.tensor(SIGNS)))


def test_options_of_torch_cross_entropy():
    """An ignored label is named; class weights and label smoothing are sums of ours."""
    s, y = torch.tensor(SCORES), torch.tensor(np.arange(16) % 5)
    loss, theirs = conventions.torch_cross_entropy(), torch.nn.functional.cross_entropy
    some = torch.where(torch.arange(16) % 3 == 0, -100, y)
    equal(loss(s, some, ignore_label=-100), theirs(s, some))
    w = torch.tensor([0.2, 1.0, 3.0, 0.7, 1.4])
    equal((loss.per_anchor(s, y) * w[y]).sum() / w[y].sum(), theirs(s, y, weight=w))
    each = sum(loss(s, torch.full_like(y, c)) for c in range(5))
    equal(0.7 * loss(s, y) + 0.3 / 5 * each, theirs(s, y, label_smoothing=0.3))


def test_open_clip():
    """From its file alone: the package imports torchvision."""
    package = importlib.util.find_spec("open_clip")
    if package is None:
        pytest.skip("open_clip is not installed")
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(package.origin).parent / "loss.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scale, bias = torch.tensor(9.0), torch.tensor(-7.0)
    images, texts = unit(X), unit(Z)
    equal(conventions.open_clip_clip(9.0).aligned(X, Z), module.ClipLoss()(images, texts, scale))
    equal(conventions.open_clip_siglip(9.0, -7.0).aligned(X, Z), module.SigLipLoss()(images, texts, scale, bias))


# ------------------------------------------------------------ scikit-learn


def test_nca_of_scikit_learn():
    """The objective Σ p, in float64 there, of an identity map."""
    nca = pytest.importorskip("sklearn.neighbors").NeighborhoodComponentsAnalysis()
    nca.n_iter_, nca.random_state_ = 0, np.random.RandomState(0)
    value, _ = nca._loss_grad_lbfgs(np.eye(8), ROWS.astype(float), Y[:, None] == Y, 1.0)
    equal(16 * (1 - conventions.scikit_learn_nca()(X, LABELS)), value)


# ------------------------------------------------------------ optax


def test_optax():
    optax = pytest.importorskip("optax")
    equal(conventions.optax_ntxent()(X, LABELS), optax.losses.ntxent(ROWS, Y))
    a, p, n = ROWS[:5], ROWS[5:10], OTHERS[:5]
    ours = conventions.optax_triplet_margin(2.0)
    equal(ours.triplets(a, p, n), optax.losses.triplet_margin_loss(a, p, n, margin=2.0, eps=0.0).mean())
    # Its default adds 1e-6 under the root: a coordinate that anchors alone have.
    wide = [np.pad(rows, ((0, 0), (0, 1)), constant_values=value) for rows, value in ((a, 1e-3), (p, 0), (n, 0))]
    equal(ours.triplets(*wide), optax.losses.triplet_margin_loss(a, p, n, margin=2.0).mean())


def test_optax_weighs_anchors_by_their_positives():
    optax = pytest.importorskip("optax")
    uneven = np.repeat(np.arange(4), (2, 3, 5, 6))
    theirs = optax.losses.ntxent(ROWS, uneven)
    equal(conventions.optax_ntxent()(X, torch.tensor(uneven)), theirs)
    assert float(nf.InfoNCELoss(0.07)(X, torch.tensor(uneven))) != pytest.approx(float(theirs), rel=1e-3)


# ------------------------------------------------------------ Keras

CIRCLE = """
import json, sys
import jax, keras
given = json.load(sys.stdin)
x, y = jax.numpy.asarray(given["x"]), jax.numpy.asarray(given["y"])
losses = [keras.losses.Circle(gamma=gamma, margin=m) for m, gamma in given["settings"]]
found = [jax.jit(jax.value_and_grad(lambda x, loss=loss: loss(y, x)))(x) for loss in losses]
json.dump([(float(value), gradient.tolist()) for value, gradient in found], sys.stdout)
"""
SETTINGS = [(0.4, 80.0), (0.25, 8.0)]


@pytest.fixture(scope="module")
def circles():
    """Keras in a process of its own, since it reads its backend once."""
    pytest.importorskip("keras")
    message = json.dumps({"x": unit(X).tolist(), "y": Y.tolist(), "settings": SETTINGS})
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CIRCLE]
    run = subprocess.run(command, input=message, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("which", [0, 1])
def test_circle_of_keras(which, circles):
    """In value; its gradient goes through α, where ours, as the authors', holds it constant."""
    (m, gamma), (value, gradient) = SETTINGS[which], circles[which]
    ours = conventions.keras_circle(m, gamma)
    equal(ours(X, LABELS), value)

    def through(x):
        s = x @ x.T
        near = -gamma * torch.relu(1 + m - s) * (s - (1 - m))
        far = gamma * torch.relu(s + m) * (s - m)
        pools = [
            torch.logsumexp(z.masked_fill(~torch.tensor(among), -torch.inf), 1)
            for z, among in ((near, LIKE), (far, UNLIKE))
        ]
        return torch.nn.functional.softplus(pools[0] + pools[1]).mean()

    x = unit(X).double().requires_grad_()
    through(x).backward()
    theirs = torch.tensor(gradient, dtype=torch.float64)
    assert (theirs - x.grad).abs().max() <= 1e-4 * x.grad.abs().max()
    # Along the sphere, since ours normalises.
    rows = unit(X).requires_grad_()
    ours(rows, LABELS).backward()
    along = x.grad - x.detach() * (x.grad * x.detach()).sum(1, keepdim=True)
    assert (rows.grad - along).abs().max() > 0.05 * along.abs().max()
