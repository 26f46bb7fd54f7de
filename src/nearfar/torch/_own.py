"""One rank's part of a call: checked, and what it must have in common with the other ranks'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from nearfar._arrays import integers, is_torch
from nearfar._errors import BackendError, InputError
from nearfar.engine import Given, Task
from nearfar.engine.rules import parts_of
from nearfar.relations import Aligned, Labels, Rows
from nearfar.torch._learned import Learned, learned

if TYPE_CHECKING:
    from nearfar.torch.ranks import Ranks

Ready: TypeAlias = "Callable[[], tuple[Given, Task, int | None]]"
"""Checks a call and prepares it: what was given, the task on this rank's arrays, and the height of its strips."""

# Counts up when ranks of two versions would misunderstand each other.
FORM = 1
# Bytes of gathered rows above which "auto" has them travel: a step holds some four times as many.
GATHERED = 1 << 30


@dataclass
class Own:
    """This rank's part of a call, checked.

    Attributes:
        kept: Places of the anchors and references that take part; None: all.
        labels: Of the kept anchors and references; None where pairs are given one by one.
        asked: Whether a gradient of the anchors' and of the references' side is asked for.
        exchange: How the ranks' rows meet: "gather", "ring", "auto" (either), or "shards" of class weights.
    """

    given: Given
    task: Task
    height: int | None
    hyper: Learned
    sides: tuple[torch.Tensor, torch.Tensor | None]
    kept: tuple[Any, Any]
    labels: tuple[torch.Tensor, torch.Tensor] | None
    asked: tuple[bool, bool]
    exchange: str
    text: str

    @classmethod
    def of(cls, loss: Any, ready: Ready, ranks: Ranks, asked: bool | None) -> Own:
        """Check everything that can go wrong on one rank alone.

        ``asked``: whether for the gradient, None: what autograd needs.
        """
        given, task, height = ready()
        if not is_torch(given.anchors):
            raise BackendError(
                f"expected torch tensors with group, got {type(given.anchors).__name__}; convert them, or leave it out"
            )
        hyper = learned(loss)
        task = hyper.asked_of(task)
        # Up to here only class weights are marked as equal.
        sharded = given.equal and ranks.class_weights == "sharded"
        equal = given.equal or (given.references is not None and ranks.references == "equal")
        given = replace(given, equal=equal and not sharded)
        sides = (given.anchors.detach(), None if given.references is None else given.references.detach())
        labels, kept = _labels(given, task) if not isinstance(task.relation, Rows) else (None, (None, None))
        if labels is not None:
            sides = tuple(side if at is None else side[at] for side, at in zip(sides, kept, strict=True))
        needs = [_needs(given.anchors), _needs(given.references), *map(_needs, hyper.values.values())]
        needs = needs if asked is None else [asked, asked and given.references is not None]
        # A hyper-parameter's gradient comes with the anchors'.
        wanted = (needs[0] or any(needs[2:]), needs[1])
        exchange = "shards" if sharded else ranks.exchange
        if labels is None or given.equal:
            exchange = "gather"  # nothing is
        if parts_of(task.loss) is None:
            if exchange == "ring":
                raise _whole_rows(loss, "exchange='ring'", "exchange='gather'")
            if loss.has_class_weights and ranks.class_weights == "sharded":
                raise _whole_rows(loss, "class_weights='sharded'", "class_weights='equal'")
            exchange = "gather"
        if sharded and labels is not None:
            _expect_numbered(labels[1])
        text = _described(loss, given, task, exchange)
        return cls(given, task, height, hyper, sides, kept, labels, wanted, exchange, text)

    def settled(self, counts: tuple[list[int], list[int]]) -> Own:
        """With "auto" decided, by what all ranks know: how many rows each holds."""
        if self.exchange != "auto":
            return self
        rows = sum(sum(held) for held, shared in zip(counts, self.shared, strict=True) if shared)
        size = rows * self.sides[0].shape[1] * self.task.anchors.element_size()
        return replace(self, exchange="ring" if size > GATHERED else "gather")

    @property
    def shared(self) -> tuple[bool, bool]:
        """Whether anchors and references of all ranks meet in one table: a batch with itself, references held apart."""
        if self.labels is None or self.given.equal or self.exchange == "ring":
            return False, False
        if self.sides[1] is None or self.exchange == "shards":
            return True, False
        return self.given.both, True

    @property
    def counts(self) -> tuple[int, int]:
        """How many anchors and references take part."""
        return self.sides[0].shape[0], 0 if self.sides[1] is None else self.sides[1].shape[0]


def _labels(given: Given, task: Task) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[Any, Any]]:
    """Integer labels of both sides without what is ignored, and the places that stay."""
    relation, xp = task.relation, task.xp
    if isinstance(relation, Aligned):
        relation.bind(xp, task.anchors, task.references)
        if given.equal:
            raise InputError("expected aligned rows to be each rank's own, got references='equal'; leave it out")
        places = torch.arange(task.anchors.shape[0], device=task.anchors.device)
        return (places, places), (None, None)
    if not isinstance(relation, Labels):
        raise InputError(
            f"expected labels or aligned rows with group, got {type(relation).__name__}, which says nothing about "
            "pairs of two ranks; give every item a label"
        )
    book: dict[Any, int] = {}
    for name, labels in (("labels", relation.labels), ("reference_labels", relation.reference_labels)):
        if labels is not None:
            integers(xp, labels, name, task.anchors, book)
    if book or isinstance(relation.ignore, str):
        raise BackendError(
            "expected integer labels with group, got strings, which each rank would number in its own way; "
            "number the classes once for all"
        )
    kept, rows, columns = relation.kept(xp, task.anchors, task.references)
    own = kept.labels
    return (own, own if kept.reference_labels is None else kept.reference_labels), (rows, columns)


def _whole_rows(loss: Any, asked: str, remedy: str) -> InputError:
    return InputError(
        f"expected a loss of log-sum-exps or of single pairs with {asked}, got {loss!r}, "
        f"which looks at all references of an anchor at once; use Ranks({remedy})"
    )


def _expect_numbered(classes: torch.Tensor) -> None:
    """Refuse class weights that are not one row a class."""
    if not torch.equal(classes, torch.arange(len(classes), device=classes.device)):
        raise InputError(
            "expected one row of class_weights a class with class_weights='sharded', got several; "
            "use Ranks(class_weights='equal')"
        )


def _described(loss: Any, given: Given, task: Task, exchange: str) -> str:
    """What must be alike on all ranks."""
    parameters = (f.name for f in fields(loss) if not isinstance(getattr(loss, f.name), torch.Tensor))
    name = f"{type(loss).__name__}({', '.join(f'{p}={getattr(loss, p)!r}' for p in parameters)})"
    kind = "given pairs" if isinstance(task.relation, Rows) else type(task.relation).__name__.lower()
    form = "views" if given.numbered else f"{kind} both ways" if given.both else kind
    others = "no references"
    if given.references is not None:
        others = f"{given.references.shape[0]} equal references" if given.equal else "references of its own"
    if exchange != "gather":
        others = "class weights in shards" if exchange == "shards" else f"{others} (exchange {exchange!r})"
    features = tuple(given.anchors.shape[1:])
    return f"{name} on {form} with {others}, {features} features of {given.anchors.dtype} (form {FORM})"


def _needs(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and torch.is_grad_enabled() and tensor.requires_grad
