"""A loss: hyper-parameters, one rule on a strip, and the ways to call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, expect_matrix, is_jax, namespace, working_copy
from nearfar._errors import InputError, ShapeError
from nearfar.engine import Engine, Executor, Given, Task, height
from nearfar.losses.dispatch import Ready, gradients_of, value_of
from nearfar.losses.hyper import expect_kinds
from nearfar.losses.inputs import relation_of, stack_views
from nearfar.losses.sums import added, added_to, scaled
from nearfar.measures import Measure, expect_kind
from nearfar.measures.base import Prepared
from nearfar.relations import Aligned, BoundRelation, Pair, Relation, Rows


class PairLoss:
    """Base of all losses on pairs; a subclass is a frozen dataclass with a ``measure`` and a :meth:`strip`.

    Called with embeddings and labels it returns the mean loss, in the dtype and on the device of the embeddings and
    differentiable in PyTorch. ``labels`` may be a relation instead: :class:`~nearfar.Labels`,
    :class:`~nearfar.Mask`, :class:`~nearfar.Aligned`.
    """

    kind: ClassVar[str]
    has_class_weights: ClassVar[bool] = False
    # Hyper-parameters whose gradient is a moment of the weights, and how the loss sees them: "divisor", through
    # measure / value; "offset", through measure / temperature + value; "origin", through measure − value.
    learnable: ClassVar[Mapping[str, str]] = {}
    # Of a loss on log-sum-exps: the factor between measure and exponent, where that is all there is between them.
    linear: ClassVar[Any] = None
    measure: Measure

    def __post_init__(self) -> None:
        """Refuse a measure of the other kind and hyper-parameters that cannot be."""
        expect_kind(self, self.measure, self.kind)
        expect_kinds(self)
        if not any(is_jax(value) for value in vars(self).values()):  # What JAX traces has no value to look at.
            self.check()

    def check(self) -> None:
        """Raise for hyper-parameters that cannot be; subclasses fill it."""

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Loss of each anchor and weight of each pair, ∂loss/∂measure.

        Args:
            xp: The array namespace.
            s: The measure; shape (anchors, references). It belongs to the strip and may be overwritten.
            pair: The relation of the same shape.

        Returns:
            The sum of each anchor's terms, shape (anchors,) or (anchors, 1), and the weights, shaped like ``s``.
        """
        raise NotImplementedError

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Terms that each anchor contributes to the mean: 1 where it has a positive, unless a loss says otherwise."""
        return xp.astype(pair.positive_count > 0, weight.dtype)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> Executor | None:
        """A faster way to run this loss on a batch against itself, or on two aligned batches in both directions.

        None where there is none; :meth:`strip` stays the definition.
        """
        return None

    def __call__(
        self,
        embeddings: Array,
        labels: Any,
        *,
        references: Array | None = None,
        reference_labels: Any = None,
        class_weights: Array | None = None,
        ignore_label: int | str | None = None,
        engine: Engine = "auto",
        group: Any = None,
    ) -> Array:
        """The mean loss of a batch.

        Args:
            embeddings: The anchors; shape (anchors, features).
            labels: One label an anchor, or a relation.
            references: What anchors are compared with; shape (references, features). Left out: the batch itself.
            reference_labels: One label a reference.
            class_weights: For losses that have them, one row a class; label c means row c. A label without a row is an
                error, but for ``ignore_label``, for labels that JAX traces and for sharded class weights.
            ignore_label: A label whose items take part in nothing.
            engine: ``"auto"``, ``"dense"`` or :class:`nearfar.engine.Strips`.
            group: Ranks whose batches are one: :class:`nearfar.torch.Ranks` or a torch.distributed process group;
                under JAX the mesh axis of ``shard_map`` (:mod:`nearfar.jax`).

        Returns:
            A scalar of the caller's library; 0 with gradient 0 where no anchor has what the loss needs.

        Raises:
            ShapeError: The shapes do not fit each other.
            BackendError: Not floating arrays of one library, dtype and device.
        """
        options = (references, reference_labels, class_weights, ignore_label)
        return self._evaluate(lambda: self._given(embeddings, labels, *options), engine, group)

    def per_anchor(
        self,
        embeddings: Array,
        labels: Any,
        *,
        references: Array | None = None,
        reference_labels: Any = None,
        class_weights: Array | None = None,
        ignore_label: int | str | None = None,
        engine: Engine = "auto",
        group: Any = None,
    ) -> Array:
        """The mean of each anchor's own terms, shape (anchors,); 0 for an anchor without what the loss needs."""
        if group is not None:
            raise InputError(
                "expected no group with per_anchor, got one; gather the references and pass them, or call the loss"
            )
        options = (references, reference_labels, class_weights, ignore_label)
        return self._evaluate(lambda: self._given(embeddings, labels, *options), engine, None, per_anchor=True)

    def value_and_grad(
        self,
        embeddings: Array,
        labels: Any,
        *,
        references: Array | None = None,
        reference_labels: Any = None,
        class_weights: Array | None = None,
        ignore_label: int | str | None = None,
        engine: Engine = "auto",
        group: Any = None,
    ) -> tuple[Array, Any]:
        """The loss and its exact gradient, on any library.

        Returns:
            The value and the gradient of the embeddings; with references or class weights the pair of both gradients.
            With a group those of :class:`nearfar.torch.Ranks`, whose average over ranks is the gradient.
        """
        options = (references, reference_labels, class_weights, ignore_label)
        return gradients_of(self, embeddings, lambda: self._given(embeddings, labels, *options), engine, group)

    def views(self, *views: Array, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of two or more views of the same items: row i of every view is one item.

        Args:
            *views: One batch of embeddings a view, all of shape (items, features).
            engine: How to run it.
            group: Ranks that share the loss; an item and its views lie on one of them.

        Returns:
            The mean over all rows of all views.
        """

        def given() -> Given:
            batch, relation = stack_views(views)
            return Given(batch, None, relation, numbered=True)

        return self._evaluate(given, engine, group)

    def aligned(self, left: Array, right: Array, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of two batches whose rows match one to one, averaged over both directions.

        Args:
            left: For example images; shape (items, features).
            right: For example texts; shape (items, features).
            engine: How to run it.
            group: Ranks that share the loss; an item's two rows lie on one of them.
        """
        return self._evaluate(lambda: Given(left, right, Aligned(), both=True), engine, group)

    __add__, __radd__ = added, added_to
    __mul__ = __rmul__ = scaled

    def _table(
        self,
        embeddings: Array,
        labels: Any,
        references: Array | None,
        reference_labels: Any,
        class_weights: Array | None,
        ignore_label: int | str | None,
    ) -> tuple[Array | None, Relation | Rows]:
        """References and relation of a call on a batch."""
        if class_weights is not None:
            raise InputError(
                f"expected no class_weights, got them for {type(self).__name__}; pass them as references, "
                "with reference_labels, to compare the embeddings with them"
            )
        return references, relation_of(labels, reference_labels, ignore_label)

    def _given(self, embeddings: Array, labels: Any, *options: Any) -> Given:
        """What a call on a batch is given; ``options`` as of :meth:`_table`."""
        references, relation = self._table(embeddings, labels, *options)
        return Given(embeddings, references, relation, equal=options[2] is not None)

    def _evaluate(
        self, given: Callable[[], Given], engine: Engine, group: Any = None, per_anchor: bool = False
    ) -> Array:
        """The loss of what a call form is given."""
        return value_of(self, given, engine, group, per_anchor)

    def _ready(self, given: Given, engine: Engine) -> Ready:
        """The task of a call and the height of its strips, checked."""
        task = self._task(given.anchors, given.references, given.relation, given.both)
        return given, task, height(engine, task)

    def _task(self, anchors: Array, references: Array | None, relation: Relation | Rows, both: bool = False) -> Task:
        xp = namespace(embeddings=anchors, references=references)
        if not isinstance(relation, Rows):
            expect_matrix("embeddings", anchors)
            if references is not None:
                expect_matrix("references", references)
                if references.shape[1] != anchors.shape[1]:
                    raise ShapeError(
                        f"expected references with {anchors.shape[1]} features like the embeddings, "
                        f"got {references.shape[1]}; embed both with the same model"
                    )
        copy = working_copy(xp, anchors)
        return Task(self, xp, copy, None if references is None else working_copy(xp, references), relation, both)
