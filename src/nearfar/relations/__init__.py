"""Who belongs together: which pairs of the table are positive, negative or ignored, and how much they weigh.

A relation is given by the caller (:class:`Labels`, :class:`Mask`, :class:`Aligned`) and bound to a table once;
the bound relation cuts a :class:`Pair` for each strip of anchors. Weights are multiplicities: a pair of weight 2
counts as the same pair listed twice, a pair of weight 0 does not exist.
"""

from nearfar.relations.guided import Guided
from nearfar.relations.labels import Aligned, Labels
from nearfar.relations.masks import Classes, Mask, Rows
from nearfar.relations.pair import BoundRelation, Pair, Relation
from nearfar.relations.weighed import MultiLabels, Pairwise

__all__ = [
    "Aligned",
    "BoundRelation",
    "Classes",
    "Guided",
    "Labels",
    "Mask",
    "MultiLabels",
    "Pair",
    "Pairwise",
    "Relation",
    "Rows",
]
