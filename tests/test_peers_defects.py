"""Every defect of other libraries that was found has a test of ours: the index.

``DEFECTS`` are the defects read or measured in other libraries' losses, miners, queues and metrics, ``FAILURES`` the
numeric failures their trackers report; each name is followed by the test that guards it. Of the failures one has no
test: breaks in the graph of ``torch.compile(fullgraph=True)``.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HERE, NUMBERS = "losses/test_defects.py", "losses/test_defects_numbers.py"
GOLDEN, FORMS, SOFTMAX = "losses/test_golden.py", "losses/test_forms.py", "losses/test_peers_softmax.py"
DEGENERATE, MEASURES, CACHE = "contracts/test_degenerate.py", "test_measures.py", "torch/test_cache.py"
RANKS, RETRIEVAL = "torch/test_ranks.py", "metrics/test_retrieval.py"

DEFECTS = {
    "triplet_swap_with_references": "losses/test_peers_margins.py::test_triplet_swap_with_references",
    "lifted_bank_equals_batch": f"{HERE}::test_lifted_bank_equals_batch",
    "tcm_uses_references": f"{HERE}::test_tcm_uses_references",
    "instance_arbitrary_labels": f"{HERE}::test_instance_arbitrary_labels",
    "metric_alone": f"{HERE}::test_metric_alone",
    "labels_above_2pow24": f"{RETRIEVAL}::test_large_ids_do_not_collide",
    "labels_above_2pow24, losses": f"{GOLDEN}::test_labels_above_2_to_the_24",
    "queue_state_roundtrip": "torch/test_queue.py::test_queue_state_roundtrip",
    "ranks_equal_single_process": f"{RANKS}::test_ranks_equal_single_process",
    "one_pos_one_neg_not_zero": f"{SOFTMAX}::test_one_pos_one_neg_not_zero",
    "infonce_hardest_pair_gradient": f"{GOLDEN}::test_infonce_hardest_pair_gradient",
    "miner_labels_valid": f"{HERE}::test_miner_labels_valid",
    "weights_keep_dtype": "torch/test_proxies.py::test_weights_keep_dtype",
    "npair_normalisation_documented": f"{HERE}::test_npair_normalisation_documented",
    "self_not_hardest_negative": f"{HERE}::test_self_not_hardest_negative",
    "pairwise_is_matrix_diagonal": f"{HERE}::test_pairwise_is_matrix_diagonal",
    "circle_hard_positive_weight": f"{HERE}::test_circle_hard_positive_weight",
    "semihard_anchor_matched": f"{FORMS}::test_semihard_anchor_matched",
    "lifted_row_gather": f"{HERE}::test_lifted_row_gather",
    "singleton_classes_zero": f"{HERE}::test_singleton_classes_zero",
    "mnrl_is_cross_entropy": f"{FORMS}::test_mnrl_is_cross_entropy",
    "odd_norms": f"{GOLDEN}::test_odd_norms",
    "odd_norms, of degree 1": f"{NUMBERS}::test_odd_norms_of_degree_1",
    "one_class_finite_gradient": f"{HERE}::test_one_class_finite_gradient",
    "all_singletons": f"{HERE}::test_all_singletons",
    "batch_of_one": f"{HERE}::test_batch_of_one",
    "scale_invariance_extreme": f"{NUMBERS}::test_scale_invariance_extreme",
    "lonely_anchor_finite": f"{SOFTMAX}::test_lonely_anchor_finite",
    "300_classes": f"{GOLDEN}::test_labels_of_300_classes",
    "no_identical_indices": f"{HERE}::test_no_identical_indices",
    "accumulated_scale_gradient": "torch/test_learnable.py::test_accumulated_scale_gradient",
    "circle_stop_gradient": "losses/test_peers.py::test_circle_stop_gradient",
    "circle_empty_rows": f"{HERE}::test_circle_empty_rows",
    "mask_device": f"{NUMBERS}::test_mask_device",
    "one_view_normalisation": f"{SOFTMAX}::test_one_view_normalisation",
    "cached_equals_direct": f"{CACHE}::test_every_loss_is_that_of_the_plain_step",
    "soft_triplet_no_overflow": f"{GOLDEN}::test_soft_triplet_no_overflow",
    "online_contrastive_1p1n": f"{HERE}::test_online_contrastive_1p1n",
    "targets_after_gather": f"{SOFTMAX}::test_targets_after_gather",
    "targets_after_gather, ranks": f"{RANKS}::test_every_loss",
    "ap_monotone_map": f"{RETRIEVAL}::test_unchanged_by_an_increasing_map",
    "ap_monotone_map, scores below 0": f"{NUMBERS}::test_ap_monotone_map",
    "nca_of_all_singletons": f"{HERE}::test_nca_of_all_singletons",
    "generalized_lifted_empty_side": f"{HERE}::test_generalized_lifted_empty_side",
    "ranked_list_of_a_collapsed_batch": f"{HERE}::test_ranked_list_of_a_collapsed_batch",
    "histogram_of_duplicates": f"{HERE}::test_histogram_of_duplicates",
    "per_anchor_with_references": f"{HERE}::test_per_anchor_with_references",
    "euclid_mask_dtype": f"{NUMBERS}::test_euclid_mask_dtype",
    "no_negative_is_no_triplet": f"{HERE}::test_no_negative_is_no_triplet",
    "one_pair_of_views": f"{NUMBERS}::test_one_pair_of_views",
    "all_labels_ignored": f"{NUMBERS}::test_all_labels_ignored",
    "relative_margin_below_zero": f"{HERE}::test_relative_margin_below_zero",
    "soft_nearest_neighbours_far_away": f"{NUMBERS}::test_soft_nearest_neighbours_far_away",
    "sqrt_half_at_zero": f"{NUMBERS}::test_sqrt_half_at_zero",
}
FAILURES = {
    "sqrt'(0) is NaN": f"{MEASURES}::test_a_pair_at_distance_zero_has_no_force",
    "where leaks NaN from the branch not taken": f"{DEGENERATE}::test_degenerate_batches",
    "Gram cancellation, negative d²": f"{MEASURES}::test_near_pairs_to_a_few_units_in_the_last_place",
    "Gram cancellation, nearest of near-duplicates": f"{MEASURES}::test_no_wrong_nearest_neighbour",
    "Gram cancellation, the loss's gradient": "engine/test_near_pairs.py::test_gradient_at_class_spread_of_1e_4",
    "matmul precision changes distances": f"{NUMBERS}::test_matmul_precision_changes_distances",
    "double backward missing": "torch/test_autograd.py::test_double_backward_is_refused_by_name",
    "zero vector in normalise": f"{MEASURES}::test_zero_rows",
    "norm overflow or underflow": f"{MEASURES}::test_angles_at_any_scale",
    "logsumexp over the empty set": f"{DEGENERATE}::test_nothing_to_learn_is_zero_on_the_graph",
    "anchor without a positive": f"{DEGENERATE}::test_degenerate_batches_on_every_variant",
    "mean over nothing is attached": "torch/test_autograd.py::test_zero_stays_attached_to_the_graph",
    "row maximum is the self similarity": f"{NUMBERS}::test_row_maximum_is_the_self_similarity",
    "small temperature in half": f"{GOLDEN}::test_small_temperature_in_half",
    "fp16 training stalls": "torch/test_autograd.py::test_autocast_lowers_nothing",
    "fp16 training stalls, trajectory": f"{NUMBERS}::test_fp16_training_stalls",
    "B³ tensor above INT_MAX": f"{NUMBERS}::test_b_cubed_tensor",
    "memory-bank index, stale state": "torch/test_queue.py::test_with_batch_leaves_out_self_and_nothing_else",
    "DDP factor missing": f"{RANKS}::test_ranks_equal_single_process",
    "DDP factor doubled": f"{CACHE}::test_two_ranks_under_distributed_data_parallel",
    "chunked and cached losses drift": f"{CACHE}::test_any_chunk",
    "chunked and cached losses drift, dropout": f"{CACHE}::test_the_next_step_draws_other_numbers",
}


@pytest.mark.parametrize("where", sorted({*DEFECTS.values(), *FAILURES.values()}))
def test_each_is_guarded(where):
    file, _, name = where.partition("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
