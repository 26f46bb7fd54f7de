"""What other sources compute and no loss here does, with the reason."""

from __future__ import annotations

from typing import NamedTuple


class NotReproduced(NamedTuple):
    """One function of another source.

    Attributes:
        source: Who has it.
        name: What it is called there.
        reason: Why no configured loss has its value, and what comes nearest.
        value: Its value on the batch of docs/conventions.md, where one is known.
    """

    source: str
    name: str
    reason: str
    value: float | None = None


NOT_REPRODUCED = (
    NotReproduced(
        "sentence-transformers",
        "OnlineContrastiveLoss",
        "a sum, over pairs chosen by the batch's extremes: positives beyond the nearest negative, negatives within the "
        "farthest positive. Choose the pairs, then `n * ContrastiveLoss(m, factors=(1, 1)).pairs(…)`",
        13.951249,
    ),
    NotReproduced(
        "quaterion",
        "OnlineContrastiveLoss, mining hard",
        "an item is its own hardest negative, so that the negative term is the constant m/2 with no gradient",
        0.430924,
    ),
    NotReproduced(
        "quaterion",
        "ContrastiveLoss with the batch's other pairs",
        "two scales of one distance in one sum: 1 − s of given pairs, (1 − s)/2 of the others, which have no ½",
    ),
    NotReproduced(
        "quaterion",
        "TripletLoss, hard",
        "the hinge divides by the batch's mean hardest negative; `hermans_2017(m)` does not",
        0.445696,
    ),
    NotReproduced(
        "quaterion",
        "TripletLoss, semi_hard",
        "clamps the loss to [0, m] over all positive and negative pairs of the batch, whoever their anchor is",
    ),
    NotReproduced(
        "TensorFlow Similarity",
        "TripletLoss, semi-hard (its default)",
        "semi-hard beyond the hardest positive of each anchor; `TripletLoss(mining='semihard')` takes every positive, "
        "'easy-semihard' the nearest",
        0.649045,
    ),
    NotReproduced(
        "siamese-triplet",
        "RandomNegativeTripletSelector",
        "one random negative of the active ones; choose the triplets, then `siamese_triplet_triplet(m).triplets(…)`",
    ),
    NotReproduced(
        "google-research supcon",
        "contrastive_loss of one view",
        "divides by the number of positives twice: with k positives each, 1/k of `google_supcon(τ)`",
        0.135425,
    ),
    NotReproduced(
        "lightly",
        "NTXentLoss with a memory bank",
        "one direction only; `InfoNCELoss` with references is that direction, without its queue",
    ),
    NotReproduced(
        "lightly before 1.5.21",
        "DCLLoss, DCLWLoss",
        "adds the log-sum-exps over the two views' negatives, where the paper has the log of one sum over both",
    ),
    NotReproduced(
        "lightly",
        "BarlowTwinsLoss",
        "adds 1e-5 to each variance (batch normalisation); `BarlowTwinsLoss` adds nothing",
        4.368642,
    ),
    NotReproduced(
        "lightly",
        "KoLeoLoss with groups or several neighbours (after 1.6.0)",
        "groups are the mean of `loss(x[group])`; of neighbours there is one here",
    ),
    NotReproduced(
        "lightly",
        "DirectCLR, MACL, TiCo, SwaV, DINO, iBOT, MSN, PMSN, VICRegL, VISReg, EMP-SSL, FroSSL, MMCR, WMSE, LeJEPA",
        "no such losses here",
    ),
    NotReproduced(
        "sentence-transformers",
        "MarginMSELoss, MegaBatchMarginLoss, CosineSimilarityLoss, MSELoss, SoftmaxLoss",
        "regressions on given scores, one triplet of a batch in chunks, a classifier of pairs; no such losses here",
    ),
    NotReproduced(
        "sentence-transformers",
        "MultipleNegativesRankingLoss with hardness_mode, or doc_to_doc without doc_to_query",
        "a logit of its own beside the scale, for negatives; a sum that here comes with another",
    ),
    NotReproduced(
        "sentence-transformers",
        "MatryoshkaLoss of a loss that does not normalise",
        "normalises the first features; `Matryoshka` leaves them as they are, which is the same under the cosine",
    ),
    NotReproduced(
        "sentence-transformers",
        "GlobalOrthogonalRegularizationLoss, AdaptiveLayerLoss, distillation",
        "no such losses here",
    ),
    NotReproduced(
        "sentence-transformers",
        "GISTEmbedLoss",
        "four directions in one softmax, all masked by a guide; `sentence_transformers_gist` is its first direction",
        0.266993,
    ),
    NotReproduced(
        "TensorFlow Similarity",
        "VicReg",
        "variances with divisor n, covariances with n − 1; `lightly_vicreg` has n − 1 in both",
        67.554039,
    ),
    NotReproduced(
        "TensorFlow Similarity",
        "SimSiamLoss",
        "½·(−s) + 0.001; twice that is `lightly_negative_cosine_similarity` and 0.002",
        -0.222471,
    ),
    NotReproduced(
        "TensorFlow Similarity",
        "PNLoss",
        "its TripletLoss with each negative at the smaller of its two distances: choose the triplets, then "
        "`TripletLoss(m, swap=True, measure=CosineDistance()).triplets(…)`",
        0.683256,
    ),
    NotReproduced(
        "TensorFlow Similarity",
        "LiftedStructLoss",
        "one positive, 1 more in the logarithm, no hinge, no square, and its second sum gathers columns",
        1.903287,
    ),
    NotReproduced(
        "TensorFlow Similarity",
        "CircleLoss",
        "softplus of the positives' sum plus softplus of the negatives'",
        44.581970,
    ),
    NotReproduced(
        "quaterion",
        "CircleLoss",
        "one log-sum-exp for the whole batch, and α of positives 1 + m + s where the paper has 1 + m − s "
        "(with its sign: 94.826659)",
        92.808258,
    ),
    NotReproduced("quaterion", "CenterLoss", "no such loss here"),
    NotReproduced(
        "pytorch-metric-learning",
        "LargeMarginSoftmaxLoss, P2SGradLoss, DynamicSoftMarginLoss, InstanceLoss, IntraPairVarianceLoss, "
        "ManifoldLoss, SignalToNoiseRatioContrastiveLoss, ThresholdConsistentMarginLoss",
        "no such losses here",
    ),
    NotReproduced(
        "pytorch-metric-learning",
        "NTXentLoss, SupConLoss and others with LpDistance",
        "a softmax of −d, where these losses take similarities; with one positive an anchor `NCALoss(τ, Euclidean())` "
        "is that of NT-Xent",
    ),
    NotReproduced(
        "TensorFlow Addons",
        "npairs_multilabel_loss",
        "soft labels that share the mass by how many labels two items have in common, an item itself among them; the "
        "weights of a mask or of `MultiLabels` also count in the denominator, which has each item once there",
    ),
    NotReproduced(
        "torch",
        "MarginRankingLoss, MultiMarginLoss",
        "hinges of given scores and of logits; a hinge here is of embeddings, pairs or triplets",
    ),
    NotReproduced("Open Metric Learning", "SurrogatePrecision, label smoothing of ArcFaceLoss", "no such losses here"),
    NotReproduced("metric-learn", "ITML, MMC, LSML, SDML, RCA, LFDA, MLKR, SCML", "linear learners, not losses"),
)
