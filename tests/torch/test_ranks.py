"""Many ranks: the loss of one big batch, whatever its split; what travels; errors on all ranks at once.

Processes are started by torchrun over gloo on loopback; each wait has an end. One launch runs many cases.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar.torch import Ranks

HERE = Path(__file__).parent
slow = pytest.mark.slow


def torchrun(world, *what, seconds=240, program="loss_on_ranks.py"):
    """Run functions of a program on so many ranks; a list of what went wrong."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", str(world), str(HERE / program), *what]
    environment = {
        **os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)
    }  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        out, errors = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    return json.loads(out.strip().splitlines()[-1])


GATHERED = ["losses:sample", "traffic", "models", "rest", "errors"]


def test_three_ranks():
    """Uneven and empty splits, a sample of the tests below in one launch: it starts longer than most of them run."""
    what = [*(f"loss_on_ranks.{name}" for name in GATHERED), "shards:sample", "learned", "steps"]
    assert torchrun(3, *what, program="columns_on_ranks.py") == []


@slow
@pytest.mark.parametrize("world", [2, 1, 4])
def test_ranks_equal_single_process(world):
    """Uneven and empty splits, every form: value to 1e-12 and equal on all ranks, gradients to 1e-12."""
    assert torchrun(world, "losses:sample") == []


@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_loss(world):
    """And even splits, and every loss on every measure."""
    assert torchrun(world, "losses:all", seconds=500) == []


@slow
@pytest.mark.parametrize("world", [1, 2])
def test_what_surrounds_a_loss(world):
    """Bytes that travel, errors, a step under DDP, the gradient cache, learned parameters, dtypes, groups."""
    calls = ["traffic", "models", "rest", *(["errors"] if world > 1 else [])]  # one rank agrees with itself
    assert torchrun(world, *calls) == []


@slow
@pytest.mark.parametrize("world", [2, 3, 1])
def test_blocks_equal_single_process(world):
    """References in the ring and class weights in shards, uneven and empty ones: values and gradients to 1e-12."""
    what = ["shards", "learned", "steps", *(["ring:sample"] if world == 2 else [])]
    assert torchrun(world, *what, program="columns_on_ranks.py") == []


@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_loss_in_the_ring(world):
    assert torchrun(world, "ring:cases", seconds=500, program="columns_on_ranks.py") == []


@slow
@pytest.mark.parametrize("world", [2, 3])
def test_what_surrounds_blocks(world):
    """Bytes that travel, memory, errors on all ranks, what "auto" chooses, dtypes and groups."""
    assert torchrun(world, "traffic", "memory", "errors", "choice", "rest", program="columns_on_ranks.py") == []


@pytest.mark.parametrize("word", ["references", "class_weights", "exchange"])
def test_words(word):
    with pytest.raises(nf.InputError, match=f"expected {word} to be '.*' or '.*', got 'mine'; "):
        Ranks(**{word: "mine"})


@slow
def test_a_fault_is_found():
    """A worker that fails says so, and one that goes wrong has it in its list."""
    assert torchrun(1, "fault") == ["rank 0: as it should"]
    with pytest.raises(AssertionError, match="KeyError"):
        torchrun(1, "nothing of that name")


@pytest.fixture
def alone():
    """A group of this one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_group_is_needed():
    with pytest.raises(nf.InputError, match=r"expected an initialised torch.distributed.*init_process_group"):
        nf.SupConLoss()(torch.eye(2), [0, 0], group=Ranks())


@pytest.mark.usefixtures("alone")
def test_numpy_has_no_group():
    x, y = np.eye(4), [0, 0, 1, 1]
    for call in (nf.SupConLoss(), nf.SupConLoss().value_and_grad, nf.SupConLoss() + nf.TripletLoss()):
        with pytest.raises(nf.BackendError, match=r"expected torch tensors with group, got ndarray"):
            call(x, y, group=Ranks())


@pytest.mark.usefixtures("alone")
def test_double_backward_is_refused():
    x = torch.eye(4, requires_grad=True)
    (gradient,) = torch.autograd.grad(nf.SupConLoss()(x, [0, 0, 1, 1], group=Ranks()), x, create_graph=True)
    with pytest.raises(nf.InputError, match="expected one backward pass"):
        gradient.square().sum().backward()


@pytest.mark.usefixtures("alone")
def test_sums_pass_the_group_on():
    x, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    both = 0.5 * nf.SupConLoss() + nf.TripletLoss()
    torch.testing.assert_close(both(x, y, group=Ranks()), both(x, y))
    with pytest.raises(nf.InputError, match="expected no group with per_anchor"):
        both.per_anchor(x, y, group=Ranks())
