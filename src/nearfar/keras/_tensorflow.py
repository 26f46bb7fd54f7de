"""TensorFlow: NumPy's engine on the host, whose gradient TensorFlow passes on.

The losses are written for the array API, of which TensorFlow has too little. JAX's converter (jax2tf) would be the
other way: measured, it refuses the unknown batch size of ``fit``, needs JAX installed and compiles for each shape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from nearfar import _tape
from nearfar._errors import BackendError, InputError


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def on_host(function: Callable[..., Any], given: Any, *tensors: Any) -> Any:
    """``function(given, *arrays)``, a scalar made of call forms of losses, differentiable by the tensors.

    It is in the dtype of the first tensor. The gradient is computed along with the value.
    """
    _expect_no_xla()
    if given is None:
        return _value(lambda _, *arrays: function(None, *arrays), tf.constant(0), tensors)
    return _value(function, tf.convert_to_tensor(given), tensors)


def _value(function: Callable[..., Any], given: Any, tensors: tuple[Any, ...]) -> Any:
    def host(given: Any, *arrays: Any) -> tuple[Any, ...]:
        # The one dtype that NumPy lacks.
        wide = [a.astype(np.float32) if a.dtype == tf.bfloat16.as_numpy_dtype else a for a in arrays]
        value, gradients = _tape.value_and_grad(partial(function, given), *wide)
        return value.astype(arrays[0].dtype), *(g.astype(a.dtype) for g, a in zip(gradients, arrays, strict=True))

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def both(*tensors: Any) -> Any:
        if tf.executing_eagerly():
            value, *gradients = map(tf.constant, host(given.numpy(), *(t.numpy() for t in tensors)))
        else:
            dtypes = [t.dtype for t in tensors]
            outputs = tf.numpy_function(host, [given, *tensors], [dtypes[0], *dtypes], stateful=False)
            value, *gradients = outputs
            value.set_shape(())
            for gradient, tensor in zip(gradients, tensors, strict=True):
                gradient.set_shape(tensor.shape)

        def pull(upstream: Any) -> Any:
            found = [_once(gradient, *tensors) for gradient in gradients]
            # TensorFlow's products take the smallest numbers as 0, so none is made without need.
            plain = tf.executing_eagerly() and upstream.numpy() == 1
            return found if plain else [upstream * gradient for gradient in found]

        return value, pull

    return both(*tensors)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _once(gradient: Any, *tensors: Any) -> Any:
    """A gradient that knows what it depends on, so that differentiating it is refused and never silently 0."""

    def refuse(*_: Any) -> Any:
        raise InputError(
            "expected one derivative of a loss, got a derivative of its gradient; "
            "put tf.stop_gradient around the gradient, or leave the loss out of the penalty"
        )

    return tf.identity(gradient), refuse


def _expect_no_xla() -> None:
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None:
        # TensorFlow has no public word for it; where this one is missing, its own error speaks later.
        context = getattr(graph, "_get_control_flow_context", lambda: None)()
        while context is not None:
            if context.IsXLAContext():
                raise BackendError(
                    "expected TensorFlow without XLA, got jit_compile=True, under which NumPy cannot be called; "
                    "compile the model with jit_compile=False, or use Keras on JAX or PyTorch"
                )
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)


def share_of_replica(value: Any) -> Any:
    """The value's share in the sum over the replicas of ``tf.distribute``, each of which has a batch of its own."""
    count = tf.distribute.get_strategy().num_replicas_in_sync
    return value if count == 1 else value / count
