"""What several test files share: the batches."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def batch():
    """13 rows of 5 features, classes of unequal size and one singleton, rows of unequal norm."""
    rng = np.random.default_rng(20240607)
    labels = np.array([3, 0, 0, 7, 3, 0, 7, 0, 3, 9, 7, 0, 3])
    x = rng.normal(size=(13, 5)) * rng.uniform(0.5, 1.5, size=(13, 1)) * 0.6
    return x, labels


@pytest.fixture
def gallery():
    """9 references of 5 features; one class is only here, one of the batch's is missing."""
    rng = np.random.default_rng(77)
    return 0.7 * rng.normal(size=(9, 5)), np.array([0, 7, 3, 11, 0, 3, 0, 7, 11])


@pytest.fixture(autouse=True)
def small_tables_by_torch(request, monkeypatch):
    """Small tables of tensors are run by NumPy: here they are not, so that the tests of torch test torch."""
    if request.node.get_closest_marker("small") is None:
        monkeypatch.setattr("nearfar.torch._small.PAIRS", -1)
