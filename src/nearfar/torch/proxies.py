"""Class weights, proxies and centres as parameters of a module."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch

from nearfar._arrays import expect_matrix, integers, is_torch, namespace
from nearfar._errors import BackendError, InputError, ShapeError, expect_whole
from nearfar.relations import Labels
from nearfar.relations.labels import expect_classes
from nearfar.torch.learnable import Learnable
from nearfar.torch.ranks import Ranks


class Proxies(torch.nn.Module):
    r"""A loss and the points that stand for the classes, learned with the model.

    ``proxies(embeddings, labels)`` compares each embedding with the rows of ``proxies.weight``, of which class c has
    the rows c · k … c · k + k − 1 (k = ``per_class``). Losses with class weights (cross-entropy, ArcFace, CosFace,
    SphereFace, sub-centre ArcFace, SoftTriple, ProxyNCA, proxy anchor) get them as such; any other loss on pairs gets
    them as labelled references, and so do losses with one weight a class where ``per_class`` is more. Of a sum with a
    part that has class weights, the other parts see the batch alone.

    The weights are float32, under autocast too: embeddings of bfloat16 or float16 are computed in float32, so is the
    value, and each side's gradient has its own dtype. ``module.double()`` makes them float64. Give the module to the
    optimizer with the model; proxies are often given a larger learning rate than the model.

    Args:
        loss: A loss, a sum of losses, or a :class:`Learnable` one.
        classes: How many; labels are 0 … classes − 1. What an item of another label counts for, the loss says.
        features: Of an embedding.
        per_class: Rows a class; None: what the loss says, else 1.
        seed: Of the start, whose rows are drawn from a normal distribution, of length near 1; the same on every device
            and rank.

    Raises:
        InputError: A count below 1, another ``per_class`` than the loss's, no loss, or labels that are no numbers.
        BackendError: Embeddings that are not torch tensors, or on another device.
        ShapeError: Embeddings of another number of features.

    Example:
        >>> import torch
        >>> import nearfar as nf
        >>> from nearfar.torch import Proxies
        >>> proxies = Proxies(nf.ProxyAnchorLoss(), classes=10, features=4, seed=0)
        >>> proxies(torch.eye(4), torch.tensor([3, 3, 8, 0])).backward()
        >>> [(name, tuple(p.shape)) for name, p in proxies.named_parameters()]
        [('weight', (10, 4))]
        >>> proxies.weight.grad.isfinite().all().item()
        True

    Distributed: with ``group=`` every rank holds all weights, equal on all, inside what ``DistributedDataParallel``
    wraps, which averages their gradients. Memory: classes · per_class · features, and that of the loss.

    References:
        Movshovitz-Attias et al., "No Fuss Distance Metric Learning using Proxies", ICCV 2017; Kim et al., "Proxy
        Anchor Loss for Deep Metric Learning", CVPR 2020.
    """

    weight: torch.nn.Parameter
    classes_of_rows: torch.Tensor

    def __init__(self, loss: Any, classes: int, features: int, *, per_class: int | None = None, seed: int) -> None:
        super().__init__()
        parts = _parts(loss)
        if per_class is None:
            per_class = max(getattr(part, "per_class", 1) for part in parts)
        for name, count in (("classes", classes), ("features", features), ("per_class", per_class)):
            expect_whole(name, count, remedy="count them")
        self.loss, self._classes, self._per_class = loss, classes, per_class
        self._as_weights = _as_weights(parts, per_class)
        self.weight = torch.nn.Parameter(torch.empty(classes * per_class, features))
        rows = torch.arange(classes).repeat_interleave(per_class)
        self.register_buffer("classes_of_rows", rows, persistent=False)
        self.reset(seed)

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Draw the weights again, in place: a pure function of the seed and the shape."""
        generator = torch.Generator().manual_seed(expect_whole("seed", seed, 0, "any number will do"))
        rows = torch.randn(self.weight.shape, generator=generator, dtype=torch.float64)
        self.weight.copy_(rows / math.sqrt(self.weight.shape[1]))

    def forward(self, embeddings: torch.Tensor, labels: Any, **options: Any) -> torch.Tensor:
        """The loss of a batch against the weights.

        Args:
            embeddings: Shape (items, features).
            labels: The class of each item, 0 … classes − 1.
            **options: ``ignore_label``, ``engine``, ``group``, as of :meth:`nearfar.PairLoss.__call__`.
        """
        return cast("torch.Tensor", self.loss(*self._given(embeddings, labels, options), **options))

    def per_anchor(self, embeddings: torch.Tensor, labels: Any, **options: Any) -> torch.Tensor:
        """The loss of each anchor: of each item, or (proxy anchor) of each proxy."""
        return cast("torch.Tensor", self.loss.per_anchor(*self._given(embeddings, labels, options), **options))

    def extra_repr(self) -> str:
        """Shape, and a loss that is no module."""
        text = f"classes={self._classes}, features={self.weight.shape[1]}, per_class={self._per_class}"
        return text if isinstance(self.loss, torch.nn.Module) else f"{self.loss!r}, {text}"

    def _given(self, embeddings: torch.Tensor, labels: Any, options: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Embeddings and labels of the call; the weights go into ``options``."""
        for name in ("references", "reference_labels", "class_weights"):
            if options.get(name) is not None:
                raise InputError(f"expected the module's own weights, got {name} as well; call the loss itself with it")
        own = self._expect(embeddings, labels, options.get("ignore_label"))
        kind = torch.promote_types(embeddings.dtype, self.weight.dtype)
        weight = self.weight.to(kind)
        if self._as_weights:
            options["class_weights"] = weight
            if isinstance(options.get("group"), Ranks):
                options["group"] = replace(options["group"], references="own")
            return embeddings.to(kind), own
        options["references"] = weight
        if options.get("group") is not None:
            group = options["group"]
            options["group"] = replace(group, references="equal") if isinstance(group, Ranks) else Ranks(group, "equal")
        ignored = options.get("ignore_label")
        if ignored is None or not 0 <= ignored < self._classes:
            options["reference_labels"] = self.classes_of_rows
            return embeddings.to(kind), own
        # The proxies of an ignored class stay, as class weights do.
        del options["ignore_label"]
        return embeddings.to(kind), Labels(own, self.classes_of_rows, ignored, ignore_references=False)

    def _expect(self, embeddings: Any, labels: Any, ignore_label: Any) -> torch.Tensor:
        """Check a batch; its labels as integers on the device."""
        if not is_torch(embeddings):
            raise BackendError(f"expected torch tensors, got {type(embeddings).__name__}; call the loss itself")
        if embeddings.device != self.weight.device:
            raise BackendError(f"expected embeddings on {self.weight.device}, got {embeddings.device}; move the module")
        xp = namespace(embeddings=embeddings)
        expect_matrix("embeddings", embeddings)
        if embeddings.shape[1] != self.weight.shape[1]:
            raise ShapeError(
                f"expected embeddings of {self.weight.shape[1]} features, got {embeddings.shape[1]}; "
                "make Proxies with the model's"
            )
        if hasattr(labels, "bind"):
            raise InputError(f"expected labels that are classes, got {type(labels).__name__}; call the loss itself")
        words: dict[Any, int] = {}
        own: torch.Tensor = integers(xp, labels, "labels", embeddings, words)
        if words or isinstance(ignore_label, str):
            raise InputError("expected integer labels 0 … classes − 1, got strings; number the classes")
        expect_classes(xp, own, self._classes, ignore_label)
        return own


def _parts(loss: Any) -> list[Any]:
    """The losses inside."""
    loss = loss._start if isinstance(loss, Learnable) else loss
    parts = [part for _, part in loss.parts] if hasattr(loss, "parts") else [loss]
    for part in parts:
        if isinstance(part, type) or not hasattr(part, "strip"):
            raise InputError(f"expected a loss, a sum of losses or Learnable, got {type(part).__name__}; see nearfar")
    return parts


def _as_weights(parts: list[Any], per_class: int) -> bool:
    """Whether the weights are the losses' class weights; else they are labelled references."""
    weighed = [part for part in parts if part.has_class_weights]
    fit = [getattr(part, "per_class", 1) == per_class for part in weighed]
    if all(fit):
        return bool(weighed)
    # One loss of one weight a class finds several among labelled references, unless it turns the table, so that these
    # would be its items.
    part = weighed[fit.index(False)]
    if len(parts) > 1 or hasattr(part, "per_class") or hasattr(part, "passes"):
        wanted = getattr(part, "per_class", 1)
        raise InputError(
            f"expected per_class={wanted} for {type(part).__name__}, got {per_class}; "
            "leave it out, or make a module for each part of a sum"
        )
    return False


__all__ = ["Proxies"]
