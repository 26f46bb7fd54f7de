"""Gradient cache: the plain step's value, gradients and randomness, with the activations of one chunk."""

from __future__ import annotations

import inspect

import pytest
import torch

import nearfar as nf
from cases import ONE_EACH, labels_for
from nearfar.torch import backward_in_chunks
from ranks import run_ranks

ROWS = 13
CHUNKS = [1, 3, ROWS, ROWS + 8]


class Encoder(torch.nn.Module):
    """Rows of 5 features to rows of 5, through 17; asymmetric, in float64."""

    def __init__(self, dropout=0.0, norm=None):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.last = torch.nn.Linear(5, 17), torch.nn.Linear(17, 5)
        self.norm = norm or torch.nn.Identity()
        self.dropout = torch.nn.Dropout(dropout)
        self.double()

    def forward(self, x):
        return self.last(self.dropout(self.norm(self.first(x).tanh())))


def rows(batch):
    x, labels = batch
    return torch.tensor(x), torch.tensor(labels)


def plain_step(model, loss, x, labels, chunk=10**6, **options):
    """The step it stands for; ``chunk`` makes the model draw its random numbers chunk by chunk, in one graph."""
    value = loss(torch.cat([model(part) for part in x.split(chunk)]), labels, **options)
    value.backward()
    return value.detach()


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def expect_equal(ours, theirs, tolerance=1e-12):
    """Equal in units of the largest entry: a bias before a measure of differences has gradient 0 but for rounding."""
    scale = max((float(b.abs().max()) for b in theirs), default=0.0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


def compare(loss, x, labels, chunk, dropout=0.0, **options):
    """Both steps from the same random state; leaves in ``options`` are compared as well."""
    leaves = [v for v in options.values() if isinstance(v, torch.Tensor) and v.requires_grad]
    found = []
    for step in (backward_in_chunks, plain_step):
        model = Encoder(dropout)
        for leaf in leaves:
            leaf.grad = None
        torch.manual_seed(42)
        value = step(model, loss, x, labels, chunk=chunk if step is backward_in_chunks or dropout else 10**6, **options)
        found.append(([value], gradients(model), [leaf.grad for leaf in leaves], [torch.get_rng_state()]))
        assert not value.requires_grad
    for ours, theirs in zip(*found, strict=True):
        expect_equal(ours, theirs)
    assert max(float(g.abs().max()) for g in found[1][1]) > 1e-4
    assert all(float(g.abs().max()) > 1e-4 for g in found[1][2])


@pytest.mark.parametrize("loss", ONE_EACH)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_every_loss_is_that_of_the_plain_step(loss, dropout, batch):
    x, labels = rows(batch)
    compare(loss, x, torch.as_tensor(labels_for(loss, x, labels)), 3, dropout)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_any_chunk(chunk, dropout, batch):
    compare(nf.SupConLoss(), *rows(batch), chunk, dropout)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_references_and_class_weights_get_their_gradient(chunk, batch, gallery):
    x, labels = rows(batch)
    references = torch.tensor(gallery[0], requires_grad=True)
    compare(nf.SupConLoss(), x, labels, chunk, 0.2, references=references, reference_labels=torch.tensor(gallery[1]))
    weights = torch.randn(12, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    compare(nf.CrossEntropyLoss(), x, labels, chunk, 0.2, class_weights=weights)
    compare(0.3 * nf.CrossEntropyLoss() + nf.ContrastiveLoss(margin=2.0), x, labels, chunk, class_weights=weights)


def test_relations_and_call_forms(batch):
    x, labels = rows(batch)
    mask = nf.Mask(positive=(labels[:, None] == labels[None, :]).double())
    compare(nf.InfoNCELoss(), x, mask, 4)
    clip = nf.InfoNCELoss(temperature=0.2)
    compare(lambda z, _: clip.aligned(z[:6], z[6:]), x[:12], None, 5)
    compare(lambda z, _: clip.views(*z.chunk(2)), x[:12], None, 5, 0.1)
    compare(lambda z, y: nf.TripletLoss().per_anchor(z, y).square().sum(), x, labels, 5)


class TwoTowers(Encoder):
    """Image and text embeddings of a row side by side, and a scale the loss uses."""

    def __init__(self, dropout=0.0):
        super().__init__(dropout)
        self.text = torch.nn.Linear(3, 5).double()
        self.scale = torch.nn.Parameter(torch.tensor(1.7, dtype=torch.float64))

    def forward(self, image, text):
        return torch.cat([super().forward(image), self.text(text)], dim=1)


@pytest.mark.parametrize("form", [tuple, list, dict])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_two_inputs_and_a_parameter_of_the_loss(form, chunk, batch):
    image = torch.tensor(batch[0])
    text = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inputs = {"text": text, "image": image} if form is dict else form([image, text])
    found = []
    for cached in (True, False):
        model = TwoTowers()

        def loss(z, _, model=model):
            return nf.InfoNCELoss(temperature=1.0, measure=nf.Dot()).aligned(z[:, :5] * model.scale, z[:, 5:])

        if cached:
            backward_in_chunks(model, loss, inputs, None, chunk=chunk)
        else:
            loss(model(image, text), None).backward()
        found.append(gradients(model))
    expect_equal(*found)
    assert all(float(g.abs().max()) > 1e-4 for g in found[1])


def test_gradients_of_leaf_inputs(batch):
    x, labels = rows(batch)
    found = []
    for step in (backward_in_chunks, plain_step):
        leaf = x.clone().requires_grad_()
        step(Encoder().requires_grad_(False), nf.SupConLoss(), leaf, labels, chunk=4)
        found.append([leaf.grad])
    expect_equal(*found)


def test_a_second_call_adds(batch):
    x, labels = rows(batch)
    model, once = Encoder(), Encoder()
    backward_in_chunks(once, nf.SupConLoss(), x, labels, chunk=4)
    for _ in range(2):
        backward_in_chunks(model, nf.SupConLoss(), x, labels, chunk=4)
    expect_equal(gradients(model), [2 * g for g in gradients(once)])


def test_the_next_step_draws_other_numbers(batch):
    x, labels = rows(batch)
    model = Encoder(0.5)
    torch.manual_seed(3)
    values = [float(backward_in_chunks(model, nf.SupConLoss(), x, labels, chunk=4)) for _ in range(3)]
    assert len(set(values)) == 3


def test_a_random_loss_goes_on_where_the_first_pass_stopped(batch):
    def loss(z, y):
        return nf.SupConLoss()(z + 0.1 * torch.randn_like(z), y)

    compare(loss, *rows(batch), 4, 0.5)


def test_the_random_state_is_put_back_after_an_error(batch):
    class Failing(Encoder):
        def forward(self, x):
            if torch.is_grad_enabled():
                raise RuntimeError("out of memory")
            return super().forward(x)

    model = Failing(0.5)
    torch.manual_seed(9)
    with pytest.raises(RuntimeError, match="out of memory"):
        backward_in_chunks(model, nf.SupConLoss(), *rows(batch), chunk=4)
    after = torch.get_rng_state()
    model = Encoder(0.5)
    torch.manual_seed(9)
    with torch.no_grad():
        for part in rows(batch)[0].split(4):
            model(part)
    assert torch.equal(after, torch.get_rng_state())


@pytest.mark.parametrize("training", [True, False])
def test_modes_stay(training, batch):
    model = Encoder(0.5, torch.nn.BatchNorm1d(17).eval()).train(training)
    model.norm.eval()
    modes = [m.training for m in model.modules()]
    backward_in_chunks(model, nf.SupConLoss(), *rows(batch), chunk=4)
    assert [m.training for m in model.modules()] == modes


def test_state_that_a_forward_changes_is_refused_by_name(batch):
    x, labels = rows(batch)
    loss = nf.SupConLoss()
    for norm in (torch.nn.BatchNorm1d(17), torch.nn.BatchNorm1d(17, track_running_stats=False).eval()):
        model = Encoder(norm=norm)
        with pytest.raises(nf.InputError, match=r"BatchNorm1d in training mode at 'norm'.*LayerNorm"):
            backward_in_chunks(model, loss, x, labels, chunk=4)
        assert model.first.weight.grad is None
    spectral = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(17, 17))
    for chunk in (4, 20):
        model = Encoder(norm=spectral)
        with pytest.raises(nf.InputError, match=r"changed 'norm\.parametrizations"):
            backward_in_chunks(model, loss, x, labels, chunk=chunk)
        assert model.first.weight.grad is None
    backward_in_chunks(model.eval(), loss, x, labels, chunk=4)


def half_step(cached, x, labels, loss=None, cache=True):
    model = Encoder(0.3).float()
    loss = loss or nf.SupConLoss()
    seen = []

    def watched(z, y):
        seen.append((z.dtype, torch.is_autocast_enabled("cpu")))
        return loss(z, y)

    torch.manual_seed(4)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cache):
        if cached:
            value = backward_in_chunks(model, watched, x, labels, chunk=4)
        else:
            value = watched(torch.cat([model(part) for part in x.split(4)]), labels)
    if not cached:
        value.backward()
    assert seen == [(torch.bfloat16, True)]
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    return [value.detach().float(), *gradients(model)]


@pytest.mark.parametrize("cache", [True, False])
def test_autocast_is_that_of_the_plain_step(cache, batch):
    x, labels = rows(batch)
    ours, theirs = (half_step(cached, x.float(), labels, cache=cache) for cached in (True, False))
    assert all(float(g.abs().max()) > 1e-4 for g in ours)
    # Weights get the sum of three products in float32 instead of one rounded to bfloat16.
    expect_equal(ours, theirs, 2**-7)


def test_backward_passes_run_outside_autocast(batch):
    """A model that keeps itself in float32 gets gradients in float32."""

    class Wide(Encoder):
        def forward(self, x):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x)

    x, labels = rows(batch)
    found = []
    for lowered in (True, False):
        model = Wide().float()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lowered):
            backward_in_chunks(model, nf.SupConLoss(), x.float(), labels, chunk=4)
        found.append(gradients(model))
    expect_equal(*found, tolerance=1e-7)


def test_one_evaluation_with_the_options_as_they_are(batch):
    x, labels = rows(batch)
    calls, group = [], object()

    def loss(z, y, **options):
        calls.append((tuple(z.shape), z.is_leaf, y, options))
        return nf.SupConLoss()(z, y)

    backward_in_chunks(Encoder(), loss, x, labels, chunk=2, group=group, ignore_label=3)
    assert calls == [((ROWS, 5), True, labels, {"group": group, "ignore_label": 3})]


def watch(step, count):
    """Largest number of rows in a forward with a graph, and the most saved elements of hidden activations at a time."""
    model, live, peak, largest = Encoder(0.2), [0], [0], [0]

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor
            self.size = tensor.numel() if tensor.ndim == 2 and tensor.shape[1] == 17 else 0
            live[0] += self.size
            peak[0] = max(peak[0], live[0])

        def __del__(self):
            live[0] -= self.size

    def before(module, arguments):
        if torch.is_grad_enabled():
            largest[0] = max(largest[0], arguments[0].shape[0])

    model.register_forward_pre_hook(before)
    x = torch.randn(count, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        step(model, nf.SupConLoss(), x, torch.arange(count) // 4)
    return largest[0], peak[0]


def test_activations_do_not_grow_with_the_batch():
    def cached(*given):
        backward_in_chunks(*given, chunk=8)

    small, large = watch(cached, 32), watch(cached, 256)
    assert small == large
    assert small[0] == 8
    assert watch(plain_step, 8) == small
    assert watch(plain_step, 256) == (256, 32 * small[1])  # the watch sees what grows


def test_no_rows_give_zero():
    model = Encoder()
    value = backward_in_chunks(model, nf.SupConLoss(), torch.zeros(0, 5).double(), torch.zeros(0).long(), chunk=4)
    assert float(value) == 0
    assert all(not g.any() for g in gradients(model))


def test_errors_speak_first(batch):
    x, labels = rows(batch)
    loss = nf.SupConLoss()

    class Silent(torch.nn.Module):
        def forward(self, *inputs):
            raise AssertionError("the model ran")

    def expect(error, match, model=None, loss=loss, inputs=x, chunk=4):
        with pytest.raises(error, match=match):
            backward_in_chunks(model or Silent(), loss, inputs, labels, chunk=chunk)

    for chunk in (0, -1, 2.0, True, None):
        expect(nf.InputError, "expected chunk to be a whole number", chunk=chunk)
    expect(nf.InputError, "expected model to be a torch.nn.Module, got function", model=lambda x: x)
    expect(nf.InputError, "expected inputs to be tensors, got ndarray", inputs=batch[0])
    expect(nf.InputError, "expected inputs to be tensors, got int", inputs=(x, 3))
    expect(nf.InputError, "expected inputs without a graph", inputs=x.clone().requires_grad_() * 2)
    expect(nf.ShapeError, r"same number of rows, got shapes \[\(13, 5\), \(12, 5\)\]", inputs=(x, x[1:]))
    expect(nf.ShapeError, "same number of rows", inputs=())
    expect(nf.ShapeError, "same number of rows", inputs={"x": torch.tensor(1.0)})
    with torch.no_grad():
        expect(nf.InputError, "expected gradients to be enabled")
    expect(nf.ShapeError, "one tensor of 4 embeddings, one a row, got tuple", model=Answer(lambda x: (x, x)))
    expect(nf.ShapeError, r"one tensor of 4 embeddings.*got shape \(5,\)", model=Answer(lambda x: x.sum(0)))
    expect(nf.InputError, r"expected the loss to be a scalar, got \(13,\)", model=Encoder(), loss=loss.per_anchor)
    expect(nf.InputError, "expected the loss to be a scalar, got float", model=Encoder(), loss=lambda z, y: 1.0)
    expect(nf.InputError, "depends on the embeddings", model=Encoder(), loss=lambda z, y: z.detach().sum())


class Answer(torch.nn.Module):
    """A model that is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_docstring_names_what_it_takes():
    text = inspect.getdoc(backward_in_chunks)
    assert all(word in text for word in ("loss.aligned", "loss.views", "GradScaler", "all-reduce", "Raises:"))


@pytest.mark.slow  # test_three_ranks of test_ranks.py has a case of it.
@pytest.mark.timeout(260)
def test_two_ranks_under_distributed_data_parallel(tmp_path):
    done = run_ranks("torch/cache_on_ranks.py", 2, tmp_path)
    assert done == ["ok"] * 2
