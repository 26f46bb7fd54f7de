"""A training step inside ``torch.compile(fullgraph=True)``: value and gradients are those of the step outside."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import nearfar as nf
from nearfar.torch import Learnable, Proxies
from nearfar.torch._told import Told, read

# torch.compile imports parts of torch that warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

SUPCON, CONTRASTIVE, TRIPLET = nf.SupConLoss(temperature=0.3), nf.ContrastiveLoss(margin=2.5), nf.TripletLoss()
CROSS_ENTROPY, ARCFACE, SIGLIP = nf.CrossEntropyLoss(), nf.ArcFaceLoss(), nf.SigLIPLoss(0.3, -1.5)
BARLOW, COSENT, NEGATIVES = nf.BarlowTwinsLoss(), nf.CoSENTLoss(), nf.MultipleNegativesRankingLoss()
SUM, CUT, PROXY = 0.5 * SUPCON + CONTRASTIVE, nf.Matryoshka(SUPCON, (2, 5)), nf.ProxyAnchorLoss()
Y, R = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3, 0]), torch.tensor([0, 1, 2, 2, 1, 0, 3, 4, 4])
LISTED, NAMED = Y.tolist(), [f"class {k}" for k in Y.tolist()]


def near(rows, columns):
    """A relation by the places of items."""
    same = (rows[:, None] // 3 == columns[None] // 3) * 1.0
    return same, 1 - same


NEAR, STRIPS = nf.Pairwise(near), nf.engine.Strips(4)

FORMS = {
    "labels": lambda x, r: SUPCON(x, Y),
    "references": lambda x, r: SUPCON(x, Y, references=r, reference_labels=R, ignore_label=2),
    "class_weights": lambda x, r: CROSS_ENTROPY(x, Y, class_weights=r),
    "views": lambda x, r: SUPCON.views(x, r),
    "aligned": lambda x, r: SUPCON.aligned(x, r),
    "pairs": lambda x, r: CONTRASTIVE.pairs(x, r, Y == 1),
    "distances": lambda x, r: CONTRASTIVE.distances((x - r).square().sum(1), Y == 1),
    "triplets": lambda x, r: TRIPLET.triplets(x, r, x.flip(0)),
    "per_anchor": lambda x, r: (SUPCON.per_anchor(x, Y, references=r, reference_labels=R) * Y).sum(),
    "features": lambda x, r: BARLOW(x, r),
}
MORE = {
    "one tensor twice": lambda x, r: SUPCON.aligned(x, x),
    "margins": lambda x, r: ARCFACE(x, Y, class_weights=r),
    "logits": lambda x, r: CROSS_ENTROPY(x, LISTED),
    "proxy anchor": lambda x, r: PROXY(x, Y, class_weights=r, ignore_label=1),
    "sum": lambda x, r: SUM(x, Y),
    "cut": lambda x, r: CUT(x, Y),
    "scores": lambda x, r: COSENT.pairs(x, r, Y.double()),
    "hard negatives": lambda x, r: NEGATIVES.aligned(x, r, r.flip(0)),
    "mask": lambda x, r: SUPCON(x, nf.Mask(Y[:, None] == Y)),
    "tags": lambda x, r: SUPCON(x, nf.MultiLabels(Y[:, None] == torch.arange(4))),
    "function": lambda x, r: SUPCON(x, NEAR),
    "numbers in a list": lambda x, r: SUPCON(x, LISTED),
    "strings": lambda x, r: SUPCON(x, NAMED, ignore_label="class 1"),
    "strips": lambda x, r: SUPCON(x, Y, engine=STRIPS),
    "value_and_grad": lambda x, r: SUPCON.value_and_grad(x, Y)[1].square().sum() * x.sum(),
}


@pytest.fixture(autouse=True)
def fresh():
    """What was compiled before is forgotten."""
    torch._dynamo.reset()


def rows(seed, n=9, dtype=torch.float32):
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x * (1 + torch.arange(5) / 4)).to(dtype).requires_grad_()


def step(f, *tensors):
    """A value that upstream scales, and its gradients."""
    value = f(*tensors)
    gradients = torch.autograd.grad(3 * value, tensors, allow_unused=True)
    return [value.detach(), *(torch.zeros(()) if g is None else g for g in gradients)]


def compiled(f, **options):
    return torch.compile(f, **{"fullgraph": True, "backend": "aot_eager"} | options)


def expect_same(f, *tensors, **options):
    expected, got = step(f, *tensors), step(compiled(f, **options), *tensors)
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0)
    assert any(bool(gradient.any()) for gradient in got[1:])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_compiled_step_is_the_step(form):
    expect_same(form, rows(1), rows(2))


@pytest.mark.slow
@pytest.mark.parametrize("form", [*MORE.values(), *FORMS.values()], ids=[*MORE, *FORMS])
def test_a_compiled_step_is_the_step_in_every_form(form):
    expect_same(form, rows(1, dtype=torch.float64), rows(2, dtype=torch.float64))


DYNAMIC = {
    "labels": lambda x, y: SUPCON(x, y),
    "views": lambda x, y: SUPCON.views(x, x.exp()),
    "class_weights": lambda x, y: CROSS_ENTROPY(x, y),
    "pairs": lambda x, y: CONTRASTIVE.pairs(x, x.exp(), y > 1),
    "triplets": lambda x, y: TRIPLET.triplets(x, x.exp(), x.sin()),
    "aligned": lambda x, y: SIGLIP.aligned(x, x.exp()),
    "features": lambda x, y: BARLOW(x, x.exp()),
}


@pytest.mark.parametrize(
    "form", [pytest.param(f, id=k, marks=() if k == "views" else pytest.mark.slow) for k, f in DYNAMIC.items()]
)
def test_one_program_for_all_batch_sizes(form):
    counter = CompileCounterWithBackend("aot_eager")
    program = compiled(form, dynamic=True, backend=counter)
    for n in (4, 7, 12):
        x, y = rows(n, n), torch.arange(n) % 3
        for a, b in zip(step(lambda x, y=y: form(x, y), x), step(lambda x, y=y: program(x, y), x), strict=True):
            torch.testing.assert_close(b, a, rtol=0, atol=0)
    # PyTorch compiles once more where a size is first seen to change.
    assert counter.frame_count <= 2


LEARNED = {
    "temperature": (Learnable(SUPCON, "temperature", largest_scale=4.0), lambda m, x, y: m(x, y)),
    "bias": (Learnable(SIGLIP, "temperature", "bias"), lambda m, x, y: m.aligned(x, x.sin())),
    "classes": (Learnable(nf.MarginLoss(beta=0.9), "beta", classes=3), lambda m, x, y: m.per_anchor(x, y).sum()),
    "proxies": (Proxies(CROSS_ENTROPY, 3, 5, seed=0), lambda m, x, y: m(x, y)),
}


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=k, marks=() if k == "bias" else pytest.mark.slow) for k, c in LEARNED.items()]
)
def test_learned_parameters(case):
    module, form = case
    parameters = list(module.parameters())
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    expect_same(lambda x, *_: form(module, x, y), rows(5, 6), *parameters)


@pytest.mark.slow
def test_other_hyper_parameters_are_another_program():
    program, x = compiled(lambda loss, x: loss(x, Y)), rows(3)
    for loss in (nf.ContrastiveLoss(0.6), nf.ContrastiveLoss(1.3), nf.MarginLoss(), nf.ContrastiveLoss(1.3, True)):
        assert torch.equal(program(loss, x), loss(x, Y))


def test_validation_computes_no_gradient(monkeypatch):
    asked = []
    from nearfar.torch import _compiled

    plain = _compiled.outcome_of
    monkeypatch.setattr(_compiled, "outcome_of", lambda *args: asked.append(args[2]) or plain(*args))
    with torch.no_grad():
        compiled(lambda x: SUPCON(x, Y))(rows(1))
    assert asked == [False]


WRONG = {
    "labels": (lambda x: SUPCON(x, Y[:5]), "expected labels of shape"),
    "matrix": (lambda x: SUPCON(x[None], Y), "expected embeddings of shape"),
    "classes": (lambda x: SUPCON(x, Y, class_weights=x), "expected no class_weights"),
    "triplets": (lambda x: TRIPLET.triplets(x, x[:3], x), "expected positive of shape"),
    "dtypes": (lambda x: SUPCON.aligned(x, x.double()), "expected one dtype"),
    "group": (lambda x: SUPCON(x, Y, group="ranks"), "expected no group inside torch.compile"),
    "transform": (lambda x: torch.func.grad(SUPCON)(x, Y), "expected torch.compile or torch.func around a loss"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_errors_say_what_they_say_outside(call, message):
    # PyTorch wraps what is raised while it reads the code.
    with pytest.raises(Exception, match=message):
        compiled(call)(rows(1).detach())


def test_a_loss_without_an_address_is_refused():
    class Mine(nf.SupConLoss):
        """Made in a function."""

    mine = Mine()
    with pytest.raises(Exception, match="expected classes and functions that have a name in their module"):
        compiled(lambda x: mine(x, Y))(rows(1))


def test_double_backward_is_an_error():
    x = rows(1)
    (gradient,) = torch.autograd.grad(compiled(lambda x: SUPCON(x, Y))(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.square().sum().backward()


def test_what_is_told_is_read():
    told, value = Told(), ("a\\nb\n\\", "é'", "", 7, -2.5, float("inf"), None, True, [False, 3], near, STRIPS, SUM)
    told.write(value)
    assert read(told.text, told.tensors, told.numbers) == value


def test_the_operator_keeps_the_rules_of_operators():
    told = Told()
    told.write((SIGLIP, nf.engine.Given(rows(1), rows(2), nf.Aligned()), "auto", True, False))
    rules = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        torch.ops.nearfar.loss.default, (told.text, told.tensors, told.numbers, None), test_utils=rules
    )


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor wants a C++ compiler")
def test_inductor():
    layer = torch.nn.Linear(5, 4)

    def whole(x, weight):
        return SUPCON(torch.nn.functional.normalize(torch.nn.functional.linear(x, weight)), Y)

    x = rows(1)
    expected, got = step(whole, x, layer.weight), step(compiled(whole, backend="inductor"), x, layer.weight)
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)
