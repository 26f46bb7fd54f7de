"""One rank of test_ranks: losses of the batches of several ranks against one process with all rows.

Started by torchrun with the name of a function below; a list of what went wrong is the last line of rank 0's output.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch
from torch import distributed

import nearfar as nf
from cases import ALL_CASES, CASES
from nearfar.engine import Strips
from nearfar.torch import EmbeddingQueue, Learnable, Ranks, _collectives, backward_in_chunks

SPLITS = {
    1: [[0], [12], [12]],
    2: [[6, 6], [9, 3], [12, 0]],
    3: [[4, 4, 4], [5, 6, 1], [0, 7, 5], [0, 12, 0]],
    4: [[3, 3, 3, 3], [4, 1, 5, 2], [6, 0, 6, 0]],
}
# One of each loss, each mining, and what counts over the whole table.
MORE = ("Triplet-Euclidean-mininghard", "Triplet-Euclidean-miningsemihard", "Contrastive-Euclidean-balanced")
SAMPLE = {type(loss): name for name, loss in reversed(CASES.items())}
SAMPLE = {name: CASES[name] for name in (*SAMPLE.values(), *MORE)}
LOSS = nf.SupConLoss(temperature=0.2)
wrong: list[str] = []


def rows(count, seed, dtype=torch.float64, features=5):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, features, generator=generator, dtype=torch.float64) * 0.7).to(dtype)


def mine(counts):
    """Places of this rank's rows."""
    rank = distributed.get_rank()
    return slice(sum(counts[:rank]), sum(counts[: rank + 1]))


def expect(condition, *what):
    if not condition:
        wrong.append(f"rank {distributed.get_rank()}: " + " ".join(map(str, what)))


def near(ours, theirs, tolerance=1e-12):
    """Equal in units of the largest entry of what it is compared with."""
    if theirs.numel() == 0:
        return ours.shape == theirs.shape
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


def compare(name, form, whole, parts, splits, ranks=None, shards=()):
    """``form(*arrays, group)`` on a rank's rows of each array against all rows without a group.

    ``splits`` says how each array is cut; None: every rank holds all of it, and the gradients' mean is the gradient.
    ``shards`` are the arrays whose gradient is already that of the mean.
    """
    world = distributed.get_world_size()
    leaves = [v.clone().requires_grad_() for v in whole]
    value = form(*leaves, slices=parts(None), group=None)
    value.backward()
    cuts = [slice(None) if counts is None else mine(counts) for counts in splits]
    own = [v[cut].clone().requires_grad_() for v, cut in zip(whole, cuts, strict=True)]
    ranks = ranks or Ranks(references="equal" if None in splits else "own")
    shared = form(*own, slices=parts(splits), group=ranks)
    shared.backward()
    size = max(1.0, abs(value.item()))
    expect(abs(shared.item() - value.item()) <= 1e-12 * size, name, splits, "value", shared.item(), value.item())
    everyone = [torch.zeros_like(shared) for _ in range(world)]
    distributed.all_gather(everyone, shared.detach())
    expect(all(torch.equal(v, shared) for v in everyone), name, splits, "values differ", everyone)
    for k, (leaf, part, cut, counts) in enumerate(zip(leaves, own, cuts, splits, strict=True)):
        if counts is None:
            distributed.all_reduce(part.grad)
        scale = float(leaf.grad.abs().max()) if leaf.grad.numel() else 0.0
        times = 1 if k in shards else world
        gap = float((part.grad / times - leaf.grad[cut]).abs().max()) if part.numel() else 0.0
        expect(gap <= 1e-12 * scale, name, splits, "gradient", k, gap, scale)
    return float(leaves[0].grad.abs().max()) if leaves[0].numel() else 0.0


def forms(loss, counts):
    """Every way to call a loss that ranks can share: name, form, arrays, and how each is cut."""
    n = sum(counts)
    x, y = rows(n, 1), torch.arange(n) * 3 % 4 * 2
    y[:1] = 99  # alone: no positive
    back = counts[::-1]
    back[0] += 2
    r, ry = rows(sum(back), 2), torch.arange(sum(back)) % 4 * 2
    weights, classes = rows(7 * getattr(loss, "per_class", 1), 3), torch.arange(n) * 3 % 7
    same = torch.arange(n) % 3 % 2

    def labelled(a, b=None, *, slices, group, **options):
        at, other = (*slices, None)[:2]
        more = {} if b is None else {"references": b, "reference_labels": ry[other]}
        return loss(a, y[at], group=group, **more, **options)

    if type(loss) is nf.CrossEntropyLoss:
        yield (
            "logits",
            (lambda a, *, slices, group: loss(a, classes[slices[0]] % 5, ignore_label=2, group=group)),
            [x],
            [counts],
        )
    else:
        yield "self", labelled, [x], [counts]
        yield "ignore", partial(labelled, ignore_label=2), [x], [counts]
        yield "strips", partial(labelled, engine=Strips(2)), [x], [counts]
        yield "views", (lambda a, b, *, slices, group: loss.views(a, b, group=group)), [x, rows(n, 4)], [counts] * 2
    yield "references", labelled, [x, r], [counts, back]
    yield "references, ignore", partial(labelled, ignore_label=4), [x, r], [counts, back]
    yield "equal references", partial(labelled, ignore_label=4), [x, r], [counts, None]
    yield "aligned", (lambda a, b, *, slices, group: loss.aligned(a, b, group=group)), [x, rows(n, 4)], [counts] * 2
    if loss.has_class_weights:

        def classed(a, w, *, slices, group):
            return loss(a, classes[slices[0]], class_weights=w, ignore_label=2, group=group and Ranks())

        yield "classes", classed, [x, weights], [counts, None]
    if hasattr(loss, "pairs"):
        form = lambda a, b, *, slices, group: loss.pairs(a, b, same[slices[0]], group=group)  # noqa: E731
        yield "pairs", form, [x, rows(n, 4)], [counts] * 2
    for given in ("distances", "similarities"):
        if hasattr(loss, given):
            call = getattr(loss, given)
            form = lambda a, *, slices, group, call=call: call(a, same[slices[0]], group=group)  # noqa: E731
            yield given, form, [x[:, 0].abs().contiguous()], [counts]
    if hasattr(loss, "triplets"):
        form = lambda a, b, c, *, slices, group: loss.triplets(a, b, c, group=group)  # noqa: E731
        yield "triplets", form, [x, rows(n, 4), rows(n, 5)], [counts] * 3


def losses(which):
    """Value and gradients of the losses, in every form and split; of the sample, half the forms in one split."""
    found = Counter()
    for k, (name, loss) in enumerate({"sample": SAMPLE, "cases": CASES, "all": ALL_CASES}[which].items()):
        for i, counts in enumerate(SPLITS[distributed.get_world_size()]):
            for j, (form, call, arrays, splits) in enumerate(forms(loss, list(counts))):
                if which == "sample" and (i != 1 + k // 2 % 2 or (j + k) % 2):
                    continue

                def parts(splits, arrays=arrays):
                    return [slice(None) if s is None else mine(s) for s in splits or [None] * len(arrays)]

                found[name] += compare(f"{name} {form}", call, arrays, parts, splits)
    expect(all(v > 1e-3 for v in found.values()), "cases without a gradient", found)


# ------------------------------------------------------------ what travels


@contextmanager
def counted(calls):
    """Name, and bytes that arrive from other ranks, of every collective."""
    world, rank = distributed.get_world_size(), distributed.get_rank()
    originals = {name: getattr(distributed, name) for name in dir(distributed) if name.startswith("all_")}
    originals |= {name: getattr(distributed, name) for name in dir(distributed) if name.startswith("reduce")}
    originals = {name: call for name, call in originals.items() if callable(call) and "Op" not in name}
    together = distributed.batch_isend_irecv

    def passed(operations):
        arriving = [op.tensor for op in operations if op.op is distributed.irecv]
        calls.append(("passed", sum(t.numel() * t.element_size() for t in arriving)))
        return together(operations)

    def wrap(name, original):
        def call(first, *others, **options):
            size = first.numel() * first.element_size()
            if name.startswith("all_gather"):
                size -= size // world
            elif name.startswith("all_to_all"):
                size -= others[1][rank] * first[0].numel() * first.element_size() if len(first) else 0
            calls.append((name.split("_")[1], size))
            return original(first, *others, **options)

        return call

    for name, original in originals.items():
        setattr(distributed, name, wrap(name, original))
    distributed.batch_isend_irecv = passed
    try:
        yield
    finally:
        distributed.batch_isend_irecv = together
        for name, original in originals.items():
            setattr(distributed, name, original)


def traffic():
    """Calls and bytes of a step: (N − n)·D·b gathered, (N − n)·D·4 scattered, O(N) labels, O(1) else."""
    for dtype, width in ((torch.float32, 4), (torch.bfloat16, 2), (torch.float64, 8)):
        x = rows(16 * distributed.get_world_size(), 1, dtype, 32)[mine([16] * distributed.get_world_size())].clone()
        for name, (call, first, last) in steps(x, torch.arange(16) % 9, width).items():
            for leaf, backward in ((x.clone().requires_grad_(), True), (x, False)):
                calls = []
                with counted(calls):
                    value = call(leaf)
                    if backward:
                        value.backward()
                sizes = [size for _, size in calls]
                expect(sizes == [*first, *(last if backward else [])], name, dtype, backward, calls)
            calls = []
            with counted(calls), torch.no_grad():
                call(x.clone().requires_grad_())
            expect([size for _, size in calls] == first, "no_grad", name, dtype, calls)


def steps(x, y, width):
    """Calls, and the bytes that arrive on the way to the value and then for the gradient."""
    heads, foreign = (distributed.get_world_size() - 1) * 7 * 8, (distributed.get_world_size() - 1) * len(x)
    gathered, scattered = foreign * x.shape[1] * width, foreign * x.shape[1] * max(width, 4)
    labels, sums, totals, own, equal = foreign * 8, 2 * 8, 2 * 8, Ranks(), Ranks(references="equal")
    return {
        "self": (lambda a: LOSS(a, y, group=own), [heads, gathered, labels, sums], [scattered]),
        "references": (
            lambda a: LOSS(x, y, references=a, reference_labels=y, group=own),
            [heads, gathered, labels, totals, sums],
            [scattered],
        ),
        "detached references": (
            lambda a: LOSS(a, y, references=x, reference_labels=y, group=own),
            [heads, gathered, labels, totals, sums],
            [],
        ),
        "equal references": (
            lambda a: LOSS(a, y, references=x, reference_labels=y, group=equal),
            [heads, totals, sums],
            [],
        ),
        "aligned": (
            lambda a: nf.InfoNCELoss().aligned(a, a * 2, group=own),
            [heads, 2 * gathered, labels, 2 * sums],
            [2 * scattered],
        ),
        "aligned, one asks": (
            lambda a: nf.InfoNCELoss().aligned(a, x, group=own),
            [heads, 2 * gathered, labels, 2 * sums],
            [scattered],
        ),
        "classes": (lambda a: nf.CrossEntropyLoss()(a, y, class_weights=x, group=own), [heads, totals, sums], []),
        "pairs": (lambda a: nf.ContrastiveLoss().pairs(a, x, y % 2, group=own), [heads, totals, sums], []),
    }


# ------------------------------------------------------------ errors, everywhere at once


def errors():
    """A mistake on one rank raises one error on all, and the group stays usable."""
    world = distributed.get_world_size()
    last, x, y = world - 1, rows(4, 1), torch.tensor([0, 0, 1, 1])
    odd = distributed.get_rank() == last
    mask = nf.Mask(torch.ones(4, 4, dtype=torch.bool))
    g = Ranks()
    calls = {
        "features": lambda: LOSS(rows(4, 1, features=6 if odd else 5), y, group=g),
        "dtype": lambda: LOSS(x.float() if odd else x, y, group=g),
        "number of labels": lambda: LOSS(x, y[:3] if odd else y, group=g),
        "no matrix": lambda: LOSS(x[0] if odd else x, y, group=g),
        "no tensor": lambda: LOSS(x.numpy() if odd else x, y.numpy(), group=g),
        "another temperature": lambda: nf.SupConLoss(temperature=0.3 if odd else 0.2)(x, y, group=g),
        "another loss": lambda: (nf.InfoNCELoss() if odd else LOSS)(x, y, group=g),
        "another form": lambda: LOSS.views(x, x, group=g) if odd else LOSS(x, y, group=g),
        "references on one rank": lambda: LOSS(
            x, y, group=g, **({"references": x, "reference_labels": y} if odd else {})
        ),
        "own and equal": lambda: LOSS(
            x, y, references=x, reference_labels=y, group=Ranks(references="equal" if odd else "own")
        ),
        "equal of two sizes": lambda: nf.CrossEntropyLoss()(x, y, class_weights=rows(5 if odd else 6, 1), group=g),
        "strings": lambda: LOSS(x, ["a", "a", "b", "b"] if odd else y, group=g),
        "mask": lambda: LOSS(x, mask if odd else y, group=g),
        "a mask each": lambda: LOSS(x, mask, group=g),
        "engine": lambda: LOSS(x, y, engine="fast" if odd else "auto", group=g),
        "views of two shapes": lambda: LOSS.views(x, x[:3] if odd else x, group=g),
        "aligned of two lengths": lambda: LOSS.aligned(x, x[:3] if odd else x, group=g),
        "aligned and equal": lambda: LOSS.aligned(x, x, group=Ranks(references="equal")),
        "pairs of two lengths": lambda: nf.ContrastiveLoss().pairs(x, x, y[:3] if odd else y, group=g),
        "not one of ours": lambda: LOSS(x, _Broken() if odd else y, group=g),
    }
    for name, call in calls.items():
        try:
            call()
            expect(False, name, "raised nothing")
            continue
        except nf.InputError as error:
            found = f"{type(error).__name__}: {error}"
        everyone = [None] * world
        distributed.all_gather_object(everyone, found)
        expect(len(set(everyone)) == 1, name, everyone)
        expect("expected" in found and "got" in found, name, found)
        expect(torch.isfinite(LOSS(x, y, group=g)), name, "left the group unusable")
    for name, call in {
        "per_anchor": lambda: LOSS.per_anchor(x, y, group=g),
        "no group": lambda: LOSS(x, y, group="all"),
        "references": lambda: Ranks(references="mine"),
    }.items():
        try:
            call()
            expect(False, name, "raised nothing")
        except nf.InputError as error:
            expect("expected" in str(error) and "; " in str(error), name, error)


class _Broken:
    def __array__(self, *_, **__):
        raise KeyError("expected nothing, got this; never mind")


# ------------------------------------------------------------ models


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layers = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.Tanh(), torch.nn.Linear(9, 4))
        self.classes = torch.nn.Parameter(torch.randn(4, 4))
        self.double()

    def forward(self, x):
        return self.layers(x), self.classes * 1


def models():
    """One step of gradient descent under DDP is the step of one process on all rows; class weights included."""
    from torch.nn.parallel import DistributedDataParallel

    loss = nf.SupConLoss(temperature=0.3) + 0.5 * nf.ContrastiveLoss(margin=3.0)
    for counts in SPLITS[distributed.get_world_size()]:
        x, y = rows(sum(counts), 8), torch.arange(sum(counts)) % 4
        alone, ddp = Encoder(), DistributedDataParallel(Encoder())
        for model, at, group in ((alone, slice(None), None), (ddp, mine(counts), Ranks())):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            z, classes = model(x[at])
            value = loss(z, y[at], group=group)
            value = value + nf.CrossEntropyLoss()(z, y[at], class_weights=classes, group=group)
            value.backward()
            optimizer.step()
        for (name, a), b in zip(alone.named_parameters(), ddp.module.parameters(), strict=True):
            expect(near(b.detach(), a.detach()) and near(b.grad, a.grad, 1e-11), "DDP", counts, name)
    cached()
    learned()


def cached():
    """The gradient cache takes the group as an option of the loss."""
    from torch.nn.parallel import DistributedDataParallel

    class First(Encoder):
        def forward(self, x):
            return super().forward(x)[0] + 0 * self.classes.sum()

    for counts in SPLITS[distributed.get_world_size()]:
        x, y = rows(sum(counts), 8), torch.arange(sum(counts)) % 4
        alone, ddp = First(), DistributedDataParallel(First())
        value = LOSS(alone(x), y)
        value.backward()
        ours = backward_in_chunks(ddp, LOSS, x[mine(counts)], y[mine(counts)], chunk=2, group=Ranks())
        expect(near(ours, value.detach()), "cache", counts, ours, value)
        for (name, a), b in zip(alone.named_parameters(), ddp.module.parameters(), strict=True):
            expect(float((a.grad - b.grad).abs().max()) <= 1e-12, "cache", counts, name)


def learned():
    """Learned temperature, bias and boundaries of classes: their mean over ranks is the gradient."""
    world = distributed.get_world_size()
    for counts in SPLITS[world]:
        n, cut = sum(counts), mine(counts)
        x, y, r = rows(n, 8), torch.arange(n) % 4, rows(n, 9)
        makes = {
            "temperature": (lambda: Learnable(nf.SupConLoss(temperature=0.3), "temperature"), {}),
            "temperature, distance": (lambda: Learnable(nf.NCALoss(), "temperature"), {}),
            "bias": (lambda: Learnable(nf.SigLIPLoss(temperature=0.4), "temperature", "bias"), {}),
            "classes": (lambda: Learnable(nf.MarginLoss(), "beta", classes=4), {"ignore_label": 3}),
        }
        for name, (make, options) in makes.items():
            for form in ("self", "references", "aligned"):
                if form == "aligned" and name == "classes":
                    continue
                pair = make().double(), make().double()
                for module, at, group in ((pair[0], slice(None), None), (pair[1], cut, Ranks())):
                    if form == "aligned":
                        module.aligned(x[at], r[at], group=group).backward()
                    else:
                        more = {} if form == "self" else {"references": r[at], "reference_labels": y[at]}
                        module(x[at], y[at], group=group, **more, **options).backward()
                for (which, a), b in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
                    distributed.all_reduce(b.grad)
                    gap = float((b.grad / world - a.grad).abs().max())
                    expect(gap <= 1e-11 * float(a.grad.abs().max()), name, form, counts, which, b.grad / world, a.grad)


# ------------------------------------------------------------ the rest


def rest():
    """Half precision, gradients that some ranks want, sums, queues, subgroups, NaN, the other way to scatter."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    for counts in SPLITS[world]:
        n, cut = sum(counts), mine(counts)
        x, y = rows(n, 6), torch.arange(n) % 4
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            leaf, own = (v.to(dtype).requires_grad_() for v in (x, x[cut]))
            value, shared = LOSS(leaf, y), LOSS(own, y[cut], group=Ranks())
            value.backward()
            shared.backward()
            eps = torch.finfo(dtype).eps
            expect(shared.dtype == own.grad.dtype == dtype, dtype, "became", shared.dtype)
            expect(abs(shared.item() - value.item()) <= eps * 2, dtype, counts, shared.item(), value.item())
            gap = (own.grad / world - leaf.grad[cut]).abs()
            expect(not len(gap) or float(gap.max()) <= eps * 4 * float(leaf.grad.abs().max()), dtype, counts, gap)
        leaf = x.clone().requires_grad_()
        LOSS(leaf, y).backward()
        # Only one rank asks for a gradient, and takes it although the others run without a graph.
        for asks in range(world):
            own = x[cut].clone().requires_grad_(rank == asks)
            shared = LOSS(own, y[cut], group=Ranks())
            expect(shared.requires_grad == (rank == asks), "asks", asks)
            if rank == asks:
                shared.backward()
                expect(near(own.grad / world, leaf.grad[cut]) or not leaf.grad.any(), "asks", asks, counts)
        value, gradient = LOSS.value_and_grad(x[cut], y[cut], group=Ranks())
        expect(near(gradient / world, leaf.grad[cut]) or not leaf.grad.any(), "value_and_grad", counts)
        _, (a, b) = LOSS.value_and_grad(x[cut], y[cut], references=x[cut], reference_labels=y[cut], group=Ranks())
        _, (c, d) = LOSS.value_and_grad(x, y, references=x, reference_labels=y)
        for ours, theirs in ((a, c), (b, d)):
            expect(near(ours / world, theirs[cut], 1e-11), "value_and_grad", counts)
        again = [LOSS.value_and_grad(x[cut], y[cut], group=Ranks()) for _ in range(3)]
        expect(all(torch.equal(v, value) and torch.equal(g, gradient) for v, g in again), "not the same bits")
        spread = torch.zeros(2 * n, 10, dtype=torch.float64)
        spread[::2, ::2] = x
        expect(torch.equal(LOSS(spread[::2, ::2][cut], y[cut], group=Ranks()), value), "layout")
        queue = EmbeddingQueue(9, 5, dtype=torch.float64)
        queue.add(x[cut], y[cut], group=distributed.group.WORLD)
        held, held_labels = queue.contents()
        kept = Ranks(references="equal")
        value = LOSS(x[cut], y[cut], references=held, reference_labels=held_labels, group=kept)
        expect(near(value, LOSS(x, y, references=held, reference_labels=held_labels)), "queue", counts)
        reduced = _collectives.Collectives()
        whole = rows(n, 20 + rank)
        expected = sum(rows(n, 20 + r) for r in range(world))[cut]
        expect(near(reduced.scattered(whole, counts), expected, 1e-15), "all to all", counts)
        reduced.__dict__["_backends"] = {"cpu": "another"}
        expect(near(reduced.scattered(whole, counts), expected, 1e-15), "reduce-scatter", counts)
        broken = x.clone()
        broken[-1:] = float("nan")
        for loss in (LOSS, nf.ContrastiveLoss(), nf.LiftedStructureLoss(), nf.TripletLoss(), nf.MultiSimilarityLoss()):
            got = loss(broken[cut], y[cut], group=Ranks())
            expect(bool(got.isnan()) == bool(loss(broken, y).isnan()), "NaN", type(loss).__name__, counts, got)
    if world > 2:
        part = distributed.new_group([0, 2])
        x, y = rows(9, 6), torch.arange(9) % 4
        if rank == 1:
            try:
                LOSS(x, y, group=part)
                expect(False, "a rank outside the group")
            except nf.InputError as error:
                expect("expected" in str(error), error)
        else:
            at = slice(0, 4) if rank == 0 else slice(4, 9)
            for group in (part, Ranks(part)):
                expect(near(LOSS(x[at], y[at], group=group), LOSS(x, y)), "subgroup")
        distributed.barrier()


def fault():
    """For the test that a fault is found."""
    expect(distributed.get_rank() != 0, "as it should")


def main(functions):
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    for name in sys.argv[1:]:
        what, _, which = name.partition(":")
        functions[what](which) if which else functions[what]()
    everyone = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, wrong)
    distributed.barrier()
    distributed.destroy_process_group()
    if os.environ["RANK"] == "0":
        sys.stdout.write(json.dumps([line for lines in everyone for line in lines]) + "\n")
    # Without what runs at an interpreter's end: gloo's threads have aborted there now and then.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(globals())
