"""Hyper-parameters of a loss that are learned with the model: temperature, bias, boundary."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch

from nearfar._arrays import integers, is_torch, namespace
from nearfar._errors import BackendError, InputError, expect_whole
from nearfar.engine.moments import MOMENTS, refusal, with_values


class Learnable(torch.nn.Module):
    r"""A loss whose temperature, bias or boundary is a parameter, with its exact gradient.

    The weight of a pair is :math:`w_{ij} = \partial L / \partial s_{ij}`; a loss that sees the hyper-parameter through
    an affine map of the measure only has

    .. math::
        z = s / \tau + b: \quad
        \frac{\partial L}{\partial \tau} = -\frac1\tau \sum_{ij} w_{ij} s_{ij}, \quad
        \frac{\partial L}{\partial b} = \tau \sum_{ij} w_{ij}; \qquad
        z = s - \beta: \quad \frac{\partial L}{\partial \beta_i} = -\sum_j w_{ij}

    A temperature is kept as ``logit_scale`` :math:`= \log (1 / \tau)`, as in CLIP, a bias and a boundary as they are.
    Parameters are float32, under autocast too; ``module.double()`` makes them float64. Leave them out of weight decay.

    Args:
        loss: The loss, at the values to start from. Learned can be: ``temperature`` of SupCon, InfoNCE, SigLIP,
            cross-entropy, binary cross-entropy, NCA and SmoothAP; ``bias`` of SigLIP; ``beta`` of margin; ``base`` of
            multi-similarity; and what a loss of your own names in ``learnable``.
        *names: Which of its hyper-parameters.
        largest_scale: The largest :math:`1 / \tau`; 100 in CLIP. In training a parameter beyond it is set back when
            the loss is called (CLIP: after each step); in evaluation the value is limited, and its gradient 0 beyond.
        classes: One boundary for each of so many classes, that of the anchor's (Wu 2017); labels are 0 … classes − 1.

    Raises:
        InputError: A hyper-parameter that is no such thing (a hinge's margin), or a start beyond the largest scale.
        BackendError: Embeddings that are not torch tensors.

    Example:
        >>> import torch
        >>> import nearfar as nf
        >>> from nearfar.torch import Learnable
        >>> clip = Learnable(nf.InfoNCELoss(temperature=0.07), "temperature", largest_scale=100)
        >>> images, texts = torch.eye(2), torch.tensor([[0.8, 0.6], [0.6, 0.8]])
        >>> clip.aligned(images, texts).backward()
        >>> [name for name, _ in clip.named_parameters()], round(clip.logit_scale.grad.item(), 4)
        (['logit_scale'], -0.1552)
        >>> round(clip.loss.temperature, 4)
        0.07

    Time: a temperature on a similarity costs one product of rows and gradient; a bias, a boundary, or a temperature on
    a distance gives up half tiles. Memory: of the loss.

    References:
        Radford et al., "CLIP", ICML 2021, section 2.5; Zhai et al., "SigLIP", ICCV 2023, algorithm 1;
        Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017, eq. (6) (the boundary of a class).
    """

    logit_scale: torch.nn.Parameter

    def __init__(self, loss: Any, *names: str, largest_scale: float | None = None, classes: int | None = None) -> None:
        super().__init__()
        self._kinds = _kinds(loss, names)
        self._start, self._classes = loss, classes
        self._top = _top(loss, self._kinds, largest_scale)
        if classes is not None:
            _expect_classes(self._kinds, classes)
        for name, kind in self._kinds.items():
            value = getattr(loss, name)
            start = -math.log(value) if kind == "divisor" else value
            shape = () if classes is None else (classes,)
            self.register_parameter(
                _stored(name, kind), torch.nn.Parameter(torch.full(shape, start, dtype=torch.float32))
            )

    @property
    def loss(self) -> Any:
        """The loss at the current values, which are plain numbers; on a GPU this waits for the device."""
        if self._classes is not None:
            raise InputError("expected one boundary for all classes, got one for each; read the parameter instead")
        return replace(self._start, **{name: self._value(name).item() for name in self._kinds})

    def forward(self, embeddings: torch.Tensor, labels: Any, **options: Any) -> torch.Tensor:
        """The loss of a batch; arguments as of :meth:`nearfar.PairLoss.__call__`."""
        return cast("torch.Tensor", self._held(embeddings, labels, options)(embeddings, labels, **options))

    def per_anchor(self, embeddings: torch.Tensor, labels: Any, **options: Any) -> torch.Tensor:
        """Each anchor's loss; arguments as of :meth:`nearfar.PairLoss.per_anchor`."""
        held = self._held(embeddings, labels, options)
        return cast("torch.Tensor", held.per_anchor(embeddings, labels, **options))

    def views(self, *views: torch.Tensor, **options: Any) -> torch.Tensor:
        """The loss of views of the same items."""
        return self._form("views", views, options)

    def aligned(self, left: torch.Tensor, right: torch.Tensor, **options: Any) -> torch.Tensor:
        """The loss of two batches whose rows match."""
        return self._form("aligned", (left, right), options)

    def pairs(self, left: torch.Tensor, right: torch.Tensor, same: Any, **options: Any) -> torch.Tensor:
        """The loss of given pairs, of losses that have it."""
        return self._form("pairs", (left, right, same), options)

    def similarities(self, similarity: torch.Tensor, same: Any, **options: Any) -> torch.Tensor:
        """The loss of given similarities, of losses that have it."""
        return self._form("similarities", (similarity, same), options)

    def extra_repr(self) -> str:
        """The loss it started from and what is learned."""
        return ", ".join([repr(self._start), *self._kinds])

    def _form(self, name: str, given: tuple[Any, ...], options: dict[str, Any]) -> torch.Tensor:
        if not hasattr(self._start, name):
            raise InputError(f"expected a loss with the form .{name}, got {type(self._start).__name__}; use another")
        held = self._held(given[0] if given else None, None, options)
        return cast("torch.Tensor", getattr(held, name)(*given, **options))

    def _held(self, embeddings: Any, labels: Any, options: dict[str, Any]) -> Any:
        """The loss with tensors for hyper-parameters, so that nothing waits for a device."""
        if embeddings is not None and not is_torch(embeddings):
            raise BackendError(f"expected torch tensors, got {type(embeddings).__name__}; use module.loss")
        if self._top is not None and self.training:
            # Through .data: nothing that an earlier call has saved for its backward pass changes.
            self.logit_scale.data.clamp_(max=self._top)
        values = {name: self._value(name) for name in self._kinds}
        if self._classes is not None:
            place = _class_of(embeddings, labels, options.get("ignore_label"), self._classes)
            values = {name: value[place] for name, value in values.items()}
        return with_values(self._start, values)

    def _value(self, name: str) -> torch.Tensor:
        kind = self._kinds[name]
        stored: torch.Tensor = getattr(self, _stored(name, kind))
        if kind != "divisor":
            return stored
        limited = stored if self._top is None or self.training else stored.clone().clamp(max=self._top)
        return torch.exp(-limited)


def _stored(name: str, kind: str) -> str:
    return "logit_scale" if kind == "divisor" else name


def _kinds(loss: Any, names: tuple[str, ...]) -> dict[str, str]:
    """How the loss sees each of the names."""
    learnable = getattr(type(loss), "learnable", None)
    if learnable is None:
        raise InputError(
            f"expected a loss, got {type(loss).__name__}; of a sum make each part learnable and add their values"
        )
    for name in names:
        if name not in learnable:
            raise refusal(loss, name)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"expected names among {sorted(learnable)}, each once, got {list(names)}; say which are learned"
        )
    for name in names:
        if learnable[name] not in MOMENTS:
            raise InputError(
                f"expected learnable to say one of {sorted(MOMENTS)} of {name}, got {learnable[name]!r}; see PairLoss"
            )
    return {name: learnable[name] for name in names}


def _top(loss: Any, kinds: dict[str, str], largest_scale: float | None) -> float | None:
    """The largest ``logit_scale``."""
    if largest_scale is None:
        return None
    name = next((name for name, kind in kinds.items() if kind == "divisor"), None)
    if name is None or not 0 < largest_scale < math.inf:
        raise InputError(f"expected a finite largest_scale > 0 of a temperature, got {largest_scale}; 100 in CLIP")
    if getattr(loss, name) * largest_scale < 1:
        raise InputError(
            f"expected {name} >= 1 / largest_scale = {1 / largest_scale}, got {getattr(loss, name)}; raise either"
        )
    return math.log(largest_scale)


def _expect_classes(kinds: dict[str, str], classes: int) -> None:
    expect_whole("classes", classes, remedy="count the labels")
    if set(kinds.values()) != {"origin"}:
        raise InputError(
            f"expected classes with a boundary (beta of MarginLoss), got {list(kinds)}; only a boundary has one a class"
        )


def _class_of(embeddings: torch.Tensor, labels: Any, ignore: Any, classes: int) -> torch.Tensor:
    """The class of each anchor as a place among the parameters; a negative label is out of range, not from the end."""
    if labels is None or hasattr(labels, "bind"):
        raise InputError("expected a label an anchor, got none; boundaries of classes need labels, not pairs or views")
    book: dict[Any, int] = {}
    own: torch.Tensor = integers(namespace(embeddings=embeddings), labels, "labels", embeddings, book)
    if book or isinstance(ignore, str):
        raise InputError("expected integer labels 0 … classes − 1, got strings; number the classes")
    if ignore is not None:
        own = torch.where(own == ignore, 0, own)
    return torch.where(own < 0, classes, own)
