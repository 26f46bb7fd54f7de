"""The state of torch's random generators, to draw the same numbers again."""

from __future__ import annotations

from typing import TypeAlias

import torch

RandomState: TypeAlias = "list[torch.Tensor]"


def devices_of(*tensors: torch.Tensor) -> list[torch.device]:
    """Devices of the tensors that have a generator of their own; the CPU's is always kept."""
    found = {tensor.device for tensor in tensors}
    return sorted((d for d in found if d.type not in ("cpu", "meta")), key=str)


def random_state(devices: list[torch.device]) -> RandomState:
    """State of the generators of the CPU and the devices."""
    return [torch.get_rng_state(), *(torch.get_device_module(d).get_rng_state(*_named(d)) for d in devices)]


def set_random_state(devices: list[torch.device], state: RandomState) -> None:
    """Go back to a state of the same devices."""
    torch.set_rng_state(state[0])
    for device, own in zip(devices, state[1:], strict=True):
        torch.get_device_module(device).set_rng_state(own, *_named(device))


def _named(device: torch.device) -> tuple[torch.device, ...]:
    """How a device is named to its own module: "mps" has but one."""
    return () if device.type == "mps" else (device,)
