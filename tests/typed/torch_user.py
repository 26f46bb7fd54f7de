"""What a careful PyTorch user writes; ``mypy --strict`` reads it and a test runs it."""
# ruff: noqa: T201

from __future__ import annotations

import torch

import nearfar as nf
from nearfar.torch import BalancedBatches, EmbeddingQueue, Learnable, Proxies, backward_in_chunks


def train(model: torch.nn.Module, loss: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """A few steps on balanced batches."""
    batches = BalancedBatches(labels, classes=2, items=3, seed=0)
    optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=1e-2)
    values: list[float] = []
    for places in batches:
        optimizer.zero_grad()
        value: torch.Tensor = loss(model(x[places]), labels[places])
        value.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        values.append(value.item())
    return values


def main() -> None:
    """Modules, then the call forms."""
    torch.manual_seed(0)
    x, labels = torch.randn(24, 6), torch.arange(24) // 6
    model = torch.nn.Linear(6, 4)
    loss = nf.SupConLoss(temperature=0.2)
    for module in (Learnable(loss, "temperature", largest_scale=100), Proxies(nf.CosFaceLoss(), 4, 4, seed=0)):
        print(type(module).__name__, train(model, module, x, labels))
    queue = EmbeddingQueue(size=32, dimension=4)
    z: torch.Tensor = model(x)
    queue.add(z.detach(), labels)
    kept, names = queue.contents()
    value: torch.Tensor = loss(z, labels, references=kept, reference_labels=names)
    value.backward()  # type: ignore[no-untyped-call]  # torch's own
    whole: torch.Tensor = backward_in_chunks(model, loss, x, labels, chunk=8)
    views: torch.Tensor = loss.views(z, z.flip(0))
    aligned: torch.Tensor = nf.InfoNCELoss().aligned(z, z.flip(0))
    triplets: torch.Tensor = nf.TripletLoss().triplets(z[:8], z[8:16], z[16:])
    distances: torch.Tensor = nf.ContrastiveLoss().distances((z - z.flip(0)).norm(dim=1), labels == 1)
    total, gradient = (0.5 * loss + nf.MultiSimilarityLoss()).value_and_grad(z.detach(), labels)
    each: torch.Tensor = loss.per_anchor(z, nf.Labels(labels, ignore=3))
    print(whole.item(), [v.item() for v in (views, aligned, triplets, distances, total)], gradient.shape, each.shape)


if __name__ == "__main__":
    main()
