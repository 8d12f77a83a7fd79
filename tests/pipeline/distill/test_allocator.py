"""What is freed inside the block is not asked of the system again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.places import ROOT

FAULTS = """
import json, resource
import torch
from pipeline.distill.allocator import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        blocks = [torch.ones(6_000_000) for _ in range(6)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = faults()
with freed_memory_kept():
    faults()
    inside = faults()
print(json.dumps([outside, inside]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told to keep memory")
def test_memory_that_is_freed_is_used_again() -> None:
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    outside, inside = json.loads(done.stdout)
    # How many faults there are outside depends on the system: huge pages, what lies at the end of the heap.
    assert inside < outside / 10
