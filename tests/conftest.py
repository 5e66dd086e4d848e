"""What all tests share: nothing is written into the sources, and a slow machine is no failure of a property."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.lab.house import in_lab

# the lab's user may not write beside the sources; a deadline per example only measures the machine's other guests
settings.register_profile("terok", database=None, deadline=None)
settings.load_profile("terok")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A lab is another user than the process that hands out the tests: its temporary directories are its own."""
    if in_lab() and hasattr(config, "workerinput"):
        config.option.basetemp = None
