"""Freed memory stays in the process where glibc would give it back."""

import subprocess
import sys

import pytest

from essaylib import memory

COUNT = """
import resource, numpy as np
from essaylib import memory
if {kept}:
    assert memory.keep_freed()
def once():
    np.ones(2**24)  # 128 MB
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a matter of glibc")
def test_memory_that_was_freed_is_not_asked_for_again():
    def faults(kept: bool) -> int:
        command = [sys.executable, "-c", COUNT.format(kept=kept)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    if not memory.keep_freed():
        pytest.skip("the C library is not glibc")
    assert faults(kept=True) < 0.1 * faults(kept=False)


def test_elsewhere_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.keep_freed.__wrapped__() is False
