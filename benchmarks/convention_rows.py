"""What the page of conventions evaluates: the batch, and for each section source, call and the source's own value."""

from __future__ import annotations

SETUP = """
import numpy as np

import nearfar as nf
from nearfar import conventions

rng = np.random.default_rng(0)
y = np.repeat(np.arange(4), 3)
R = rng.normal(size=(4, 8))[y] + 0.9 * rng.normal(size=(12, 8))
X = R / np.linalg.norm(R, axis=1, keepdims=True)

# Its 66 pairs: distance, and whether of one class.
i, j = np.triu_indices(12, 1)
d, same = np.linalg.norm(X[i] - X[j], axis=1), y[i] == y[j]
# As a mask: like, unlike, and how many of each an anchor has.
itself = np.eye(12, dtype=bool)
like, unlike = (y[:, None] == y) & ~itself, y[:, None] != y
positives, negatives = like.sum(1, keepdims=True), unlike.sum(1, keepdims=True)
# Triplets whose positive pair is listed once.
a, p, n = np.array([(a, p, n) for a, p in zip(i, j) if y[a] == y[p] for n in range(12) if y[a] != y[n]]).T
# One pair a class: queries and keys; the keys and a row of zeros.
q, k = [0, 3, 6, 9], [1, 4, 7, 10]
Z, z = np.vstack([X[k], np.zeros((1, 8))]), [*y[k], -1]
# Proxies: the normalised class means; and three rows a class, of which some belong to others.
W = X.reshape(4, 3, 8).mean(axis=1)
W /= np.linalg.norm(W, axis=1, keepdims=True)
C = np.roll(X, 2, axis=0)
"""

Row = tuple[str, str, float | None]
PML = "pytorch-metric-learning"
ST = "sentence-transformers"
TFA = "TensorFlow Addons"
TFS = "TensorFlow Similarity"
PAIRS: list[Row] = [
    ("Hadsell 2006, summed", "66 * conventions.hadsell_2006()(X, y)", 7.066460),
    ("Hadsell 2006, mean", "conventions.hadsell_2006()(X, y)", 0.107068),
    ("Chopra 2005", "conventions.chopra_2005(bound=6.0)(X, y)", None),
    ("the seed text in NumPy", "conventions.numpy_text(1.0)(X, y)", None),
    ("the introduction, eq. (4)", "conventions.introduction_text(1.0)(X, y)", None),
    ("the Keras chapter", "conventions.keras_text(1.0).distances(d, same)", None),
    ("keras-io's example", "conventions.keras_example(1.0).distances(d, same)", None),
    (TFA, "conventions.tensorflow_addons(1.0).distances(d, same)", 0.214135),
    (ST, "conventions.sentence_transformers()(X, y)", 0.036402),
    (f"{ST}, Euclidean", "conventions.sentence_transformers(1.0, 'euclidean')(X, y)", 0.107068),
    (
        f"{ST}, contrastive tension",
        "66 * conventions.sentence_transformers_contrastive_tension().pairs(X[i], X[j], same)",
        44.759212,
    ),
    ("siamese-triplet", "conventions.siamese_triplet_contrastive(1.0)(X, y)", 0.107068),
    ("siamese-triplet, online", "conventions.siamese_triplet_online_contrastive(1.0)(X, y)", 0.214135),
    (PML, "conventions.pytorch_metric_learning_contrastive()(X, y)", 1.212044),
    (
        f"{PML}, margin loss",
        "conventions.pytorch_metric_learning_margin()(X, nf.Mask(like * negatives, unlike * positives))",
        None,
    ),
    ("torch HingeEmbeddingLoss", "conventions.torch_hinge_embedding()(X, y)", 0.201280),
    ("torch CosineEmbeddingLoss", "conventions.torch_cosine_embedding()(X, y)", 0.227742),
    ("torch BCEWithLogitsLoss", "conventions.torch_binary_cross_entropy().similarities(1 - d, same)", 0.565029),
    ("optax, cosine distance", "conventions.optax_cosine_distance().pairs(X[q], X[k], [1] * 4)", 0.553058),
    ("Keras, cosine", "conventions.keras_cosine_similarity().pairs(X[q], X[k], [1] * 4) - 1", -0.446942),
    (
        "lightly, negative cosine",
        "conventions.lightly_negative_cosine_similarity().pairs(X[q], X[k], [1] * 4) - 1",
        -0.446942,
    ),
    ("quaterion", "conventions.quaterion_contrastive()(X, y)", None),
    ("quaterion, online", "conventions.quaterion_online_contrastive(1.0)(X, y)", 0.399794),
    (
        "quaterion, online, each its own negative",
        "conventions.quaterion_online_contrastive(1.0)(X, nf.Mask(like, unlike + itself), references=X)",
        0.424424,
    ),
]
TRIPLETS: list[Row] = [
    ("the introduction, eq. (5)", "conventions.introduction_text_triplet(0.2)(X, y)", 0.115226),
    ("FaceNet", "conventions.facenet()(X, y)", None),
    ("Hermans 2017", "conventions.hermans_2017(0.2)(X, y)", None),
    ("Hermans 2017, soft", "conventions.hermans_2017()(X, y)", None),
    (PML, "conventions.pytorch_metric_learning_triplet(0.2)(X, y)", 0.239936),
    ("Open Metric Learning", "conventions.open_metric_learning_triplet(0.2)(X, y)", 0.085533),
    (f"{TFA}, semi-hard", "conventions.tensorflow_addons_semihard(0.2)(X, y)", 0.084888),
    (f"{TFA}, semi-hard, squared", "conventions.tensorflow_addons_semihard(0.2, 'squared-L2')(X, y)", 0.036585),
    (f"{TFA}, semi-hard, angular", "conventions.tensorflow_addons_semihard(0.2, 'angular')(X, y)", 0.074976),
    (f"{TFA}, hard", "conventions.tensorflow_addons_hard(0.2)(X, y)", 0.435283),
    (f"{TFA}, hard, soft", "conventions.tensorflow_addons_hard(soft=True)(X, y)", 0.823613),
    (f"{TFS}, hard negatives", "conventions.tensorflow_similarity_triplet(0.2)(X, y)", 0.455528),
    (f"{TFS}, hard negatives, soft", "conventions.tensorflow_similarity_triplet()(X, y)", 0.836146),
    (f"{ST}, given", "conventions.sentence_transformers_triplet().triplets(X[a], X[p], X[n])", 4.681307),
    (
        f"{ST}, given, cosine",
        "conventions.sentence_transformers_triplet(5.0, 'cosine').triplets(X[a], X[p], X[n])",
        4.608076,
    ),
    (f"{ST}, batch-all", "conventions.sentence_transformers_batch_all(0.2)(X, y)", 0.239936),
    (f"{ST}, batch-hard", "conventions.sentence_transformers_batch_hard(0.2)(X, y)", 0.435283),
    (f"{ST}, batch-hard, soft", "conventions.sentence_transformers_batch_hard_soft_margin()(X, y)", 0.823613),
    (f"{ST}, semi-hard", "conventions.sentence_transformers_batch_semi_hard(0.2)(X, y)", 0.084888),
    ("omoindrot", "conventions.omoindrot_batch_all(0.2)(X, y)", 0.239936),
    ("omoindrot, squared", "conventions.omoindrot_batch_all(0.2, squared=True)(X, y)", 0.478631),
    ("omoindrot, batch-hard", "conventions.omoindrot_batch_hard(0.2)(X, y)", 0.435283),
    ("siamese-triplet", "conventions.siamese_triplet_triplet(0.2).triplets(X[a], X[p], X[n])", 0.126732),
    ("quaterion, all", "conventions.quaterion_triplet()(X, y)", None),
    ("torch TripletMarginLoss", "conventions.torch_triplet_margin().triplets(X[a], X[p], X[n])", 0.687529),
    ("torch TripletMarginLoss, p = 1", "conventions.torch_triplet_margin(p=1).triplets(X[a], X[p], X[n])", 0.487219),
    (
        "torch, of cosine distances",
        "conventions.torch_triplet_margin_with_distance(1.0, False, nf.CosineDistance()).triplets(X[a], X[p], X[n])",
        0.618852,
    ),
    ("optax", "conventions.optax_triplet_margin().triplets(X[a], X[p], X[n])", 0.687529),
    ("metric-learn, LMNN, mean", "conventions.metric_learn_lmnn(2)(X, y)", None),
]
SOFTMAX: list[Row] = [
    (f"{PML}, NT-Xent", "conventions.pytorch_metric_learning_ntxent(0.1)(X, y)", 2.192607),
    ("optax, NT-Xent", "conventions.optax_ntxent(0.1)(X, y)", 2.192607),
    (f"{PML}, SupCon", "conventions.pytorch_metric_learning_supcon(0.1)(X, y)", 2.708496),
    ("SupContrast", "conventions.supcontrast(0.1)(X, y)", 3.869280),
    ("SetFit", "conventions.setfit_supcon(0.1)(X, y)", None),
    ("google supcon", "conventions.google_supcon(0.1)(X, y)", 0.270850),
    ("google supcon, inside", "10 * conventions.google_supcon(0.1, 'in')(X, y)", 1.805008),
    (
        "google supcon, ONLY_NEGATIVES",
        "10 * conventions.google_supcon(0.1, denominator='negatives')(X, y)",
        1.475096,
    ),
    ("lightly, SimCLR", "conventions.lightly_ntxent(0.1).views(X[q], X[k])", 1.544496),
    ("lightly, DCL", "conventions.lightly_dcl().views(X[q], X[k])", 0.235221),
    ("lightly, DCLW", "conventions.lightly_dclw().views(X[q], X[k])", 2.135398),
    (f"{TFS}, SimCLR", "conventions.tensorflow_similarity_simclr(0.1).views(X[q], X[k])", 3.088993),
    (ST, "conventions.sentence_transformers_multiple_negatives(10).aligned(X[q], X[k])", 0.730578),
    (
        f"{ST}, symmetric",
        "conventions.sentence_transformers_multiple_negatives_symmetric(10).aligned(X[q], X[k])",
        0.688985,
    ),
    (
        f"{ST}, contrastive tension in the batch",
        "conventions.sentence_transformers_contrastive_tension_in_batch().aligned(X[q], X[k])",
        1.039217,
    ),
    (
        f"{ST}, GIST",
        "conventions.sentence_transformers_gist(0.1)(X[q], nf.Guided(nf.Aligned(), R[q], R[k]), references=X[k])",
        0.150224,
    ),
    (
        TFS,
        "conventions.tensorflow_similarity_multiple_negatives(10)(X[q], y[q], references=Z, reference_labels=z)",
        0.748617,
    ),
    ("quaterion", "conventions.quaterion_multiple_negatives(10)(X[q], nf.Aligned(), references=X[k])", 0.615664),
    ("open_clip, ClipLoss", "conventions.open_clip_clip(10).aligned(X[q], X[k])", 0.688985),
    ("Sohn 2016", "conventions.sohn_2016().aligned(R[q], R[k])", 1.135571),
    (f"{PML}, N-pairs", "conventions.pytorch_metric_learning_npairs().aligned(R[q], R[k])", 1.061190),
    (
        f"{TFA}, N-pairs",
        "conventions.tensorflow_addons_npairs()(R, y, references=R, reference_labels=y)",
        5.110099,
    ),
    (f"{PML}, tuplet margin", "conventions.pytorch_metric_learning_tuplet_margin()(X, y)", None),
]
NEIGHBOURS: list[Row] = [
    ("scikit-learn, metric-learn", "12 * (conventions.scikit_learn_nca()(X, y) - 1)", -3.711805),
    (PML, "conventions.pytorch_metric_learning_nca()(X, y)", 1.216639),
    ("deep NCA, exponent s/0.1", "conventions.pytorch_metric_learning_nca(softmax_scale=5)(X, y)", 1.111861),
    (f"{TFS}, soft nearest neighbour", "conventions.tensorflow_similarity_soft_nearest_neighbor()(X, y)", 1.216639),
]
LIFTED: list[Row] = [
    (f"Song 2016, {TFA}", "conventions.song_2016()(X, y)", 6.501810),
    (PML, "conventions.pytorch_metric_learning_lifted_structure()(X, y)", 6.501810),
    (f"Hermans 2017, {PML}", "conventions.pytorch_metric_learning_generalized_lifted_structure()(X, y)", 3.608430),
]
LOGISTIC: list[Row] = [
    ("open_clip, SigLIP", "conventions.open_clip_siglip().aligned(X[q], X[k])", 5.617774),
    ("Sun 2020, circle", "conventions.sun_2020()(X, y)", None),
    (f"{PML}, circle", "conventions.pytorch_metric_learning_circle()(X, y)", 44.496952),
    ("Keras, circle", "conventions.keras_circle()(X, y)", 44.496952),
    ("Wang 2019, multi-similarity", "conventions.wang_2019()(X, y)", 0.594684),
    (f"{PML}, multi-similarity", "conventions.pytorch_metric_learning_multi_similarity()(X, y)", 0.710928),
    (f"{TFS}, multi-similarity", "conventions.tensorflow_similarity_multi_similarity()(X, y)", 0.595869),
    (f"{PML}, angular", "conventions.pytorch_metric_learning_angular()(X, y)", None),
    (f"{ST}, CoSENT", "conventions.sentence_transformers_cosent().pairs(X[i], X[j], same)", 15.094747),
    (f"{ST}, AnglE", "conventions.sentence_transformers_angle().pairs(X[i], X[j], same)", 22.800255),
]
RANKING: list[Row] = [
    (f"{PML}, FastAP", "conventions.pytorch_metric_learning_fast_ap()(X, y)", None),
    (
        f"{PML}, Smooth-AP",
        "conventions.pytorch_metric_learning_smooth_ap()(X, y, references=X, reference_labels=y)",
        None,
    ),
    (f"{PML}, PNP", "conventions.pytorch_metric_learning_pnp()(X, y, references=X, reference_labels=y)", None),
    (f"{PML}, histogram", "conventions.pytorch_metric_learning_histogram()(X, y)", None),
    (f"{PML}, ranked list", "conventions.pytorch_metric_learning_ranked_list(0.4, 4.0)(X, y)", None),
]
CLASS_WEIGHTS: list[Row] = [
    ("torch, cross-entropy", "conventions.torch_cross_entropy()(R @ W.T, y)", 0.327155),
    (
        f"{PML}, normalised softmax",
        "conventions.pytorch_metric_learning_normalized_softmax()(X, y, class_weights=W)",
        None,
    ),
    ("Movshovitz-Attias 2017, ProxyNCA", "conventions.movshovitz_attias_2017()(X, y, class_weights=W)", -0.314421),
    (f"{PML}, ProxyNCA", "conventions.pytorch_metric_learning_proxy_nca()(X, y, class_weights=W)", 0.571561),
    (f"{PML}, ProxyAnchor", "conventions.pytorch_metric_learning_proxy_anchor()(X, y, class_weights=W)", None),
    (f"{PML}, ArcFace", "conventions.pytorch_metric_learning_arcface()(X, y, class_weights=W)", None),
    ("Open Metric Learning, ArcFace", "conventions.open_metric_learning_arcface()(X, y, class_weights=W)", None),
    (
        f"{PML}, sub-centre ArcFace",
        "conventions.pytorch_metric_learning_sub_center_arcface()(X, y, class_weights=C)",
        None,
    ),
    (f"{PML}, CosFace", "conventions.pytorch_metric_learning_cosface()(X, y, class_weights=W)", None),
    (f"{PML}, SphereFace", "conventions.pytorch_metric_learning_sphereface()(X, y, class_weights=W)", None),
    (
        f"{PML}, SoftTriple",
        "conventions.pytorch_metric_learning_soft_triple(centers_per_class=3)(X, y, class_weights=C)",
        None,
    ),
]
FEATURES: list[Row] = [
    (f"{PML}, VICReg", "conventions.pytorch_metric_learning_vicreg()(R[:6], R[6:])", None),
    ("lightly, VICReg", "conventions.lightly_vicreg()(R[:6], R[6:])", 66.711308),
    ("lightly, hypersphere", "conventions.lightly_hypersphere().views(R[:6], R[6:])", 0.155057),
    ("lightly, KoLeo", "conventions.lightly_koleo()(R)", 0.233584),
    (f"{TFS}, Barlow", "conventions.tensorflow_similarity_barlow()(R[:6], R[6:])", 4.368618),
]
ROWS = {
    "Contrastive": PAIRS,
    "Triplets": TRIPLETS,
    "Softmax over pairs": SOFTMAX,
    "Neighbourhood components": NEIGHBOURS,
    "Lifted structure": LIFTED,
    "Logistic": LOGISTIC,
    "Ranking": RANKING,
    "Class weights and proxies": CLASS_WEIGHTS,
    "Feature statistics": FEATURES,
}
