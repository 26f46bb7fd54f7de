"""Losses with margins on distances."""

from __future__ import annotations

VARIANTS: dict = {}
RULES: dict = {}
DENSE: dict = {}
