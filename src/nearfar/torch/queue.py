"""A queue of embeddings of past batches, to compare the next batch with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nearfar._arrays import Array, Namespace, expect_matrix, integers, namespace
from nearfar._errors import BackendError, ShapeError, expect_whole
from nearfar.relations import Labels, Pair, Relation
from nearfar.relations.labels import BoundLabels, LabelPair
from nearfar.torch.ranks import Ranks


class EmbeddingQueue(torch.nn.Module):
    r"""The newest ``size`` embeddings of past batches and their labels (cross-batch memory).

    A batch :math:`B` is compared with :math:`B \cup M`, :math:`M` the queue; no item is its own pair:

    .. math::
        P_i = \{ j \in (B \cup M) \setminus \{i\} : y_j = y_i \}, \qquad N_i = \{ j \in B \cup M : y_j \ne y_i \}

    Two ways to use it, both followed by ``queue.add(x, y)``, after the loss and not before it: the queue cannot know
    that an item compared with it is already inside, and would give the item itself as its positive.

    - ``references, relation = queue.with_batch(x, y)`` and ``loss(x, relation, references=references)``: the formula
      above, gradient on both sides. ``queue.with_batch(x.detach(), y)`` leaves the anchors' gradient only, the form of
      the paper.
    - ``references, reference_labels = queue.contents()`` and
      ``loss(x, y, references=references, reference_labels=reference_labels)``: against past batches only.

    All state is in ``state_dict()``: ``embeddings``, ``labels``, ``position`` (the next place to write) and ``filled``.

    Args:
        size: How many embeddings it holds.
        dimension: Features of an embedding.
        dtype: What they are kept in.

    Raises:
        InputError: A size or dimension below 1.
        BackendError: A dtype that is not floating.

    Example:
        >>> import torch
        >>> import nearfar as nf
        >>> from nearfar.torch import EmbeddingQueue
        >>> queue, loss = EmbeddingQueue(size=6, dimension=2), nf.SupConLoss()
        >>> _ = torch.manual_seed(0)
        >>> for _ in range(2):
        ...     x, y = torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 0, 1])
        ...     references, relation = queue.with_batch(x, y)
        ...     loss(x, relation, references=references).backward()
        ...     queue.add(x, y)
        >>> len(queue), queue.contents()[1].tolist()
        (6, [0, 1, 0, 1, 0, 1])

    Distributed: with ``add(…, group=…)`` every rank keeps the rows of all ranks, in rank order, so that the queue is
    equal on all. Compare with it by ``loss(x, y, references=references, reference_labels=reference_labels,
    group=Ranks(references="equal"))``, beside ``loss(x, y, group=Ranks())``; ``with_batch`` is for one rank. Keep the
    queue outside a ``DistributedDataParallel`` model, which would overwrite it with rank 0's.

    Memory: size × (dimension + 1); a copy of as much in ``contents`` and ``with_batch``, so that adding to the queue
    between forward and backward changes nothing.

    Reference:
        Wang, Zhang, Huang, Scott, "Cross-Batch Memory for Embedding Learning", CVPR 2020, algorithm 1 (there the
        memory holds the batch already, detached); He et al., "Momentum Contrast", CVPR 2020 (the queue).
    """

    embeddings: torch.Tensor
    labels: torch.Tensor
    position: torch.Tensor
    filled: torch.Tensor

    def __init__(self, size: int, dimension: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        for name, given in (("size", size), ("dimension", dimension)):
            expect_whole(name, given, remedy="try 4096 and 128")
        if not dtype.is_floating_point:
            raise BackendError(f"expected a floating dtype, got {dtype}; embeddings are real numbers")
        self.register_buffer("embeddings", torch.zeros(size, dimension, dtype=dtype))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._read: tuple[torch.Tensor, int, torch.Tensor, int, int, int] | None = None

    def __len__(self) -> int:
        """How many embeddings it holds now."""
        return self._places()[1]

    @torch.no_grad()
    def add(self, embeddings: torch.Tensor, labels: Any, *, group: Any = None) -> None:
        """Take in a batch, detached; the oldest embeddings make room.

        Of a batch larger than the queue the last rows stay.

        Args:
            embeddings: Shape (items, dimension), on the queue's device; kept in the queue's dtype.
            labels: One whole number an item.
            group: :class:`nearfar.torch.Ranks` or a ``torch.distributed`` group, whose ranks' rows are all taken in,
                in rank order; every rank must call, with as many rows as it has, none included.
        """
        own = self._expect(embeddings, labels)
        size = self.embeddings.shape[0]
        rows, own = embeddings.detach()[-size:].to(self.embeddings.dtype), own[-size:]
        if group is not None:
            rows, own = _of_all_ranks(rows, own, group.group if isinstance(group, Ranks) else group)
            rows, own = rows[-size:], own[-size:]
        position, filled = self._places()
        count = rows.shape[0]
        first = min(count, size - position)
        for store, new in ((self.embeddings, rows), (self.labels, own)):
            store[position : position + first] = new[:first]
            store[: count - first] = new[first:]
        self._write((position + count) % size, min(filled + count, size))

    def contents(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy of its embeddings and labels, the oldest first, to pass as ``references`` and ``reference_labels``."""
        position, filled = self._places()
        kept = [torch.cat([store[position:filled], store[:position]]) for store in (self.embeddings, self.labels)]
        return kept[0], kept[1]

    def with_batch(
        self, embeddings: torch.Tensor, labels: Any, *, ignore_label: int | None = None
    ) -> tuple[torch.Tensor, Relation]:
        """The batch followed by the queue as references, and who belongs together: equal labels, no item with itself.

        Call it before :meth:`add`; pass the relation in the place of the labels.

        Args:
            embeddings: The batch, which will also be the anchors; shape (items, dimension). Its gradient is kept, and
                the references have its dtype.
            labels: One whole number an item.
            ignore_label: A label whose items, in the batch and in the queue, take part in nothing.

        Returns:
            References of shape (items + held, dimension), and the relation.
        """
        own = self._expect(embeddings, labels)
        past, past_labels = self.contents()
        references = torch.cat([embeddings, past.to(embeddings.dtype)])
        return references, _BatchAndQueue(Labels(own, torch.cat([own, past_labels]), ignore_label))

    def extra_repr(self) -> str:
        """Size, dimension and dtype."""
        size, dimension = self.embeddings.shape
        return f"size={size}, dimension={dimension}, dtype={self.embeddings.dtype}"

    def _expect(self, embeddings: torch.Tensor, labels: Any) -> torch.Tensor:
        """Check a batch; its labels as integers on the device."""
        xp = namespace(embeddings=embeddings)
        expect_matrix("embeddings", embeddings)
        if not isinstance(embeddings, torch.Tensor) or embeddings.device != self.embeddings.device:
            got = embeddings.device if isinstance(embeddings, torch.Tensor) else type(embeddings).__name__
            raise BackendError(f"expected embeddings on {self.embeddings.device}, got {got}; move the queue with .to()")
        if embeddings.shape[1] != self.embeddings.shape[1]:
            raise ShapeError(
                f"expected embeddings of {self.embeddings.shape[1]} features, got {embeddings.shape[1]}; "
                "make the queue with the model's dimension"
            )
        words: dict[Any, int] = {}
        own: torch.Tensor = integers(xp, labels, "labels", embeddings, words)
        if words:
            raise BackendError("expected labels to be whole numbers, got strings; number the classes once for all")
        if own.shape[0] != embeddings.shape[0]:
            raise ShapeError(
                f"expected {embeddings.shape[0]} labels, one an item, got {own.shape[0]}; take both from one batch"
            )
        return own

    def _places(self) -> tuple[int, int]:
        """Position and number of rows; read from the device only where another has written or moved them."""
        a, b = self.position, self.filled
        read = self._read
        if read is None or read[0] is not a or read[2] is not b or (read[1], read[3]) != (a._version, b._version):
            read = self._read = (a, a._version, b, b._version, int(a), int(b))
        return read[4], read[5]

    def _write(self, position: int, filled: int) -> None:
        a, b = self.position.fill_(position), self.filled.fill_(filled)
        self._read = (a, a._version, b, b._version, position, filled)


def _of_all_ranks(rows: torch.Tensor, labels: torch.Tensor, group: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows and labels of all ranks in rank order: one gather for counts, one for rows, one for labels."""
    from torch import distributed

    world = distributed.get_world_size(group)

    def gather(own: torch.Tensor) -> torch.Tensor:
        everyone = own.new_empty((world, *own.shape))
        distributed.all_gather(list(everyone.unbind()), own, group=group)
        return everyone

    # Shapes depend on the counts: the one wait for the device.
    counts = gather(torch.tensor(rows.shape[0], device=rows.device)).tolist()
    longest = max(counts)
    if longest == 0:
        return rows, labels
    padded = rows.new_zeros((longest, rows.shape[1])), labels.new_zeros((longest,))
    padded[0][: rows.shape[0]], padded[1][: rows.shape[0]] = rows, labels
    kept = [torch.cat([own[:n] for own, n in zip(gather(p), counts, strict=True)]) for p in padded]
    return kept[0], kept[1]


@dataclass(frozen=True, eq=False)
class _BatchAndQueue:
    """Labels of anchors against references that begin with the anchors themselves; an item is never its own pair."""

    labels: Labels

    def kept(
        self, xp: Namespace, anchors: Array, references: Array | None
    ) -> tuple[_BatchAndQueue, Array | None, Array | None]:
        """Without ignored items, the references still begin with the anchors."""
        self._expect(anchors, references)
        labels, rows, columns = self.labels.kept(xp, anchors, references)
        return _BatchAndQueue(labels), rows, columns

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> _BoundBatchAndQueue:
        """Tie to a table."""
        self._expect(anchors, references)
        own, other, _ = self.labels.codes(xp, anchors, references)
        return _BoundBatchAndQueue(BoundLabels(xp, own, other, True, anchors))

    def _expect(self, anchors: Array, references: Array | None) -> None:
        if references is None or references.shape[0] < anchors.shape[0]:
            got = "none" if references is None else references.shape[0]
            raise ShapeError(
                f"expected references that begin with the {anchors.shape[0]} anchors, got {got}; "
                "pass both results of with_batch"
            )


@dataclass(frozen=True, eq=False)
class _BoundBatchAndQueue:
    """A batch against itself with more columns; no :class:`BoundLabels`, whose table would be symmetric."""

    inner: BoundLabels

    def strip(self, start: int, stop: int) -> Pair:
        """The lists of the strip's anchors."""
        return LabelPair(self.inner, slice(start, stop))
