"""What a step of a loss costs each rank: a model in plain Python, and the tables of docs/scaling.md made from it.

:mod:`benchmarks.scaling_ranks` counts the same with real processes and writes ``benchmarks/results/scaling.json``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nearfar.engine.strips import tall

ITEMS, FEATURES, RANKS, HEIGHT, CARD = 1 << 20, 1024, (8, 64, 512), 256, 80e9
# Bytes a second: links of a card, inside one computer of 8 and between computers; a card's own memory. Operations a
# second of float32 products without TF32. Data sheets of H100 SXM and of 400 Gbit/s network cards; no measurements.
INSIDE, BETWEEN, OWN, FLOAT32 = 400e9, 50e9, 3.35e12, 67e12
# Bytes that each element of the table is read and written with by the eager passes over a strip; by reading.
PASSES = 60
# Numbers that ranks exchange first (form, counts, what is asked for), 8 bytes each.
HEAD = 7
# Tables of own × all items that open_clip's loss holds at once in float32: logits and log-softmax of both directions.
TABLES = 4
BYTES, RULE = ("rows", "gradient", "small", "reduced"), "|---"


@dataclass(frozen=True)
class Form:
    """What one form of a call takes and holds, in multiples of its rows × features.

    Attributes:
        units: Products of own anchors × all references × features.
        sides: Sides whose rows are gathered, and whose gradient goes back.
        sums: Numbers of 8 bytes summed over ranks.
        given: Own rows the caller holds, and copies of them where they are not float32.
        strips: All rows and own rows held while strips run; likewise ``exchange`` while the gradient travels, without
            what arrives; and ``last``, while it is carried back to the embeddings.
    """

    units: int
    sides: int
    sums: int
    given: tuple[int, int]
    strips: tuple[int, int]
    exchange: tuple[int, int]
    last: tuple[int, int]


FORMS = {
    "self": Form(3, 1, 2, (1, 1), (3, 0), (4, 0), (3, 2)),
    "references": Form(3, 1, 4, (2, 3), (3, 2), (4, 2), (3, 5)),
    "both": Form(6, 2, 4, (2, 2), (8, 0), (12, 0), (10, 4)),
}


@dataclass(frozen=True)
class Cost:
    """Of one step of one rank: bytes that arrive, operations in products, most bytes held, own memory's traffic."""

    rows: int
    gradient: int
    small: int
    reduced: int
    flop: int
    memory: int
    traffic: int


def step_cost(
    way: str,
    counts: list[int],
    features: int,
    width: int,
    height: int | None = None,
    *,
    rank: int = 0,
    gloo: bool = False,
) -> Cost:
    """A step of cosine and softmax, forward and backward, both sides' gradients asked for.

    Args:
        way: A form of FORMS: a batch with itself, own anchors and all references, two towers in both directions.
        counts: Items of each rank.
        features: Features of an item.
        width: Bytes of a number of the embeddings; computed is in 4, or in 8 where that is the width.
        height: Anchors of a strip; None: the engine's choice.
        rank: Whose cost.
        gloo: On the CPU over gloo, as in the simulation; else on a GPU over NCCL, with equal counts.
    """
    form, world, longest, own, total = FORMS[way], len(counts), max(counts), counts[rank], sum(counts)
    wide, height = max(width, 4), height or tall(total)
    arriving = own if gloo else longest
    row = features * wide
    given = own * features * width * form.given[0] + (own * row * form.given[1] if width < wide else 0)
    # Gloo's ranks receive all parts and add them; a reduce-scatter adds on the way.
    here = form.sides * row * ((world * own + own) if gloo else longest)
    strips = (2 if gloo else 3) * min(height, own) * total * wide
    peaks = [strips, here, 0]
    for k, (everyone, mine) in enumerate((form.strips, form.exchange, form.last)):
        peaks[k] += (everyone * total + mine * own) * row
    return Cost(
        rows=(world - 1) * longest * features * width * form.sides,
        gradient=(world - 1) * arriving * row * form.sides,
        small=(world - 1) * (HEAD + longest) * 8,
        reduced=8 * form.sums,
        flop=2 * form.units * own * total * features,
        memory=given + max(peaks),
        traffic=form.units // 3 * (-(-own // height) * 4 * total * row + PASSES * own * total),
    )


def steps() -> list[dict[str, Any]]:
    """The large batch on GPUs, and what published rates make of it."""
    rows = []
    for way in ("self", "both"):
        for ranks in RANKS:
            counts = [ITEMS // ranks] * ranks
            cost, low = (step_cost(way, counts, FEATURES, 4, height) for height in (HEIGHT, None))
            link = INSIDE if ranks <= 8 else BETWEEN
            seconds = {
                "links": (cost.rows + cost.gradient) / link,
                "products": cost.flop / FLOAT32,
                "memory": cost.traffic / OWN,
                "memory, low strips": low.traffic / OWN,
            }
            one = step_cost(way, [4096] * ranks, FEATURES, 4, HEIGHT).memory / (4096 * ranks)
            rows.append({"way": way, "ranks": ranks, **asdict(cost), "seconds": seconds, "fits": int(CARD / one)})
    return rows


def dense_cost(counts: list[int], features: int) -> Cost:
    """open_clip's loss with ``local_loss`` and ``gather_with_grad``: its memory is no less than this."""
    own, total, row = counts[0], sum(counts), features * 4
    foreign = 2 * (total - own) * row
    flop = 12 * own * total * features
    return Cost(foreign, foreign, 0, 0, flop, (2 * total + 2 * own) * row + TABLES * own * total * 4, 0)


def schemes() -> list[dict[str, Any]]:
    """Two towers in both directions, and a batch with itself, shared in several ways; float32 rows."""
    rows = []
    for ranks in RANKS:
        counts, row = [ITEMS // ranks] * ranks, FEATURES * 4
        foreign, whole, own = (ITEMS - counts[0]) * row, ITEMS * row, counts[0] * row
        both, one, alone = (step_cost(way, counts, FEATURES, 4, HEIGHT) for way in ("both", "references", "self"))
        dense = dense_cost(counts, FEATURES)
        told = {
            "both: nearfar, one call": (both.rows + both.gradient, 6, both.memory),
            "both: nearfar, a call for each direction": (2 * (one.rows + one.gradient), 6, one.memory),
            "both: open_clip": (dense.rows + dense.gradient, 6, dense.memory),
            "both: one tower gathered (not built)": (2 * foreign, 4, 2 * whole),
            "both: ring (not built)": (3 * foreign, 5, 3 * own),
            "self: nearfar": (alone.rows + alone.gradient, 3, alone.memory),
            "self: half ring, two laps (not built)": (3 * whole // 2, 2, 3 * own),
        }
        for name, (arrives, units, memory) in told.items():
            rows.append({"scheme": name, "ranks": ranks, "bytes": arrives, "units": units, "memory": memory})
    return rows


def blocks(record: dict[str, Any]) -> dict[str, str]:
    """The tables of docs/scaling.md."""
    return {
        "scaling-bytes": _bytes(record),
        "scaling-time": _time(record),
        "scaling-schemes": _schemes(record),
        "scaling-counted": _counted(record),
    }


def _bytes(record: dict[str, Any]) -> str:
    lines = [
        "| form | GPUs | items each | rows arrive | gradient arrives | the rest | products | memory |",
        RULE * 8 + "|",
    ]
    for row in record["steps"]:
        n, rest = ITEMS // row["ranks"], row["small"] + row["reduced"]
        cells = [
            row["way"],
            str(row["ranks"]),
            f"{n:,}",
            _gb(row["rows"]),
            _gb(row["gradient"]),
            f"{rest / 1e6:.1f} MB",
        ]
        cells += [f"{FORMS[row['way']].units} units, {row['flop'] / 1e12:,.0f} TFLOP", _gb(row["memory"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(record: dict[str, Any]) -> str:
    names = list(record["steps"][0]["seconds"])
    heads = ["links", "products", f"own memory, strips of {HEIGHT}", f"own memory, strips of {tall(ITEMS)}"]
    lines = [f"| form | GPUs | {' | '.join(heads)} | largest batch in {CARD / 1e9:.0f} GB |", RULE * 7 + "|"]
    for row in record["steps"]:
        cells = [row["way"], str(row["ranks"]), *(f"{row['seconds'][name]:.2g} s" for name in names)]
        cells.append(f"{row['fits'] / 1e6:.1f} M")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _schemes(record: dict[str, Any]) -> str:
    lines = [f"| form: scheme | units | {' | '.join(f'{r} GPUs: arrives, memory' for r in RANKS)} |", RULE * 5 + "|"]
    rows = record["schemes"]
    for name in dict.fromkeys(row["scheme"] for row in rows):
        same = [row for row in rows if row["scheme"] == name]
        cells = [f"{_gb(row['bytes'])}, {_gb(row['memory'])}" for row in same]
        lines.append(f"| {name} | {same[0]['units']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _counted(record: dict[str, Any]) -> str:
    lines = ["| ranks | form | splits | bytes as in the model | products | memory counted / model |", RULE * 6 + "|"]
    for world in sorted({len(row["case"]["counts"]) for row in record["counted"]}):
        for way in (*FORMS, "open_clip"):
            rows = [r for r in record["counted"] if len(r["case"]["counts"]) == world and r["case"]["way"] == way]
            if not rows:
                continue
            pairs = [pair for row in rows for pair in zip(row["ranks"], row["model"], strict=True)]
            ratios = [ours["memory"] / model["memory"] for ours, model in pairs]
            equal = [sum(all(a[k] == b[k] for k in keys) for a, b in pairs) for keys in (BYTES, ("flop",))]
            splits = ", ".join(dict.fromkeys(" + ".join(map(str, row["case"]["counts"])) for row in rows))
            cells = [str(world), way, splits, *(f"{k} of {len(pairs)}" for k in equal)]
            lines.append(f"| {' | '.join(cells)} | {min(ratios):.3f} to {max(ratios):.3f} |")
    return "\n".join(lines)


def _gb(count: float) -> str:
    return f"{count / 1e9:,.3g} GB" if count < 1e12 else f"{count / 1e9:,.0f} GB"
