"""One rank of test_ranks: references that travel round the ranks, class weights that stay on theirs.

Started by torchrun with the name of a function below; a list of what went wrong is the last line of rank 0's output.
"""

from __future__ import annotations

import weakref
from collections import Counter

import loss_on_ranks
import torch
from loss_on_ranks import LOSS, SAMPLE, SPLITS, compare, counted, expect, forms, main, mine, near, rows
from torch import distributed
from torch.utils._python_dispatch import TorchDispatchMode

import nearfar as nf
from cases import CASES
from nearfar.engine import Strips
from nearfar.engine.rules import parts_of
from nearfar.torch import Learnable, Ranks, _own

RING = Ranks(exchange="ring")
SHARDS = Ranks(class_weights="sharded")
CLASSES = {
    1: [[7]],
    2: [[4, 3], [5, 2], [0, 7], [7, 0]],
    3: [[3, 2, 2], [1, 5, 1], [0, 4, 3], [0, 7, 0]],
}
CLASSED = {name: loss for name, loss in CASES.items() if loss.has_class_weights and parts_of(loss)}
CLASSED = {name: loss for name, loss in CLASSED.items() if getattr(loss, "per_class", 1) == 1}


def _places(splits, arrays):
    return [slice(None) if s is None else mine(s) for s in splits or [None] * len(arrays)]


def ring(which):
    """Value and gradients of every loss that can, in every form that meets the rows of other ranks."""
    found = Counter()
    for name, loss in {"sample": SAMPLE, "cases": CASES}[which].items():
        if not parts_of(loss):
            continue
        for counts in SPLITS[distributed.get_world_size()]:
            for form, call, arrays, splits in forms(loss, list(counts)):
                if None in splits:
                    continue
                found[name] += compare(
                    f"ring {name} {form}", call, arrays, lambda s, arrays=arrays: _places(s, arrays), splits, RING
                )
    expect(len(found) > 5 and all(v > 1e-3 for v in found.values()), "cases without a gradient", found)


def shards(which="cases"):
    """Class weights in even, uneven and empty shards; ignored labels. Of a loss of the sample, each split meets one."""
    found, held_by = Counter(), CLASSES[distributed.get_world_size()]
    for k, (name, loss) in enumerate(CLASSED.items()):
        if which == "sample" and name not in SAMPLE:
            continue
        for i, counts in enumerate(SPLITS[distributed.get_world_size()]):
            for j, held in enumerate(held_by):
                if which == "sample" and (i + j + k) % len(held_by):
                    continue
                x, weights = rows(sum(counts), 1), rows(7, 3)
                y = torch.arange(len(x)) * 3 % 7

                def call(a, w, *, slices, group, loss=loss, y=y):
                    return loss(a, y[slices[0]], class_weights=w, ignore_label=2, engine=Strips(3), group=group)

                found[name] += compare(
                    f"shards {name}", call, [x, weights], lambda s: _places(s, [0, 0]), [counts, held], SHARDS, (1,)
                )
    expect(len(found) > 2 and all(v > 1e-3 for v in found.values()), "cases without a gradient", found)


def learned():
    """Learned temperature, bias and boundaries of classes: their mean over ranks is the gradient."""
    world = distributed.get_world_size()
    for counts in SPLITS[world]:
        n, cut = sum(counts), mine(counts)
        x, y, r, weights = rows(n, 8), torch.arange(n) % 4, rows(n, 9), rows(7, 3)
        makes = {
            "temperature": (lambda: Learnable(nf.SupConLoss(temperature=0.3), "temperature"), {}),
            "temperature, distance": (lambda: Learnable(nf.NCALoss(), "temperature"), {}),
            "bias": (lambda: Learnable(nf.SigLIPLoss(temperature=0.4), "temperature", "bias"), {}),
            "classes": (lambda: Learnable(nf.MarginLoss(), "beta", classes=4), {"ignore_label": 3}),
            "shards": (lambda: Learnable(nf.CrossEntropyLoss(temperature=0.4), "temperature"), {}),
            "shards, distance": (lambda: Learnable(nf.ProxyNCALoss(temperature=0.4), "temperature"), {}),
        }
        for name, (make, options) in makes.items():
            for form in ("shards",) if "shards" in name else ("self", "references", "aligned"):
                if form == "aligned" and name == "classes":
                    continue
                pair = make().double(), make().double()
                held = mine(CLASSES[world][1 % len(CLASSES[world])])
                for module, at, ours, group in (
                    (pair[0], slice(None), slice(None), None),
                    (pair[1], cut, held, SHARDS if form == "shards" else RING),
                ):
                    if form == "aligned":
                        module.aligned(x[at], r[at], group=group).backward()
                    elif form == "shards":
                        module(x[at], y[at], class_weights=weights[ours], group=group).backward()
                    else:
                        more = {} if form == "self" else {"references": r[at], "reference_labels": y[at]}
                        module(x[at], y[at], group=group, **more, **options).backward()
                for (which, a), b in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
                    distributed.all_reduce(b.grad)
                    gap = float((b.grad / world - a.grad).abs().max())
                    expect(gap <= 1e-11 * float(a.grad.abs().max()), name, form, counts, which, b.grad / world, a.grad)


def steps():
    """Steps of gradient descent, the encoder under DDP, its classes in shards outside: those of one process."""
    from torch.nn.parallel import DistributedDataParallel

    world = distributed.get_world_size()
    for counts, held in zip(SPLITS[world], CLASSES[world], strict=False):
        x, weights = rows(sum(counts), 8), rows(7, 3, features=4)
        y = torch.arange(len(x)) % 7

        def encoder():
            torch.manual_seed(3)
            return torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.Tanh(), torch.nn.Linear(9, 4)).double()

        alone, ddp = encoder(), DistributedDataParallel(encoder())
        whole, part = (torch.nn.Parameter(weights[at].clone()) for at in (slice(None), mine(held)))
        loss = nf.ArcFaceLoss(margin=0.2, temperature=0.3)
        for model, classes, at, group in ((alone, whole, slice(None), None), (ddp, part, mine(counts), SHARDS)):
            optimizer = torch.optim.SGD([*model.parameters(), classes], lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                z = model(x[at])
                value = loss(z, y[at], class_weights=classes, group=group)
                (value + LOSS(z, y[at], group=group and RING)).backward()
                optimizer.step()
        for (name, a), b in zip(alone.named_parameters(), ddp.module.parameters(), strict=True):
            expect(near(b.detach(), a.detach(), 1e-11), "DDP", counts, held, name)
        expect(near(part.detach(), whole.detach()[mine(held)], 1e-11), "DDP", counts, held, "classes")


# ------------------------------------------------------------ what travels


def traffic():
    """Bytes that arrive: rows (W − 1)·n·D·b a lap, their gradient (W − 1)·n·D·4, sums of the pools."""
    world = distributed.get_world_size()
    for dtype, width in ((torch.float32, 4), (torch.bfloat16, 2), (torch.float64, 8)):
        x = rows(16 * world, 1, dtype, 32)[mine([16] * world)].clone()
        for name, (call, first, last) in told(x, torch.arange(16) % 9, width).items():
            for leaf, backward in ((x.clone().requires_grad_(), True), (x, False)):
                calls = []
                with counted(calls):
                    value = call(leaf)
                    forward = len(calls)
                    if backward:
                        value.backward()
                expect(len(calls) == forward, name, "something travels in the backward pass")
                sizes = sorted(size for _, size in calls)
                expect(sizes == sorted([*first, *(last if backward else [])]), name, dtype, backward, calls)
            calls = []
            with counted(calls), torch.no_grad():
                call(x.clone().requires_grad_())
            expect(sorted(size for _, size in calls) == sorted(first), "no_grad", name, dtype, calls)


def told(x, y, width):
    """Calls, and the bytes that arrive for the value and then for the gradient."""
    world = distributed.get_world_size()
    heads, labels, totals, sums = (world - 1) * 7 * 8, (world - 1) * 16 * 8, 16, 16
    lap, home = [x.numel() * width] * (world - 1), [x.numel() * max(width, 4)] * (world - 1)
    together, pools = [heads, labels, totals, sums, *lap], [16 * world * 8, 16 * world * 3 * 8]
    classes = x[:5].clone()
    return {
        "pooled": (lambda a: LOSS(a, y, group=RING), together, [*lap, *home]),
        "detached references": (
            lambda a: LOSS(a, y, references=x, reference_labels=y, group=RING),
            together,
            lap,
        ),
        "apart": (lambda a: nf.ContrastiveLoss()(a, y, group=RING), together, home),
        "aligned": (
            lambda a: nf.InfoNCELoss().aligned(a, a * 2, group=RING),
            [heads, labels, totals, *lap, *lap, 2 * sums],
            [*lap, *lap, *home, *home],
        ),
        "shards": (
            lambda a: nf.CrossEntropyLoss()(a, y, class_weights=classes, group=SHARDS),
            [heads, sum(lap), labels, *pools, sums],
            [sum(home)],
        ),
    }


class Alive(TorchDispatchMode):
    """Most bytes of tensors alive at once, of those made inside."""

    def __init__(self):
        super().__init__()
        self.held, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.held:
                    self.held[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.held.pop, storage._cdata, None)
        self.most = max(self.most, sum(list(self.held.values())))
        return out


def memory():
    """In units of one rank's rows: the ring holds as many whatever the number of ranks; a gather all of them."""
    world, n, features = distributed.get_world_size(), 128, 512
    unit, y = n * features * 4, torch.arange(n) // 2 + n * distributed.get_rank()
    x = rows(n * world, 1, torch.float32, features)[mine([n] * world)].clone().requires_grad_()
    found = {}
    apart = nf.ContrastiveLoss()
    for name, loss, group in (("gather", LOSS, Ranks()), ("ring", LOSS, RING), ("apart", apart, RING)):
        with Alive() as alive:
            loss(x, y, engine=Strips(8), group=group).backward()
        found[name] = alive.most / unit
    expect(max(found["ring"], found["apart"]) < 9.5, "memory", found)
    expect(found["gather"] > 4 * world, "memory", found)


# ------------------------------------------------------------ errors, and what is chosen


def errors():
    """A loss that cannot, or ranks that ask for different things: one error on all, and the group stays usable."""
    world = distributed.get_world_size()
    x, y, odd = rows(4, 1), torch.tensor([0, 0, 1, 1]), distributed.get_rank() == world - 1
    whole_rows = {name: loss for name, loss in SAMPLE.items() if not parts_of(loss)}
    calls = {f"ring {name}": lambda loss=loss: loss(x, y, group=RING) for name, loss in whole_rows.items()}
    calls |= {
        "one rings": lambda: LOSS(x, y, group=RING if odd else Ranks()),
        "one shards": lambda: nf.CrossEntropyLoss()(x, y, class_weights=x, group=SHARDS if odd else Ranks()),
        "anchors are classes": lambda: nf.ProxyAnchorLoss()(x, y, class_weights=x, group=SHARDS),
        "rows a class": lambda: nf.SoftTripleLoss(per_class=2)(x, y, class_weights=x, group=SHARDS),
        "features": lambda: nf.CrossEntropyLoss()(
            x, y, class_weights=rows(3, 1, features=6 if odd else 5), group=SHARDS
        ),
        "labels": lambda: LOSS(x, y[:3] if odd else y, group=RING),
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
        expect(not name.startswith("ring") or "exchange='gather'" in found, name, found)
        expect("class" not in name or "class_weights='equal'" in found, name, found)
        expect(torch.isfinite(LOSS(x, y, group=RING)), name, "left the group unusable")


def choice():
    """ "auto" is the gather, or the ring where rows would take too much and the loss can; given pairs have neither."""
    auto, world = Ranks(exchange="auto"), distributed.get_world_size()
    x, y = rows(6, distributed.get_rank()), torch.arange(6) % 3
    size, whole = world * 6 * 5 * 8, _own.GATHERED
    plain = LOSS(x, y, group=Ranks())
    for most, laps in ((whole, 0), (size, 0), (size - 1, world - 1)):
        _own.GATHERED = most
        for loss, expected in ((LOSS, laps), (nf.TripletLoss(), 0)):
            calls = []
            with counted(calls):
                value = loss(x, y, group=auto)
            expect([name for name, _ in calls].count("passed") == expected, most, loss, calls)
        expect(near(LOSS(x, y, group=auto), plain, 1e-13), "auto", most, value, plain)
    _own.GATHERED = whole
    for group in (RING, auto):
        same = nf.ContrastiveLoss().pairs(x, x.flip(0), y % 2, group=group)
        expect(torch.equal(same, nf.ContrastiveLoss().pairs(x, x.flip(0), y % 2, group=Ranks())), "pairs")
        held = Ranks(references="equal", exchange=group.exchange)
        r, ry = rows(5, 77), torch.arange(5) % 3
        value = nf.TripletLoss()(x, y, references=r, reference_labels=ry, group=held)
        expected = nf.TripletLoss()(x, y, references=r, reference_labels=ry, group=Ranks(references="equal"))
        expect(torch.equal(value, expected), "equal references")


def rest():
    """Half precision, a gradient that one rank wants, value_and_grad, the same bits again, a subgroup, NaN."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    for counts in SPLITS[world]:
        n, cut = sum(counts), mine(counts)
        x, y = rows(n, 6), torch.arange(n) % 4
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            leaf, own = (v.to(dtype).requires_grad_() for v in (x, x[cut]))
            value, shared = LOSS(leaf, y), LOSS(own, y[cut], group=RING)
            value.backward()
            shared.backward()
            eps = torch.finfo(dtype).eps
            expect(shared.dtype == own.grad.dtype == dtype, dtype, "became", shared.dtype)
            expect(abs(shared.item() - value.item()) <= eps * 2, dtype, counts, shared.item(), value.item())
            gap = (own.grad / world - leaf.grad[cut]).abs()
            expect(not len(gap) or float(gap.max()) <= eps * 4 * float(leaf.grad.abs().max()), dtype, counts, gap)
        leaf = x.clone().requires_grad_()
        LOSS(leaf, y).backward()
        for asks in range(world):
            own = x[cut].clone().requires_grad_(rank == asks)
            shared = LOSS(own, y[cut], group=RING)
            if rank == asks:
                shared.backward()
                expect(near(own.grad / world, leaf.grad[cut]) or not leaf.grad.any(), "asks", asks, counts)
        again = [LOSS.value_and_grad(x[cut], y[cut], group=RING) for _ in range(3)]
        expect(all(torch.equal(v, again[0][0]) and torch.equal(g, again[0][1]) for v, g in again), "not the same bits")
        broken = x.clone()
        broken[-1:] = float("nan")
        for loss in (LOSS, nf.ContrastiveLoss()):
            got = loss(broken[cut], y[cut], group=RING)
            expect(bool(got.isnan()) == bool(loss(broken, y).isnan()), "NaN", type(loss).__name__, counts, got)
        weights = rows(4, 3)
        weights[-1:] = float("nan")
        held = weights[mine([1] * (world - 1) + [5 - world])]
        got = nf.CrossEntropyLoss()(x[cut], y[cut], class_weights=held, group=SHARDS)
        expect(bool(got.isnan()) == (n > 0), "NaN in a shard", counts, got)
    if world > 2:
        part = distributed.new_group([0, 2])
        x, y = rows(9, 6), torch.arange(9) % 4
        if rank != 1:
            at = slice(0, 4) if rank == 0 else slice(4, 9)
            expect(near(LOSS(x[at], y[at], group=Ranks(part, exchange="ring")), LOSS(x, y)), "subgroup")
        distributed.barrier()


if __name__ == "__main__":
    # One launch can run what both programs have.
    main(globals() | {f"loss_on_ranks.{name}": value for name, value in vars(loss_on_ranks).items()})
