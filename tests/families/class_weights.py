"""Losses against class weights or proxies."""

from __future__ import annotations

VARIANTS: dict = {}
RULES: dict = {}
DENSE: dict = {}
