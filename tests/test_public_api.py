"""The public surface: names, signatures of the losses, docstrings, errors."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types
from pathlib import Path

import numpy as np
import pytest

import nearfar as nf

# Losses of features have their own contract: tests/contracts/test_feature_losses.py.
LOSSES = [cls for name in nf.losses.__all__ if issubclass(cls := getattr(nf.losses, name), nf.PairLoss)]
LOSSES.remove(nf.PairLoss)


def test_names_are_sorted_and_complete():
    assert nf.__all__ == sorted(set(nf.__all__))
    public = {
        name
        for name, value in vars(nf).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name not in ("Any", "import_module")
    }
    assert public == set(nf.__all__)


def test_every_loss_measure_and_relation_is_at_the_top():
    assert set(nf.losses.__all__) <= set(nf.__all__)
    assert {"Cosine", "CosineDistance", "Dot", "Euclidean", "Manhattan", "SquaredEuclidean"} <= set(nf.__all__)
    assert {"Aligned", "Labels", "Mask"} <= set(nf.__all__)
    assert all(cls.__name__.endswith("Loss") for cls in LOSSES)


@pytest.mark.parametrize("cls", LOSSES)
def test_a_loss_is_a_frozen_dataclass(cls):
    loss = cls()
    assert dataclasses.is_dataclass(loss)
    assert issubclass(cls, nf.PairLoss)
    field = dataclasses.fields(loss)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(loss, field, 3)
    assert loss == cls()
    assert hash(loss) == hash(cls())
    assert loss == eval(repr(loss), vars(nf))


@pytest.mark.parametrize("cls", LOSSES)
def test_docstrings_say_what_a_reader_needs(cls):
    text = inspect.getdoc(cls)
    first = text.splitlines()[0]
    assert first.endswith(".")
    for part in (".. math::", "Args:", "Example:", ">>> ", "Memory:", "Reference"):
        assert part in text, part
    for field in dataclasses.fields(cls):
        assert f"{field.name}:" in text, field.name


@pytest.mark.parametrize("cls", LOSSES)
def test_calls_have_one_signature(cls):
    for name in ("__call__", "per_anchor", "value_and_grad"):
        parameters = inspect.signature(getattr(cls, name)).parameters
        assert list(parameters)[:3] == ["self", "embeddings", "labels"]
        assert {"references", "reference_labels", "ignore_label", "engine"} <= set(parameters)
        assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[3:])
    for name in ("pairs", "distances", "similarities", "triplets", "views", "aligned"):
        if hasattr(cls, name):
            assert inspect.signature(getattr(cls, name)).parameters["engine"].default == "auto"


def test_errors_form_one_tree():
    errors = [v for n in nf.__all__ if isinstance(v := getattr(nf, n), type) and issubclass(v, Exception)]
    assert all(issubclass(e, nf.NearfarError) for e in errors)
    assert issubclass(nf.InputError, ValueError)
    assert issubclass(nf.BackendError, TypeError)
    codes = {e.__name__: e.exit_code for e in errors}
    assert 1 not in codes.values()  # 1 is a negative decision, never an error
    assert codes["UsageError"] == 2
    assert codes["DataError"] == 3
    assert codes["GuaranteeError"] == 4
    assert codes["ArtefactError"] == 5
    assert codes["DivergenceError"] == 6


def not_in_form(source):
    """Messages of our own errors that do not read "expected …, got …; remedy"."""
    ours = {name for name, value in vars(nf).items() if isinstance(value, type) and issubclass(value, nf.NearfarError)}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ours and node.args:
            parts = [
                c.value for c in ast.walk(node.args[0]) if isinstance(c, ast.Constant) and isinstance(c.value, str)
            ]
            text = " ".join(parts).strip()
            if text and not (text.startswith("expected") and "got" in text and ";" in text):
                found.append(text)
    return found


def test_errors_say_what_was_expected_and_what_to_do():
    assert not_in_form("raise InputError('expected a, got b')") == ["expected a, got b"]
    for path in Path(nf.__file__).parent.rglob("*.py"):
        assert not_in_form(path.read_text()) == [], path


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"nearfar.*Nonsense"):
        _ = nf.Nonsense


def test_the_call_of_the_front_page():
    x = np.random.default_rng(0).normal(size=(4, 3))
    value = nf.SupConLoss(temperature=0.1)(x, [0, 0, 1, 1])
    assert value.shape == ()
    assert isinstance(nf.__version__, str)
