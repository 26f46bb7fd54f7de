"""Start a file of the tests in several processes, one a rank, over gloo on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

HERE = Path(__file__).parent


def run_ranks(name, world, folder, seconds=240):
    """The last line that each rank printed; fails with what a failed rank wrote to standard error."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / name), str(rank), str(world), str(folder / "rendezvous")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(world)
    ]
    try:
        done = [rank.communicate(timeout=seconds) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, (_, errors) in zip(ranks, done, strict=True):
        assert rank.returncode == 0, "\n\n".join(e for _, e in done) or errors
    return [out.strip().splitlines()[-1] for out, _ in done]


def join(seconds=200):
    """In a rank: join the group; rank and number of ranks."""
    from torch import distributed

    rank, world, rendezvous = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    distributed.init_process_group(
        "gloo", f"file://{rendezvous}", timeout=timedelta(seconds=seconds), rank=rank, world_size=world
    )
    return rank, world
