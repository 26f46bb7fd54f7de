"""A loss of nearfar as a ``keras.losses.Loss``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from nearfar._arrays import Array
from nearfar._errors import InputError, ShapeError
from nearfar.keras import _config

# Batches that each form takes, stacked along axis 1 of y_pred: 1 for (items, features), 0 for one number an item.
FORMS = {"labels": 1, "pairs": 2, "triplets": 3, "views": None, "aligned": 2, "distances": 0, "similarities": 0}


@keras.saving.register_keras_serializable(package="nearfar")
class Loss(keras.losses.Loss):  # type: ignore[misc]  # keras has no types
    r"""A loss of nearfar for ``model.compile(loss=...)``.

    .. math::
        \text{Loss}(y_{true}, y_{pred}) = \ell(y_{pred}, y_{true})

    in the form that ``form`` names: a scalar, already the mean that the loss defines, so there is no ``reduction``.

    ================  ==============================  ================================  ===========================
    form              y_pred                          y_true                            calls
    ================  ==============================  ================================  ===========================
    ``labels``        (items, features), or logits    class numbers, (items,)           ``loss(y_pred, y_true)``
    ``distances``     (pairs,)                        1 for similar, 0 for dissimilar   ``loss.distances``
    ``similarities``  (pairs,)                        1 for similar, 0 for dissimilar   ``loss.similarities``
    ``pairs``         (pairs, 2, features)            1 for similar, 0 for dissimilar   ``loss.pairs``
    ``triplets``      (triplets, 3, features)         anything; not looked at           ``loss.triplets``
    ``views``         (items, views, features)        anything; not looked at           ``loss.views``
    ``aligned``       (items, 2, features)            anything; not looked at           ``loss.aligned``
    ================  ==============================  ================================  ===========================

    A trailing axis of 1, as Keras likes it, may follow (items,) and (pairs,). Keras hands each output of a model to a
    loss of its own, so several batches are one output: ``keras.ops.stack([left, right], axis=1)``. A batch without
    what the loss needs has value 0 and gradient 0.

    Args:
        loss: A loss, a sum of losses or a :class:`nearfar.Matryoshka`.
        form: Of the table above.
        ignore_label: With ``labels``: a label whose items take part in nothing.
        name: In logs; the loss's name unless given.
        dtype: Of the computation; ``keras.config.floatx()`` unless given, whatever the model's mixed-precision policy,
            as for every loss of Keras.

    Raises:
        InputError: A form that the loss does not have; sample or class weights, or a mask (the mean of most losses is
            over pairs that items make, not over items).
        ShapeError: Shapes other than above. Inside a TensorFlow graph this and all errors about arrays come as
            ``tf.errors.InvalidArgumentError`` with the same message.
        BackendError: ``jit_compile=True`` on TensorFlow.

    Example:
        >>> import keras, numpy as np
        >>> import nearfar as nf
        >>> loss = nf.keras.Loss(nf.ContrastiveLoss(margin=1.0), form="distances")
        >>> distance, same = np.array([[0.5], [0.8]], "float32"), np.array([1, 0])
        >>> round(float(loss(same, distance)), 4)  # (0.5·0.5² + 0.5·0.2²) / 2
        0.0725

    Memory: of the loss; on TensorFlow in the host's memory.

    Reference:
        Chollet et al., Keras 3, https://keras.io/api/losses/
    """

    def __init__(
        self, loss: Any, form: str = "labels", ignore_label: Any = None, name: str | None = None, dtype: Any = None
    ) -> None:
        _expect_form(loss, form)
        if ignore_label is not None and form != "labels":
            raise InputError(f"expected ignore_label with form 'labels', got it with {form!r}; leave those items out")
        super().__init__(name=name or type(loss).__name__, dtype=dtype)
        self.loss, self.form, self.ignore_label = loss, form, ignore_label

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss of a batch, a scalar; labels keep their dtype, which Keras would make a float."""
        if sample_weight is not None:
            raise InputError(
                "expected no sample or class weights, got some: the loss is a mean over what items make together; "
                "leave items out by ignore_label, or give another loss"
            )
        if getattr(y_pred, "_keras_mask", None) is not None:
            raise InputError(
                "expected y_pred without a mask, got one; end it with a layer that pools over the masked axis"
            )
        with keras.name_scope(self.name):
            return self.call(y_true, keras.ops.convert_to_tensor(y_pred, dtype=self.dtype))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of tensors."""
        return on_backend(self._of, y_true, y_pred)

    def _of(self, y_true: Any, y_pred: Array) -> Array:
        """The loss of arrays that nearfar knows."""
        width = FORMS[self.form]
        if width == 0:
            method: Callable[..., Array] = getattr(self.loss, self.form)
            return method(_column("y_pred", y_pred), _column("y_true", y_true))
        if self.form == "labels":
            options = {} if self.ignore_label is None else {"ignore_label": self.ignore_label}
            value: Array = self.loss(y_pred, _column("y_true", y_true), **options)
            return value
        batches = _batches(self.form, y_pred, width)
        same = [_column("y_true", y_true)] if self.form == "pairs" else []
        return getattr(self.loss, self.form)(*batches, *same)

    def get_config(self) -> dict[str, Any]:
        """Hyper-parameters by name, for ``model.save``."""
        return {
            "loss": _config.written(self.loss),
            "form": self.form,
            "ignore_label": self.ignore_label,
            "name": self.name,
            "dtype": self.dtype,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """The loss that :meth:`get_config` was asked of."""
        return cls(**{**config, "loss": _config.read(config["loss"])})


def on_backend(function: Callable[..., Any], given: Any, *tensors: Any) -> Any:
    """``function(given, *tensors)``, a scalar made of call forms of losses, differentiable on Keras's backend."""
    if keras.backend.backend() != "tensorflow":
        return function(given, *tensors)
    from nearfar.keras import _tensorflow

    return _tensorflow.share_of_replica(_tensorflow.on_host(function, given, *tensors))


def _expect_form(loss: Any, form: str) -> None:
    if form not in FORMS:
        raise InputError(f"expected form among {', '.join(FORMS)}, got {form!r}; see nearfar.keras.Loss")
    if not hasattr(loss, "value_and_grad"):
        raise InputError(f"expected loss to be a loss of nearfar, got {loss!r}; for example nf.SupConLoss()")
    lacking = hasattr(loss, "features") if form == "labels" else not hasattr(loss, form)
    if lacking:
        has = [name for name in FORMS if hasattr(loss, name)]
        raise InputError(f"expected a form of {type(loss).__name__}, got {form!r}; it has {', '.join(has) or 'none'}")


def _column(name: str, values: Any) -> Any:
    """One entry an item, without the trailing axis."""
    values = values if hasattr(values, "shape") else keras.ops.convert_to_numpy(values)
    shape = tuple(values.shape)
    if len(shape) == 2 and shape[1] == 1:
        return values[:, 0]
    if len(shape) != 1:
        remedy = "give class numbers, not one-hot rows" if name == "y_true" else "give one number a pair"
        raise ShapeError(f"expected {name} of shape (items,) or (items, 1), got {shape}; {remedy}")
    return values


def _batches(form: str, y_pred: Array, width: int | None) -> list[Array]:
    """The batches that are stacked along axis 1."""
    shape = tuple(y_pred.shape)
    if len(shape) != 3 or (width is not None and shape[1] != width):
        raise ShapeError(
            f"expected y_pred of shape (items, {width or 'views'}, features) for form {form!r}, got {shape}; "
            "keras.ops.stack([...], axis=1)"
        )
    return [y_pred[:, k] for k in range(shape[1])]
