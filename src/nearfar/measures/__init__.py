"""Measures: embeddings → one number for each pair, and the chain rule back.

A *similarity* is higher for nearer pairs (:class:`Cosine`, :class:`Dot`), a *distance* lower (:class:`Euclidean`,
:class:`SquaredEuclidean`, :class:`CosineDistance`, :class:`Manhattan`). A loss says which of the two it is defined
on and refuses the other; no flag flips a sign.

Each measure works on prepared rows (``prepare``), makes the table of a strip (``table``), carries pair weights back
to the rows (``pull``) and the rows' gradient back to the embeddings (``unprepare``). ``rows`` and ``pull_rows`` do
the same for pairs given one by one.
"""

from nearfar.measures.base import Distance, Measure, Similarity, expect_kind
from nearfar.measures.euclidean import CosineDistance, Euclidean, SquaredEuclidean
from nearfar.measures.manhattan import Manhattan
from nearfar.measures.similarity import Cosine, Dot

__all__ = [
    "Cosine",
    "CosineDistance",
    "Distance",
    "Dot",
    "Euclidean",
    "Manhattan",
    "Measure",
    "Similarity",
    "SquaredEuclidean",
    "expect_kind",
]
