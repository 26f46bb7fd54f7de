"""Keras 3: the losses in ``compile`` and ``fit``, on its TensorFlow, JAX and PyTorch backends.

A loss with parameters of its own is a layer: :class:`Learnable`.

On JAX and PyTorch the losses get the backend's tensors and run there. On TensorFlow NumPy's engine runs them on the
host, for eager and graph execution; not inside XLA (``jit_compile=True``), which cannot call back.
"""

from nearfar.keras.learnable import Learnable
from nearfar.keras.loss import Loss

__all__ = ["Learnable", "Loss"]
