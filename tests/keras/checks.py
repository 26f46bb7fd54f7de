"""What holds for nearfar.keras on the backend that KERAS_BACKEND names; run by test_keras.py, a process a backend."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import nearfar as nf
from nearfar._tape import value_and_grad

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(3)
X = RNG.normal(size=(9, 6)).astype("float32")
LABELS = np.array([4, 0, 0, 4, 2, 0, 2, 9, 4])
SAME = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0])
STACK = RNG.normal(size=(9, 3, 6)).astype("float32")
DISTANCES = RNG.uniform(0.1, 2.0, size=9).astype("float32")
# Value and gradient of Keras's call against NumPy's engine.
CASES = [
    (nf.ContrastiveLoss(margin=3.0), "labels", LABELS, X),
    (nf.SupConLoss(), "labels", LABELS[:, None], X),
    (nf.TripletLoss(margin=0.7), "labels", LABELS, X),
    (nf.CrossEntropyLoss(), "labels", SAME, X),
    (0.5 * nf.NCALoss() + nf.ContrastiveLoss(), "labels", LABELS, X),
    (nf.Matryoshka(nf.SupConLoss(), dims=(2, 5)), "labels", LABELS, X),
    (nf.ContrastiveLoss(margin=1.3), "distances", SAME, DISTANCES[:, None]),
    (nf.ContrastiveLoss(margin=1.3, balanced=True), "distances", SAME.astype("float32"), DISTANCES),
    (nf.BinaryCrossEntropyLoss(), "similarities", SAME[:, None], X[:, :1]),
    (nf.CoSENTLoss(), "similarities", DISTANCES, X[:, 0]),
    (nf.ContrastiveLoss(margin=3.0), "pairs", SAME, STACK[:, :2]),
    (nf.TripletLoss(margin=1.0), "triplets", SAME, STACK),
    (nf.InfoNCELoss(), "views", SAME, STACK),
    (nf.InfoNCELoss(), "aligned", None, STACK[:, :2]),
    (nf.VICRegLoss(), "views", SAME, STACK[:, :2]),
]
ON_JAX = slice(None, None, 3)  # Each is compiled.


def gradient(loss, y_true, y_pred):
    """Value and gradient by the backend, as NumPy."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def run(y_true, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = 2 * loss(y_true, x)
            return value, tape.gradient(value, x)

        x = tf.constant(y_pred)
        eager = run(y_true, x)
        # Nothing is known of the shapes, as in fit.
        shape = tf.TensorSpec([None] * y_pred.ndim, x.dtype)
        if y_true is None:
            graph = tf.function(lambda x: run(None, x), input_signature=[shape])(x)
        else:
            given = tf.constant(y_true)
            signature = [tf.TensorSpec([None] * given.ndim, given.dtype), shape]
            graph = tf.function(run, input_signature=signature)(given, x)
        assert all(np.array_equal(a, b) for a, b in zip(eager, graph, strict=True))
        return eager[0].numpy(), eager[1].numpy()
    if BACKEND == "jax":
        import jax

        value, slope = jax.value_and_grad(lambda x: 2 * loss(y_true, x))(y_pred)
        return np.asarray(value), np.asarray(slope)
    import torch

    x = torch.tensor(y_pred, requires_grad=True)
    value = 2 * loss(y_true if y_true is None else torch.tensor(y_true), x)
    value.backward()
    return value.detach().numpy(), x.grad.numpy()


def encoder():
    """The same start every time."""
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.layers.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(8)])


def digits():
    """Real pictures: 200 to learn from, 64 others."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    return (x[:200], y[:200]), (x[200:264], y[200:264])


def siamese(margin=1.0):
    """Two towers that share weights, a layer of distances, and its loss: chapter 13 of the seed's survey."""
    tower = encoder()
    left, right = keras.layers.Input((64,)), keras.layers.Input((64,))
    distance = keras.layers.Lambda(
        lambda ab: keras.ops.sqrt(keras.ops.sum((ab[0] - ab[1]) ** 2, axis=1, keepdims=True) + 1e-12)
    )([tower(left), tower(right)])
    model = keras.Model([left, right], distance)
    loss = nf.keras.Loss(nf.ContrastiveLoss(margin=margin), form="distances")
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    return model


def check_values_and_gradients_are_numpys():
    for loss, form, y_true, y_pred in CASES[ON_JAX] if BACKEND == "jax" else CASES:
        of = nf.keras.Loss(loss, form)
        value, slope = gradient(of, y_true, y_pred)
        true, (slopes,) = value_and_grad(lambda x, of=of, y=y_true: of._of(y, x), y_pred.astype("float64"))
        assert abs(value - 2 * true) <= 1e-6 * max(1, abs(2 * true)), (loss, form, value, true)
        assert np.abs(slope - 2 * slopes).max() <= 2e-6 * np.abs(slopes).max(), (loss, form)
        assert np.abs(slopes).max() > 0
        assert slope.dtype == np.float32


def check_fit_learns():
    (x, y), (unseen, classes) = digits()
    model = encoder()
    # The last batch is smaller; labels as a column.
    model.compile(keras.optimizers.Adam(0.01), loss=nf.keras.Loss(nf.SupConLoss()))
    before = model.evaluate(unseen, classes, batch_size=64, verbose=0)
    history = model.fit(x, y[:, None], batch_size=64, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0], history
    assert model.evaluate(unseen, classes, batch_size=64, verbose=0) < before - 0.5


LEARNED = [
    (nf.InfoNCELoss(temperature=0.3), {"learned": ["temperature"], "form": "aligned", "largest_scale": 100.0}, X[::-1]),
    (nf.SigLIPLoss(temperature=0.3, bias=-2.0), {"learned": ["temperature", "bias"], "form": "aligned"}, X[::-1]),
    (nf.CosFaceLoss(temperature=0.3), {"classes": 10}, LABELS),
    (nf.SoftTripleLoss(), {"classes": 10}, LABELS[:, None]),
    (nf.CrossEntropyLoss(), {"classes": 10, "learned": ["temperature"], "ignore_label": 2}, LABELS),
]


def check_what_is_learned_has_numpys_gradient():
    """One step of plain descent moves each parameter by the gradient that differences of NumPy's value give."""
    for loss, options, other in LEARNED[1::3] if BACKEND == "jax" else LEARNED:
        embeddings, beside = keras.Input((6,)), keras.Input(other.shape[1:], dtype=str(other.dtype))
        layer = nf.keras.Learnable(loss, seed=1, **options)
        model = keras.Model([embeddings, beside], layer(embeddings, beside))
        model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
        before = [np.asarray(keras.ops.convert_to_numpy(w), "float64") for w in layer.trainable_weights]
        names = [w.name for w in layer.trainable_weights]

        def value(*weights, loss=loss, options=options, other=other, names=names):
            own, given = loss, {"ignore_label": options["ignore_label"]} if "ignore_label" in options else {}
            for name, w in zip(names, weights, strict=True):
                if name == "weight":
                    given["class_weights"] = w
                else:
                    number = np.exp(-float(w)) if name == "logit_scale" else float(w)
                    own = replace(own, **{"temperature" if name == "logit_scale" else name: number})
            x, y = X.astype("float64"), other.astype("float64") if options.get("form") else other.reshape(-1)
            return float(own.aligned(x, y) if options.get("form") else own(x, y, **given))

        told = model.evaluate([X, other], batch_size=9, verbose=0)
        assert abs(told - value(*before)) < 1e-5 * max(1, abs(told)), (loss, told, value(*before))
        model.fit([X, other], batch_size=9, verbose=0)
        for k, weight in enumerate(layer.trainable_weights):
            step = before[k] - keras.ops.convert_to_numpy(weight)
            for place in np.ndindex(before[k].shape):
                if before[k].ndim and sum(place) % 7:
                    continue  # A sample of the places.
                moved = []
                for way in (1e-6, -1e-6):
                    other_weights = [w.copy() for w in before]
                    other_weights[k][place] += way
                    moved.append(value(*other_weights))
                slope = (moved[0] - moved[1]) / 2e-6
                assert abs(step[place] - slope) < 2e-5 * max(1, abs(slope)), (loss, names[k], place, step[place], slope)
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model.keras")
            again = keras.saving.load_model(Path(folder) / "model.keras")
        assert again.layers[-1].loss == layer.loss
        assert np.isclose(again.evaluate([X, other], batch_size=9, verbose=0), model.evaluate([X, other], verbose=0))
    expect(lambda: nf.keras.Learnable(nf.ContrastiveLoss(), ["margin"]), "can be learned")
    expect(lambda: nf.keras.Learnable(nf.SupConLoss(), classes=3), "a loss with class weights")


def check_eager_is_graph():
    (x, y), _ = digits()
    weights = []
    for eager in (False, True):
        model = encoder()
        model.compile("sgd", loss=nf.keras.Loss(nf.TripletLoss()), run_eagerly=eager)
        model.fit(x[:64], y[:64], batch_size=32, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for graph, eager in zip(*weights, strict=True):
        np.testing.assert_allclose(graph, eager, atol=1e-5)


def check_the_siamese_network_of_the_seed_learns():
    (x, y), _ = digits()
    same = (y[:96] == y[96:192]).astype("int64")
    model = siamese()
    history = model.fit([x[:96], x[96:192]], same, batch_size=32, epochs=6, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0], history
    d = model.predict([x[:96], x[96:192]], verbose=0)[:, 0]
    assert d[same == 1].mean() < d[same == 0].mean()


def check_a_degenerate_batch_is_zero():
    loss = nf.keras.Loss(nf.SupConLoss())
    for labels in (np.arange(9), np.full(9, 5)):  # No positive; nothing but zero vectors.
        value, slope = gradient(loss, labels, np.zeros_like(X))
        assert np.isfinite(value)
        assert not slope.any()
    value, slope = gradient(nf.keras.Loss(nf.ContrastiveLoss(), ignore_label=7), np.array([7] * 9), X)
    assert value == 0
    assert not slope.any()
    value, slope = gradient(nf.keras.Loss(nf.ContrastiveLoss(), "distances"), np.array([0, 1]), np.zeros(2, "float32"))
    assert abs(value - 0.5) < 1e-6  # 2 · mean(½, 0)
    assert np.isfinite(slope).all()


def check_labels_stay_whole():
    """As float32, in which Keras holds labels, these four would be one class."""
    labels = np.array([0, 1, 0, 1]) + 2**24
    assert np.unique(labels.astype("float32")).size == 1
    value, _ = gradient(nf.keras.Loss(nf.TripletLoss(margin=5.0)), labels, X[:4])
    assert np.isclose(value, 2 * nf.TripletLoss(margin=5.0)(X[:4], labels))


def check_saving_keeps_the_loss():
    losses = [
        nf.ContrastiveLoss(margin=1.5, powers=(1, 2), measure=nf.Manhattan()),
        0.5 * nf.CrossEntropyLoss(temperature=0.2) + nf.Matryoshka(nf.SupConLoss(), dims=(2, 4), weights=(1.0, 0.5)),
    ]
    for loss in losses:
        model = encoder()
        model.compile("adam", loss=nf.keras.Loss(loss, ignore_label=3, name="mine"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            model.save(path)
            found = keras.saving.load_model(path).loss
        assert (found.loss, found.form, found.ignore_label, found.name) == (loss, "labels", 3, "mine")
        assert hash(found.loss) == hash(loss)
    for cls in nf.losses.__all__:
        cls = getattr(nf.losses, cls)
        if cls not in (nf.PairLoss, nf.FeatureLoss, nf.LossSum, nf.Matryoshka):
            form = "views" if issubclass(cls, nf.FeatureLoss) else "labels"
            one = nf.keras.Loss(cls(), form)
            assert nf.keras.Loss.from_config(one.get_config()).loss == cls()
    expect(lambda: nf.keras.Loss(Own()).get_config(), "expected losses and hyper-parameters of nearfar")


class Own(nf.SupConLoss):
    """Not of nearfar."""


def check_mixed_precision_learns():
    (x, y), _ = digits()
    for policy in ("mixed_float16", "mixed_bfloat16")[: 1 if BACKEND == "jax" else 2]:
        keras.config.set_dtype_policy(policy)
        try:
            model = encoder()
        finally:
            keras.config.set_dtype_policy("float32")
        model.compile(keras.optimizers.Adam(0.01), loss=nf.keras.Loss(nf.SupConLoss()))
        history = model.fit(x[:192], y[:192], batch_size=64, epochs=4, verbose=0).history["loss"]
        assert np.isfinite(history).all()
        assert history[-1] < history[0], (policy, history)


def check_what_cannot_be_is_refused():
    loss = nf.keras.Loss(nf.SupConLoss())
    expect(lambda: loss(LABELS, X, np.ones(9)), "expected no sample or class weights")
    expect(lambda: loss(np.eye(9)[LABELS % 9], X), "expected y_true of shape")
    expect(lambda: nf.keras.Loss(nf.SupConLoss(), "distances"), "expected a form of SupConLoss")
    expect(lambda: nf.keras.Loss(nf.VICRegLoss()), "it has views")
    expect(lambda: nf.keras.Loss(nf.SupConLoss(), "tables"), "expected form among")
    expect(lambda: nf.keras.Loss("mse"), "expected loss to be a loss")
    expect(lambda: loss(LABELS.astype("float32"), X), "expected labels to be integers")
    expect(lambda: nf.keras.Loss(nf.InfoNCELoss(), "aligned")(None, X), "expected y_pred of shape")
    expect(lambda: nf.keras.Loss(nf.InfoNCELoss(), "views", ignore_label=1), "expected ignore_label")
    masked = keras.ops.convert_to_tensor(X)
    masked._keras_mask = keras.ops.ones((9, 6), "bool")
    expect(lambda: loss(LABELS, masked), "expected y_pred without a mask")
    if BACKEND == "tensorflow":
        import tensorflow as tf

        model = encoder()
        model.compile("sgd", loss=loss, jit_compile=True)
        expect(lambda: model.fit(np.zeros((4, 64)), np.arange(4), verbose=0), "expected TensorFlow without XLA")
        x = tf.constant(X)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = loss(LABELS, x)
            slope = inner.gradient(value, x)
        expect(lambda: outer.gradient(slope, x), "expected one derivative")


def check_replicas_share_the_gradient():
    """Under tf.distribute two replicas of half the batch give the mean of both losses."""
    if BACKEND != "tensorflow":
        return
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    (x, y), _ = digits()
    with strategy.scope():
        model = encoder()
        model.compile(keras.optimizers.SGD(1.0), loss=nf.keras.Loss(nf.ContrastiveLoss()))
    start = model.get_weights()
    both = model.evaluate(x[:32], y[:32], batch_size=32, verbose=0)
    model.fit(x[:32], y[:32], batch_size=32, shuffle=False, verbose=0)
    plain = encoder()
    plain.set_weights(start)
    with tf.GradientTape() as tape:
        halves = [nf.keras.Loss(nf.ContrastiveLoss())(y[k : k + 16], plain(x[k : k + 16])) for k in (0, 16)]
        value = (halves[0] + halves[1]) / 2
    slopes = tape.gradient(value, plain.trainable_variables)
    assert np.isclose(both, value, rtol=1e-5), (both, value)
    for now, before, slope in zip(model.get_weights(), start, slopes, strict=True):
        np.testing.assert_allclose(now, before - slope, atol=2e-5)


def expect(call, words):
    """An error of nearfar with these words."""
    with pytest.raises(nf.NearfarError, match=words):
        call()


if __name__ == "__main__":
    if BACKEND == "tensorflow":
        import tensorflow

        one = tensorflow.config.LogicalDeviceConfiguration()
        cpu = tensorflow.config.list_physical_devices("CPU")[0]
        tensorflow.config.set_logical_device_configuration(cpu, [one, one])
    found = {k.removeprefix("check_"): f for k, f in list(globals().items()) if k.startswith("check_")}
    names = sys.argv[1:] or list(found)
    failed = []
    for name in names:
        began = time.process_time()
        try:
            found[name]()
        except Exception:  # The others are told of as well.
            failed.append(name)
            traceback.print_exc()
        verdict = "failed" if name in failed else "passed"
        sys.stdout.write(f"{name}: {verdict} {time.process_time() - began:.1f} s\n")
    sys.exit(bool(failed))
