"""One loss on the batches of many ranks, with the gradient of one big batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nearfar._errors import InputError
from nearfar.engine import Outcome, Task
from nearfar.torch._agreement import agreed
from nearfar.torch._autograd import apply, exactly
from nearfar.torch._collectives import Collectives
from nearfar.torch._own import Own, Ready
from nearfar.torch._peers import RankPeers, whole_table


@dataclass(frozen=True)
class Ranks:
    """How the ranks of a job share a loss: ``loss(embeddings, labels, group=Ranks())``.

    The value is the mean over the anchors of all ranks, the same on each. The gradient is such that its average over
    ranks, which ``DistributedDataParallel`` takes, is that of one big batch: each rank gets the gradient of its own
    rows times the number of ranks. Ranks may hold different numbers of rows, or none.

    Args:
        group: A process group of torch.distributed; None: all ranks of the job.
        references: What ``references=`` of a call are. ``"own"``: each rank holds its share; they are gathered, and
            their gradient goes back to the rank that holds them. ``"equal"``: every rank holds the same ones (a queue).
        class_weights: What ``class_weights=`` of a call are. ``"equal"``: every rank holds all of them. ``"sharded"``:
            each rank holds some classes, numbered through in rank order; they stay where they are, and the embeddings
            are gathered. A rank's shard gets its whole gradient, which is not to be averaged: keep the shard out of
            ``DistributedDataParallel``.
        exchange: How embeddings, or references of each rank's own, meet those of other ranks. ``"gather"``: every rank
            gets all. ``"ring"``: they travel round, so that a rank holds two ranks' rows at a time; twice for a loss
            of log-sum-exps. ``"auto"``: the ring where gathered rows would take more than 1 GiB, and the loss can.

    Raises:
        InputError: Another word for one of these; no process group; ``"ring"`` or ``"sharded"`` with a loss that looks
            at all references of an anchor at once (triplets, rankings, lifted structure, mined multi-similarity); a
            call that is not the same on all ranks. What is wrong on one rank raises the same error on all of them.

    Example:
        >>> import torch
        >>> import nearfar as nf
        >>> from nearfar.torch import Ranks
        >>> store = torch.distributed.HashStore()  # a job of one rank; torchrun starts more
        >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> x, y = torch.eye(4, requires_grad=True), torch.tensor([0, 0, 1, 1])
        >>> loss = nf.SupConLoss()
        >>> bool(torch.isclose(loss(x, y, group=Ranks()), loss(x, y)))
        True
        >>> torch.distributed.destroy_process_group()

    Memory: the embeddings of all ranks and their gradient, and a strip of the table. In the ring: two blocks and their
    gradients, the labels of all, each anchor's positives, and a strip. With shards: all embeddings and their gradient,
    the shard and its gradient, and a strip.
    """

    group: Any = None
    references: str = "own"
    class_weights: str = "equal"
    exchange: str = "gather"

    def __post_init__(self) -> None:
        """Refuse other words."""
        _expect("references", self.references, ("own", "equal"), "'own' gathers each rank's share")
        _expect("class_weights", self.class_weights, ("equal", "sharded"), "'sharded' leaves each rank its classes")
        _expect("exchange", self.exchange, ("gather", "ring", "auto"), "'ring' holds two ranks' rows at a time")


def _expect(name: str, got: Any, words: tuple[str, ...], remedy: str) -> None:
    if got not in words:
        raise InputError(f"expected {name} to be {' or '.join(map(repr, words))}, got {got!r}; {remedy}")


def value_of(loss: Any, ready: Ready, group: Any) -> torch.Tensor:
    """The loss as a tensor of the caller's graph."""
    share = _Share.of(loss, ready, group, asked=None)
    given = share.own.given
    return apply(lambda *_: share.run(), given.anchors, given.references, False, share.own.hyper)


def outcome_of(loss: Any, ready: Ready, group: Any) -> Outcome:
    """The loss with its gradient."""
    return _Share.of(loss, ready, group, asked=True).run()


@dataclass
class _Share:
    """This rank's share of the table of all ranks: its own anchors against all references."""

    own: Own
    task: Task
    gradient: bool

    @classmethod
    def of(cls, loss: Any, ready: Ready, group: Any, asked: bool | None) -> _Share:
        """Agree with the other ranks on the call, and exchange rows and labels."""
        ranks: Ranks = group if hasattr(group, "references") else Ranks(group)
        among = Collectives(ranks.group)
        found: Own | Exception
        try:
            found = Own.of(loss, ready, ranks, asked)
        except Exception as error:  # the other ranks must hear of it
            found = error
        own, heads = agreed(among, found)
        anchors, references, left, right = (list(column) for column in zip(*heads, strict=True))
        own = own.settled((anchors, references))
        peers = RankPeers(among, (anchors, references), (any(left), any(right)), own.shared)
        with torch.no_grad():
            return cls(own, whole_table(own, peers), any(peers.asked))

    def run(self) -> Outcome:
        """The value over all ranks and the gradient of what this rank was given."""
        given, (rows, columns) = self.own.given, self.own.kept
        with exactly(given.anchors):
            outcome = self.task.run(self.own.height, self.gradient)
            left, right = outcome.gradients
            outcome.gradients = _spread(left, rows, given.anchors), _spread(right, columns, given.references)
            outcome.shift = _spread(outcome.shift, rows, given.anchors)
        return outcome


def _spread(kept: Any, places: Any, like: Any) -> Any:
    """Kept items' values in the places of all items, 0 elsewhere."""
    if kept is None or places is None:
        return kept
    whole = kept.new_zeros((like.shape[0], *kept.shape[1:]))
    whole[places] = kept
    return whole


__all__ = ["Ranks"]
