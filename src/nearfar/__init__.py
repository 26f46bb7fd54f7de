"""Similarity learning with contrastive losses."""
