"""What pytest must not import: modules that cannot be imported everywhere, and programs that tests start themselves."""

import os
from importlib.util import find_spec

# TensorFlow, which Keras would start by default, and Triton cannot live in one process.
os.environ.setdefault("KERAS_BACKEND", "torch")

collect_ignore_glob = ["tests/torch/*_on_ranks.py"]
collect_ignore = [
    "tests/keras/checks.py",
    "tests/torch/interpreted_kernels.py",
    # Asks for more devices than there are, before JAX starts.
    "tests/jax/on_devices.py",
]
if not find_spec("triton"):
    collect_ignore += ["src/nearfar/torch/kernels.py", "src/nearfar/torch/fused.py"]
