"""What a training step changes, and the arithmetic it is done in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from nearfar._errors import ArtefactError
from nearfar.app.encoder import ConvEncoder, EncoderConfig


class Trainee(nn.Module):
    """What is trained: the encoder, and for a softmax loss one row of weights a class."""

    def __init__(self, encoder: EncoderConfig, classes: int) -> None:
        super().__init__()
        self.encoder = ConvEncoder(encoder)
        self.class_weights = nn.Parameter(torch.randn(classes, encoder.dim)) if classes else None

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Embeddings of length 1; all pictures go through the same weights (Siamese)."""
        return normalize(self.encoder(pictures), dim=1)


class State:
    """Everything that a step changes."""

    def __init__(self, trainee: nn.Module, optimiser: torch.optim.Optimizer, average: float) -> None:
        self.trainee, self.optimiser, self.decay = trainee, optimiser, average
        self.average = {name: w.detach().clone() for name, w in trainee.named_parameters()} if average else {}

    def after_step(self, step: int) -> None:
        """Move the running average of the weights; it forgets the first weights quickly."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, weight in self.trainee.named_parameters():
            if name in self.average:
                self.average[name].lerp_(weight.detach(), 1 - decay)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything by name: weights, their average, and what the optimiser remembers of each."""
        found = {f"weight.{name}": w for name, w in self.trainee.state_dict().items()}
        found |= {f"average.{name}": w for name, w in self.average.items()}
        for number, slots in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser.{number}.{slot}": value for slot, value in slots.items()}
        return found

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take the values back that `tensors` returned.

        Raises:
            ArtefactError: They are of another network.
        """
        weights = {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
        slots: dict[int, dict[str, torch.Tensor]] = {}
        try:
            self.trainee.load_state_dict(weights)
            for name, average in self.average.items():
                average.copy_(tensors[f"average.{name}"])
            for name, tensor in tensors.items():
                if name.startswith("optimiser."):
                    _, number, slot = name.split(".")
                    slots.setdefault(int(number), {})[slot] = tensor
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": slots})
        except (RuntimeError, KeyError, ValueError) as error:
            raise ArtefactError(
                f"expected a checkpoint of this network, got {error}; restore config.yaml or train again"
            ) from error

    def encoder(self) -> ConvEncoder:
        """The encoder with the weights that become the model, on the CPU."""
        encoder = self.trainee.encoder
        if not isinstance(encoder, ConvEncoder):
            raise TypeError(f"expected a ConvEncoder, got {type(encoder).__name__}; report this")
        for name, weight in encoder.named_parameters():
            if self.average:
                weight.data.copy_(self.average[f"encoder.{name}"])
        return encoder.cpu().eval()


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """The same sums in the same order, and everything as before afterwards."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    before = torch.get_deterministic_debug_mode(), torch.get_num_threads(), cudnn.benchmark
    # on a GPU the gradient of max-pooling counts as indefinite; its windows do not overlap here, so it is not
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
    torch.set_num_threads(threads)
    cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.set_num_threads(before[1])
        cudnn.benchmark = before[2]
