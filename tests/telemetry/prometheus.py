"""Prometheus and promtool of this machine."""

from __future__ import annotations

import os
import shutil

import pytest


def find(program: str) -> str:
    """Where `prometheus` or `promtool` is. Skips without it, loudly; fails in CI, which must have it."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test with Prometheus: there is no {program}")
        pytest.skip("NOT TESTED with Prometheus: install Debian's package prometheus")
    return found
