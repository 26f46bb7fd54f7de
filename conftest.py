"""What pytest must not import: modules that cannot be imported everywhere, and programs that tests start themselves."""

from importlib.util import find_spec

collect_ignore = [
    # TensorFlow and Triton cannot live in one process; tests/keras runs these in processes of their own.
    "src/nearfar/keras",
    "tests/keras/checks.py",
    "tests/torch/interpreted_kernels.py",
    # Asks for more devices than there are, before JAX starts.
    "tests/jax/on_devices.py",
]
if not find_spec("triton"):
    collect_ignore += ["src/nearfar/torch/kernels.py", "src/nearfar/torch/fused.py"]
