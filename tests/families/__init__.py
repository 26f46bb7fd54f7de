"""The oracles and variants of the losses, a file a family; what each file declares is merged here.

``VARIANTS``: a list of configured losses for each name. ``RULES``: the paper in plain floats: an anchor's row of the
table and its two rows of weights → terms (multiplicity, loss). ``DENSE``: the whole table in PyTorch → sum of each
anchor's terms and their number. Optional: ``STOP_GRADIENT`` (losses whose gradient is by design not that of their
value), ``ONE_WAY`` (two aligned batches are asked once), ``MEASURES`` (class → the only measures it takes),
``STEEPNESS`` (class → how fast what stands in its exponentials follows the measure), ``NAMED_BY`` (fields that tell
variants apart), ``WHOLE_TABLE`` (names of losses whose rule takes the whole table at once, and gives each row's terms),
``WITH_REFERENCES`` (those of them that get the references' own table below it), ``SMOOTH`` (losses on distances whose
weights are exponentials of them), ``ON_ANGLES`` (losses on cosine distances that weigh by the angle),
``LABELS_ONLY`` (losses that refuse a mask).
"""

from __future__ import annotations

from families import class_weights, logistic, margins, ranking, softmax

_ALL = (class_weights, logistic, margins, ranking, softmax)


def _merged(name):
    found = {}
    for family in _ALL:
        both = found.keys() & getattr(family, name, {}).keys()
        assert not both, both
        found |= getattr(family, name, {})
    return found


def _joined(name):
    return tuple(item for family in _ALL for item in getattr(family, name, ()))


VARIANTS, RULES, DENSE, MEASURES, STEEPNESS = map(_merged, ("VARIANTS", "RULES", "DENSE", "MEASURES", "STEEPNESS"))
STOP_GRADIENT, ONE_WAY, NAMED_BY = map(_joined, ("STOP_GRADIENT", "ONE_WAY", "NAMED_BY"))
WHOLE_TABLE = _joined("WHOLE_TABLE")
SMOOTH, WITH_REFERENCES, ON_ANGLES = map(_joined, ("SMOOTH", "WITH_REFERENCES", "ON_ANGLES"))
LABELS_ONLY = _joined("LABELS_ONLY")
