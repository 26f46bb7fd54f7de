"""Gradient cache: the loss of a large batch with the activations of a small one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from nearfar._errors import InputError, ShapeError, expect_whole
from nearfar.torch._random import RandomState, devices_of, random_state, set_random_state

Inputs: TypeAlias = "torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]"


def backward_in_chunks(
    model: torch.nn.Module, loss: Callable[..., Any], inputs: Inputs, labels: Any, *, chunk: int, **options: Any
) -> torch.Tensor:
    r"""One training step's backward pass, with the model's activations of ``chunk`` rows at a time.

    .. math::
        \frac{\partial L}{\partial \theta}
        = \sum_k \Big(\frac{\partial z_k}{\partial \theta}\Big)^{\!\top} \frac{\partial L}{\partial z_k}

    with :math:`z_k` the embeddings of chunk :math:`k` and :math:`L` the loss of all of them. The model embeds every
    chunk without a graph, the loss is evaluated once on all embeddings, then the model runs on every chunk again and
    takes that chunk's gradient. Gradients are added to ``.grad``, of the model and of whatever else the loss depends
    on (class weights, references, parameters of its own), as ``loss(model(inputs), labels, **options).backward()``
    would add them.

    Args:
        model: Gives one embedding a row; shape (rows, …). Its forward must treat rows apart and leave its state alone.
        loss: Called as ``loss(embeddings, labels, **options)``: a loss of nearfar, a sum, or any function of a
            scalar value. For other call forms write a function:
            ``lambda z, _: loss.aligned(z[:n], z[n:])``, ``lambda z, _: loss.views(*z.chunk(2))``.
        inputs: A tensor, passed as ``model(x)``; a tuple or list, as ``model(*x)``; a dict, as ``model(**x)``. All
            tensors have the same number of rows, which go together.
        labels: What the loss takes: labels, a relation, or None.
        chunk: Rows at a time; 1 or more.
        **options: For the loss: ``references``, ``class_weights``, ``group``, …

    Returns:
        The value of the loss, detached.

    Raises:
        InputError: A chunk below 1, inputs that are no tensors or have a graph of their own, a loss that is no scalar
            or does not depend on the embeddings, gradients switched off, batch normalisation in training mode (its
            statistics would be those of a chunk, updated twice), another module that changes a buffer, or
            ``DistributedDataParallel(static_graph=True)``.
        ShapeError: Inputs of different numbers of rows, or a model that does not give one embedding a row.

    Example:
        >>> import torch
        >>> import nearfar as nf
        >>> from nearfar.torch import backward_in_chunks
        >>> _ = torch.manual_seed(0)
        >>> model, x, y = torch.nn.Linear(8, 4), torch.randn(32, 8), torch.arange(32) // 4
        >>> value = backward_in_chunks(model, nf.SupConLoss(), x, y, chunk=8)
        >>> cached = model.weight.grad.clone()
        >>> model.zero_grad()
        >>> nf.SupConLoss()(model(x), y).backward()
        >>> bool(torch.allclose(model.weight.grad, cached, atol=1e-6))
        True

    Randomness: both passes over a chunk draw the same numbers of torch's generators on the CPU and on the devices of
    inputs and parameters; afterwards the generators stand where the first pass and the loss left them. Autocast holds
    for both passes and the loss, not for the backward passes. A ``GradScaler`` goes into the loss:
    ``lambda z, y: scaler.scale(loss(z, y))``.

    Distributed: under ``DistributedDataParallel`` all chunks but the last run in ``no_sync()``: one all-reduce of the
    gradients a step, whatever the number of chunks on each rank. A rank without rows passes inputs of 0 rows; its
    model runs once on them, so that it takes part.

    Memory: activations of one chunk, all embeddings and their gradient, and what the loss takes. Time: one more
    forward pass of the model.

    Reference:
        Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
        RepL4NLP 2021, section 3.
    """
    rows = _expect(model, inputs, chunk)
    # Without rows there is one chunk of none, so that the rank takes part in what all ranks do together.
    parts = [slice(start, min(start + chunk, rows)) for start in range(0, max(rows, 1), chunk)]
    devices = devices_of(*_tensors(inputs), *model.parameters())
    embeddings, states = _embed(model, inputs, parts, devices)
    embeddings.requires_grad_()
    value = loss(embeddings, labels, **options)
    _expect_scalar(value)
    found = _parameters_in(value, model)
    with _outside_autocast(embeddings.device):
        value.backward()
    gradient = torch.zeros_like(embeddings) if embeddings.grad is None else embeddings.grad
    after = random_state(devices)
    try:
        for part, state in zip(parts, states, strict=True):
            set_random_state(devices, state)
            last = part is parts[-1]
            with nullcontext() if last else _no_sync(model):
                again = _call(model, inputs, part)
                _pull(again, gradient[part], found if last else [])
    finally:
        set_random_state(devices, after)
    return value.detach()  # type: ignore[no-any-return]


def _expect(model: Any, inputs: Any, chunk: Any) -> int:
    """Check what can be known before the model runs; the number of rows."""
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"expected model to be a torch.nn.Module, got {type(model).__name__}; wrap the call in one")
    expect_whole("chunk", chunk, remedy="try 64 rows")
    if not torch.is_grad_enabled():
        raise InputError("expected gradients to be enabled, got no_grad; call it outside torch.no_grad()")
    if getattr(model, "static_graph", False):
        raise InputError(
            "expected DistributedDataParallel without static_graph, got static_graph=True; "
            "leave it out, as its first step cannot wait for the last chunk"
        )
    tensors = _tensors(inputs)
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            raise InputError(
                f"expected inputs to be tensors, got {type(tensor).__name__}; give other arguments inside the model"
            )
        if tensor.requires_grad and not tensor.is_leaf:
            raise InputError("expected inputs without a graph, got the result of other operations; detach them")
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if not shapes or any(len(shape) == 0 or shape[0] != shapes[0][0] for shape in shapes):
        raise ShapeError(f"expected inputs with the same number of rows, got shapes {shapes}; rows go together")
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise InputError(
                f"expected a model whose rows do not meet, got {type(module).__name__} in training mode at "
                f"{name or 'the top'!r}, which would normalise each chunk on its own; "
                "put it in eval mode, or use LayerNorm or GroupNorm"
            )
    return int(shapes[0][0])


def _tensors(inputs: Any) -> list[Any]:
    if isinstance(inputs, torch.Tensor):
        return [inputs]
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, Sequence) else [inputs]


def _call(model: torch.nn.Module, inputs: Inputs, part: slice) -> Any:
    """The model on some rows of the inputs."""
    if isinstance(inputs, torch.Tensor):
        return model(inputs[part])
    if isinstance(inputs, Mapping):
        return model(**{name: tensor[part] for name, tensor in inputs.items()})
    return model(*(tensor[part] for tensor in inputs))


def _embed(
    model: torch.nn.Module, inputs: Inputs, parts: list[slice], devices: list[torch.device]
) -> tuple[torch.Tensor, list[RandomState]]:
    """All embeddings without a graph, and the random state before each chunk."""
    embedded, states = [], []
    for part in parts:
        states.append(random_state(devices))
        # DistributedDataParallel writes rank 0's buffers into the model before the first forward of a step.
        watched = part is not parts[0] or not hasattr(model, "no_sync")
        before = [(name, b, b._version) for name, b in model.named_buffers()] if watched else []
        with torch.no_grad():
            z = _call(model, inputs, part)
        changed = [name for name, buffer, version in before if buffer._version != version]
        if changed:
            raise InputError(
                f"expected a model whose forward changes no state, got one that changed {changed[0]!r}; "
                "put that module in eval mode, as every chunk runs twice"
            )
        if not isinstance(z, torch.Tensor) or z.ndim == 0 or z.shape[0] != part.stop - part.start:
            got = f"shape {tuple(z.shape)}" if isinstance(z, torch.Tensor) else type(z).__name__
            raise ShapeError(
                f"expected the model to give one tensor of {part.stop - part.start} embeddings, one a row, got {got}; "
                "return only the embeddings, several of a row side by side"
            )
        embedded.append(z)
    # Autocast keeps the weights it has cast; in some versions of PyTorch (pytorch/pytorch#112583) those cast here know
    # no graph, and the second pass would find no way to the weights.
    torch.clear_autocast_cache()
    return torch.cat(embedded), states


def _expect_scalar(value: Any) -> None:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(f"expected the loss to be a scalar, got {got}; take its mean")
    if not value.requires_grad:
        raise InputError("expected a loss that depends on the embeddings, got one without a graph; do not detach it")


def _pull(embeddings: torch.Tensor, gradient: torch.Tensor, found: list[torch.Tensor]) -> None:
    """Backpropagate a chunk's gradient, and nothing at all to parameters that the loss has already reached."""
    roots = [(embeddings, gradient)] if embeddings.requires_grad else []
    roots += [(parameter, torch.zeros_like(parameter)) for parameter in found]
    if roots:
        with _outside_autocast(embeddings.device):
            torch.autograd.backward([root for root, _ in roots], [upstream for _, upstream in roots])


def _parameters_in(value: torch.Tensor, model: torch.nn.Module) -> list[torch.Tensor]:
    """Parameters of a DistributedDataParallel model that the loss uses itself (CLIP's logit scale).

    Their gradient is complete before the last chunk, whose backward pass must meet them once more to reduce them.
    """
    if not hasattr(model, "no_sync"):
        return []
    nodes, seen, own = [value.grad_fn], set(), {id(parameter) for parameter in model.parameters()}
    found = []
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) in own:
            found.append(leaf)
        nodes.extend(following for following, _ in node.next_functions)
    return found


def _no_sync(model: Any) -> Any:
    """Leave the gradients of DistributedDataParallel on their rank."""
    return model.no_sync() if hasattr(model, "no_sync") else nullcontext()


@contextmanager
def _outside_autocast(device: torch.device) -> Iterator[None]:
    """Backward passes run in the dtypes that the forward pass chose."""
    with ExitStack() as stack:
        for kind in {"cpu", device.type}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
