"""A loss with parameters of its own, as a layer: temperature, bias, boundary, class weights."""

from __future__ import annotations

import math
from typing import Any

import keras

from nearfar._errors import InputError, ShapeError
from nearfar.engine.moments import refusal, with_values
from nearfar.keras import _config
from nearfar.keras.loss import _column, on_backend


@keras.saving.register_keras_serializable(package="nearfar")
class Learnable(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    r"""A loss whose hyper-parameters or class weights are trained with the model; gives back the embeddings.

    ``layer(embeddings, labels)`` adds the loss to the model's losses and returns the embeddings as they are. The labels
    are an input of the model, which is compiled without a loss; for what comes after training, make a model of the
    embeddings alone. As in :class:`nearfar.torch.Learnable`, a temperature is kept as ``logit_scale``
    :math:`= \log (1 / \tau)`, a bias and a boundary as they are, all in float32.

    Args:
        loss: The loss, at the values to start from.
        learned: Which of its hyper-parameters: names in its ``learnable``.
        classes: How many classes, if class weights are trained: ``weight``, one row for each, ``per_class`` for losses
            that have several; labels are 0 … classes − 1.
        form: ``"labels"``, or ``"aligned"`` for ``layer(left, right)``, two batches whose rows match.
        largest_scale: The largest :math:`1 / \tau`, to which each step of the optimizer is held; 100 in CLIP.
        ignore_label: With ``labels``: a label whose items take part in nothing.
        seed: Of the start of the class weights, rows of length near 1.
        **layer: Of :class:`keras.layers.Layer`: ``name``, ``dtype`` (float32 whatever the policy of the model).

    Raises:
        InputError: A hyper-parameter that cannot be learned; class weights of a loss without, or nothing to learn.
        ShapeError: Embeddings that are no matrix, or labels that are not one an item.

    Example:
        >>> import keras, numpy as np
        >>> import nearfar as nf
        >>> images, labels = keras.Input((6,)), keras.Input((), dtype="int32")
        >>> embeddings = keras.layers.Dense(4)(images)
        >>> head = nf.keras.Learnable(nf.CosFaceLoss(), classes=3, seed=0)
        >>> model = keras.Model([images, labels], head(embeddings, labels))
        >>> model.compile("adam", jit_compile=False)
        >>> x, y = np.random.default_rng(0).normal(size=(12, 6)).astype("float32"), np.arange(12) % 3
        >>> history = model.fit([x, y], epochs=2, verbose=0).history["loss"]
        >>> encoder = keras.Model(images, embeddings)
        >>> [(w.name, w.shape) for w in head.trainable_weights]
        [('weight', (3, 4))]

    Memory: classes · per_class · features, and that of the loss.

    References:
        Radford et al., "CLIP", ICML 2021, section 2.5; Movshovitz-Attias et al., "No Fuss Distance Metric Learning
        using Proxies", ICCV 2017.
    """

    def __init__(
        self,
        loss: Any,
        learned: tuple[str, ...] | list[str] = (),
        classes: int | None = None,
        form: str = "labels",
        largest_scale: float | None = None,
        ignore_label: int | None = None,
        seed: int | None = None,
        **layer: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **layer})
        self.loss_at_start, self.learned, self.classes, self.form = loss, tuple(learned), classes, form
        self.largest_scale, self.ignore_label, self.seed = largest_scale, ignore_label, seed
        kinds = getattr(loss, "learnable", None)
        if kinds is None:
            raise InputError(f"expected a loss, got {type(loss).__name__}; of a sum make a layer for each part")
        for name in self.learned:
            if name not in kinds:
                raise refusal(loss, name)
        if form not in ("labels", "aligned"):
            raise InputError(f"expected form 'labels' or 'aligned', got {form!r}; see nearfar.keras.Learnable")
        if classes is not None and not (loss.has_class_weights and form == "labels"):
            raise InputError(
                f"expected a loss with class weights, got {type(loss).__name__} in form {form!r}; leave classes out"
            )
        if classes is None and not self.learned:
            raise InputError(f"expected names among {sorted(kinds)} or classes, got none; say what is learned")

    def build(self, embeddings_shape: Any, other_shape: Any = None) -> None:
        """Make the parameters."""
        top = None if self.largest_scale is None else math.log(self.largest_scale)
        for name in self.learned:
            value, divides = getattr(self.loss_at_start, name), self.loss_at_start.learnable[name] == "divisor"
            self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(-math.log(value) if divides else value),
                constraint=(lambda w: keras.ops.minimum(w, top)) if divides and top is not None else None,
                name=self._stored(name),
            )
        if self.classes is not None:
            features = embeddings_shape[-1]
            start = keras.initializers.RandomNormal(stddev=1 / math.sqrt(features), seed=self.seed)
            rows = self.classes * getattr(self.loss_at_start, "per_class", 1)
            self.add_weight(shape=(rows, features), initializer=start, name="weight")
        self.built = True

    def call(self, embeddings: Any, other: Any) -> Any:
        """Add the loss; ``other`` are the labels, or the second of two aligned batches."""
        own = {weight.name: weight for weight in self.trainable_weights}
        tensors = [self._value(name, own[self._stored(name)]) for name in self.learned]
        tensors += [] if self.classes is None else [keras.ops.convert_to_tensor(own["weight"])]
        if self.form == "aligned":
            self.add_loss(on_backend(self._of, None, embeddings, other, *tensors))
        else:
            self.add_loss(on_backend(self._of, other, embeddings, *tensors))
        return embeddings

    def compute_output_spec(self, embeddings: Any, other: Any) -> Any:
        """The embeddings' own: nothing is computed to find it."""
        return keras.KerasTensor(embeddings.shape, dtype=self.compute_dtype)

    @property
    def loss(self) -> Any:
        """The loss at the current values, which are plain numbers."""
        own = {weight.name: weight for weight in self.weights}
        values = {name: self._value(name, own[self._stored(name)]) for name in self.learned}
        return with_values(
            self.loss_at_start, {name: float(keras.ops.convert_to_numpy(v)) for name, v in values.items()}
        )

    def get_config(self) -> dict[str, Any]:
        """Everything by name, for ``model.save``."""
        return {
            **super().get_config(),
            "loss": _config.written(self.loss_at_start),
            "learned": list(self.learned),
            **{name: getattr(self, name) for name in ("classes", "form", "largest_scale", "ignore_label", "seed")},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Learnable:
        """The layer that :meth:`get_config` was asked of."""
        return cls(**{**config, "loss": _config.read(config["loss"])})

    def _stored(self, name: str) -> str:
        return "logit_scale" if self.loss_at_start.learnable[name] == "divisor" else name

    def _value(self, name: str, weight: Any) -> Any:
        tensor = keras.ops.convert_to_tensor(weight)
        return keras.ops.exp(-tensor) if self.loss_at_start.learnable[name] == "divisor" else tensor

    def _of(self, labels: Any, *arrays: Any) -> Any:
        """The loss of arrays that nearfar knows: batches, then hyper-parameters, then class weights."""
        batches = 2 if self.form == "aligned" else 1
        if len(arrays[0].shape) != 2:
            raise ShapeError(f"expected embeddings of shape (items, features), got {tuple(arrays[0].shape)}; flatten")
        loss = with_values(self.loss_at_start, dict(zip(self.learned, arrays[batches:], strict=False)))
        if self.form == "aligned":
            return loss.aligned(*arrays[:2])
        options: dict[str, Any] = {} if self.ignore_label is None else {"ignore_label": self.ignore_label}
        if self.classes is not None:
            options["class_weights"] = arrays[-1]
        return loss(arrays[0], _column("y_true", labels), **options)
