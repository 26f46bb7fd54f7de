"""The application: from a folder of pictures to a decision. The verbs of the command line, in Python.

``train(data, out)``, ``resume(run)``, ``evaluate(run, data)``, and ``load(run)``, whose model embeds, verifies and
classifies. Needs ``pip install 'nearfar[app]'``; a verb is loaded when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nearfar._errors import UsageError

if TYPE_CHECKING:
    from nearfar.app.evaluation import evaluate
    from nearfar.app.model import load
    from nearfar.app.training import resume, train

__all__ = ["evaluate", "load", "resume", "train"]

_HOMES = {"evaluate": "evaluation", "load": "model", "resume": "training", "train": "training"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nearfar.app' has no attribute {name!r}")
    try:
        return getattr(import_module(f"nearfar.app.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        raise UsageError(f"expected the package {error.name}, got none; run: pip install 'nearfar[app]'") from error
