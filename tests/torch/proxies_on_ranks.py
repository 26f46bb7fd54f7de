"""One rank of test_proxies: a step of gradient descent on proxies under DDP is that of one process on all rows."""

from __future__ import annotations

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import nearfar as nf
from nearfar.torch import Learnable, Proxies, Ranks
from ranks import join

LOSSES = {
    "class weights": nf.CosFaceLoss(temperature=0.2),
    "several a class": nf.SubCenterArcFaceLoss(temperature=0.2, per_class=2),
    "soft centres": nf.SoftTripleLoss(temperature=0.2, per_class=2),
    "turned": nf.ProxyAnchorLoss(alpha=4.0),
    "references": nf.TripletLoss(margin=0.4),
    "references, counted once": nf.InfoNCELoss(temperature=0.3),
    "learned": Learnable(nf.ProxyNCALoss(), "temperature"),
}
COUNTS = [7, 2]


class Step(torch.nn.Module):
    """An encoder and its loss in one module, as DistributedDataParallel wants it."""

    def __init__(self, loss):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.encoder = torch.nn.Linear(5, 4)
        with torch.no_grad():
            self.encoder.weight.copy_(torch.randn(4, 5, generator=generator))
            self.encoder.bias.zero_()
        self.proxies = Proxies(loss, classes=6, features=4, seed=11)

    def forward(self, x, y, group=None):
        return self.proxies(self.encoder(x), y, ignore_label=4, group=group)


def main():
    rank, _ = join()
    x = torch.randn(sum(COUNTS), 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.tensor([0, 3, 3, 4, 5, 0, 2, 3, 1])
    at = slice(sum(COUNTS[:rank]), sum(COUNTS[: rank + 1]))
    wrong = []
    for name, loss in LOSSES.items():
        for group in (Ranks(), Ranks(references="equal"), distributed.group.WORLD):
            whole, shared = Step(loss).double(), Step(loss).double()
            value = whole(x, y)
            value.backward()
            wrapped = DistributedDataParallel(shared)
            part = wrapped(x[at], y[at], group=group)
            part.backward()
            if abs(value.item() - part.item()) > 1e-12 or value.item() == 0:
                wrong.append(f"{name}: {part.item()} instead of {value.item()}")
            for (what, a), b in zip(whole.named_parameters(), shared.parameters(), strict=True):
                if float((a.grad - b.grad).abs().max()) > 1e-12 * float(a.grad.abs().max()) or not a.grad.any():
                    wrong.append(f"{name}: gradient of {what}")
    distributed.barrier()
    distributed.destroy_process_group()
    print(wrong)  # noqa: T201


if __name__ == "__main__":
    main()
