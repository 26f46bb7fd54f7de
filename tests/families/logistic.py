"""Logistic losses on pairs."""

from __future__ import annotations

VARIANTS: dict = {}
RULES: dict = {}
DENSE: dict = {}
