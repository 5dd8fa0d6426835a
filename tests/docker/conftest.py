"""Tests that build a whole image are left out unless they are asked for: pytest -m slow."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes and gigabytes; run with -m slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in config.option.markexpr:
        return
    skipped = pytest.mark.skip(reason="takes minutes and gigabytes: -m slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skipped)
