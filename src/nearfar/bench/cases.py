"""The cases, and what is wanted of each, as data in one place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nearfar._errors import UsageError
from nearfar.bench.catalogue import DENSE, FLOOR, LOSSES, OPEN_CLIP, OURS, PML

GROUPS = ("table", "huge", "small", "growth")
SIZES = (1024, 2048, 4096, 8192, 16384)
QUICK, QUICK_SIZES = 128, (64, 128, 256)


@dataclass(frozen=True)
class Run:
    """One measurement: a library, a loss, a batch size."""

    library: str
    loss: str
    n: int


@dataclass(frozen=True)
class Bar:
    """What is wanted of our time or memory.

    Attributes:
        kind: ``"faster"`` (at least ``limit`` times as fast as the rival), ``"time"`` (at most ``limit`` times its
            time), ``"best"`` (the same, against the fastest of dense autograd and the peer), ``"memory"`` (at most
            ``limit`` MB), ``"share"`` (at most that share of the rival's memory), ``"slope"`` (time against N,
            logarithmic, ± 0.1) or ``"memory slope"`` (at most ``limit`` + 0.1).
        limit: The number.
        rival: The label of a run of the case, where the kind needs one.
    """

    kind: str
    limit: float
    rival: str = ""


@dataclass(frozen=True)
class Case:
    """What is measured together, in turns, and judged together; ``runs`` are named, ours is ``"nearfar"``."""

    name: str
    groups: tuple[str, ...]
    loss: str
    n: int
    runs: dict[str, Run]
    bars: tuple[Bar, ...] = ()

    def quick(self) -> Case:
        """The same in small, to see that everything runs; a size is no reason to judge."""
        sizes = dict(zip((str(n) for n in SIZES), QUICK_SIZES, strict=False))
        if "growth" in self.groups:
            runs = {str(n): replace(self.runs[old], n=n) for old, n in sizes.items()}
            return replace(self, n=QUICK_SIZES[-1], runs=runs, bars=())
        n = min(self.n, QUICK)
        runs = {label: replace(run, n=min(run.n, QUICK)) for label, run in self.runs.items()}
        return replace(self, name=f"{self.loss}-{n}", n=n, runs=runs, bars=())


def _case(loss: str, n: int, *bars: Bar, groups: tuple[str, ...] = ("table",)) -> Case:
    """Ours beside the peer, dense autograd and, for the larger ones, the floor."""
    peer = LOSSES[loss].peer
    libraries = [OURS, *([peer] if peer else []), DENSE, *([FLOOR] if "table" in groups else [])]
    return Case(f"{loss}-{n}", groups, loss, n, {name: Run(name, loss, n) for name in libraries}, bars)


def _beside_ourselves(loss: str, n: int, other: tuple[str, int], group: str, *bars: Bar) -> Case:
    """Ours beside another run of ours, for batches that nothing else survives."""
    runs = {OURS: Run(OURS, loss, n), f"{other[0]}-{other[1]}": Run(OURS, *other)}
    return Case(f"{loss}-{n}", (group,), loss, n, runs, bars)


def _small(loss: str, n: int) -> Case:
    return _case(loss, n, Bar("best", 1), groups=("small",))


def _growth(loss: str) -> Case:
    runs = {str(n): Run(OURS, loss, n) for n in SIZES}
    return Case(f"{loss}-growth", ("growth",), loss, SIZES[-1], runs, (Bar("slope", 2), Bar("memory slope", 1)))


def _against(peer: str, times: float, megabytes: float) -> tuple[Bar, Bar]:
    return Bar("faster", times, peer), Bar("memory", megabytes)


TABLE = (
    _case("supcon", 8192, *_against(PML, 15, 48), Bar("time", 1.2, FLOOR)),
    _case("contrastive", 8192, *_against(PML, 8, 48)),
    _case("contrastive-active", 8192),
    _case("multi-similarity", 8192, *_against(PML, 20, 64)),
    _case("multi-similarity-hard", 8192),
    _case("circle", 8192, *_against(PML, 30, 64)),
    _case("nca", 8192, *_against(PML, 8, 64)),
    _case("triplet", 1024, *_against(PML, 60, 48)),
    _beside_ourselves("triplet", 8192, ("supcon", 8192), "table", Bar("time", 6, "supcon-8192"), Bar("memory", 48)),
    _case("triplet-hard", 8192),
    _case("nt-xent", 256, *_against(PML, 1000, 16), Bar("best", 1), groups=("table", "small")),
    _case("lifted", 256, *_against(PML, 500, 16), Bar("best", 1), groups=("table", "small")),
    _case("margin", 1024, *_against(PML, 80, 32)),
    _case("fastap", 1024, *_against(PML, 6, 64)),
    _case("smoothap", 512, *_against(PML, 15, 64)),
    _case("clip", 4096, Bar("faster", 3, OPEN_CLIP), Bar("share", 0.1, OPEN_CLIP)),
)
HUGE = (
    _beside_ourselves(
        "supcon", 65536, ("supcon", 8192), "huge", Bar("time", 1.3 * (65536 / 8192) ** 2, "supcon-8192"),
        Bar("memory", 400),
    ),
)  # fmt: skip
IN_TABLE = {case.name for case in TABLE}
SMALL = tuple(
    _small(loss, n)
    for n in (64, 256)
    for loss in LOSSES
    if loss != "contrastive-active" and f"{loss}-{n}" not in IN_TABLE
)
GROWTH = tuple(_growth(loss) for loss, entry in LOSSES.items() if entry.of_pairs and loss != "contrastive-active")
CASES = (*TABLE, *HUGE, *SMALL, *GROWTH)


def chosen(names: Sequence[str]) -> list[Case]:
    """The cases of these names or groups, in the order of the table; without a name the group ``table``.

    Args:
        names: Groups (``table``, ``huge``, ``small``, ``growth``) or cases (``supcon-8192``, ``supcon-growth``).

    Raises:
        UsageError: A name that is neither.

    Example:
        >>> from nearfar.bench import chosen
        >>> [case.name for case in chosen(["clip-4096", "huge"])]
        ['clip-4096', 'supcon-65536']
    """
    wanted = set(names or ("table",))
    known = {*GROUPS, *(case.name for case in CASES)}
    if unknown := sorted(wanted - known):
        near = sorted(name for name in known if re.split(r"[-\d]", name)[0] == re.split(r"[-\d]", unknown[0])[0])
        raise UsageError(
            f"expected a case or a group, got {unknown[0]!r}; choose {', '.join(near) or 'among ' + ', '.join(GROUPS)}"
        )
    return [case for case in CASES if case.name in wanted or wanted & set(case.groups)]
