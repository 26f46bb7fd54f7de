"""Which losses are timed, what nearfar calls them, and which other library has them: data only, no framework."""

from __future__ import annotations

from dataclasses import dataclass

OURS, DENSE, FLOOR = "nearfar", "dense autograd", "floor"
PML, OPEN_CLIP = "pytorch-metric-learning", "open_clip"
# Where pip calls a library by another name.
PACKAGES = {PML: "pytorch-metric-learning", OPEN_CLIP: "open_clip_torch"}


@dataclass(frozen=True)
class Entry:
    """One loss.

    Attributes:
        title: Its name for people.
        needs: The class of nearfar that computes it; while nearfar lacks it, its cases are skipped.
        peer: The library that has it, or None.
        inputs: ``"labels"``, ``"sorted"`` (labels, one class after the other), ``"aligned"`` (two batches, row i
            matches row i) or ``"classes"`` (class weights are the second batch).
        differs: In what the peer's value is not ours on the same rows; empty where both are the same function.
    """

    title: str
    needs: str
    peer: str | None = None
    inputs: str = "labels"
    differs: str = ""

    @property
    def of_pairs(self) -> bool:
        """Whether its table is all items against all items."""
        return self.inputs != "classes"


LOSSES = {
    "supcon": Entry("SupCon", "SupConLoss", PML),
    "contrastive": Entry("contrastive", "ContrastiveLoss", PML, differs="its mean counts the pairs above 0 only"),
    "contrastive-active": Entry(
        "contrastive, margin √2", "ContrastiveLoss", PML, differs="its mean counts the pairs above 0 only"
    ),
    "multi-similarity": Entry("multi-similarity", "MultiSimilarityLoss", PML),
    "multi-similarity-hard": Entry("multi-similarity, mined", "MultiSimilarityLoss", PML),
    "circle": Entry("circle", "CircleLoss", PML),
    "nca": Entry("NCA", "NCALoss", PML),
    "triplet": Entry("triplets, all", "TripletLoss", PML),
    "triplet-hard": Entry("triplets, hard", "TripletLoss", PML),
    "triplet-semihard": Entry("triplets, semi-hard", "TripletLoss"),
    "nt-xent": Entry("NT-Xent with labels", "InfoNCELoss", PML),
    "n-pair": Entry("N-pair", "NPairLoss"),
    "lifted": Entry("lifted structure", "LiftedStructureLoss", PML),
    "margin": Entry("margin", "MarginLoss", PML, differs="it sums over triplets, so that a pair counts many times"),
    "fastap": Entry("FastAP", "FastAPLoss", PML),
    "smoothap": Entry("SmoothAP", "SmoothAPLoss", PML, "sorted", "it counts the anchor among its own positives"),
    "binary": Entry("binary cross-entropy", "BinaryCrossEntropyLoss"),
    "clip": Entry("CLIP, two-way", "InfoNCELoss", OPEN_CLIP, "aligned"),
    "siglip": Entry("SigLIP", "SigLIPLoss", OPEN_CLIP, "aligned"),
    "cross-entropy": Entry("cross-entropy", "CrossEntropyLoss", inputs="classes"),
    "arcface": Entry("ArcFace", "ArcFaceLoss", inputs="classes"),
}
