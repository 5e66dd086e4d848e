"""What all tests share: nothing is written into the sources, and a slow machine is no failure of a property."""

from __future__ import annotations

from hypothesis import settings

# the lab's user may not write beside the sources; a deadline per example only measures the machine's other guests
settings.register_profile("terok", database=None, deadline=None)
settings.load_profile("terok")
