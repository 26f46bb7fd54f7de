"""Metrics: arrays in, numbers out. Scores are higher for nearer, and any real number will do.

Retrieval values come per query and verification works on unordered pairs; intervals and thresholds count
classes, never pairs.
"""

from __future__ import annotations

from nearfar.metrics.calibration import Platt, brier, expected_calibration_error, log_loss, platt
from nearfar.metrics.full_ranking import average_precision, reciprocal_rank
from nearfar.metrics.intervals import (
    Interval,
    class_bootstrap,
    mean_sd,
    paired_difference_interval,
    retrieval_interval,
    student_t_quantile,
    verification_interval,
)
from nearfar.metrics.retrieval import map_at_r, precision_at_1, r_precision, rank_metrics, recall_at_k
from nearfar.metrics.thresholds import (
    CLASSES_FOR_FMR,
    Threshold,
    fpir,
    open_set_threshold,
    threshold_at_fmr,
    tpir,
)
from nearfar.metrics.verification import (
    Det,
    PairScores,
    accept_rate,
    auc,
    det_curve,
    equal_error_rate,
    fnmr_at_fmr,
    pair_scores,
)

__all__ = [
    "CLASSES_FOR_FMR",
    "Det",
    "Interval",
    "PairScores",
    "Platt",
    "Threshold",
    "accept_rate",
    "auc",
    "average_precision",
    "brier",
    "class_bootstrap",
    "det_curve",
    "equal_error_rate",
    "expected_calibration_error",
    "fnmr_at_fmr",
    "fpir",
    "log_loss",
    "map_at_r",
    "mean_sd",
    "open_set_threshold",
    "pair_scores",
    "paired_difference_interval",
    "platt",
    "precision_at_1",
    "r_precision",
    "rank_metrics",
    "recall_at_k",
    "reciprocal_rank",
    "retrieval_interval",
    "student_t_quantile",
    "threshold_at_fmr",
    "tpir",
    "verification_interval",
]
