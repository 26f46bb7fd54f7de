"""Modules that cannot be imported everywhere are left out of the doctests there."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("triton") else ["src/nearfar/torch/kernels.py", "src/nearfar/torch/fused.py"]
