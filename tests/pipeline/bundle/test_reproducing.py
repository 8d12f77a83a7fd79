"""The same content makes the same bytes, whenever, wherever and in whichever process it is written."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from devices.digests import file_digest
from pipeline.bundle import BundleContent, write_bundle
from pipeline.data.base import Split
from tests.pipeline.tiny_bundles import content_of
from tests.places import ROOT

NAMES = st.text("abc-", min_size=1, max_size=9)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=arrays.arrays(np.uint8, (5, 4, 4, 1)),
    labels=arrays.arrays(np.int64, 5, elements=st.integers(0, 2)),
    versions=st.dictionaries(NAMES, st.text(max_size=9), max_size=9),
    name=st.text(max_size=9),
    years=st.integers(1, 40),
    random=st.randoms(use_true_random=False),
)
def test_the_same_content_makes_the_same_bytes_at_another_time_and_place_and_in_another_order(
    bundle_content: BundleContent,
    tmp_path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    versions: dict[str, str],
    name: str,
    years: int,
    random: st.DataObject,
) -> None:
    assert bundle_content.classifier is not None
    test = dataclasses.replace(bundle_content.classifier, test=Split(images, labels))
    content = dataclasses.replace(bundle_content, name=name, classifier=test, versions=versions)
    shuffled = list(versions.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = dataclasses.replace(content, versions=dict(shuffled))
    one = bytes_of(write_bundle(content, tmp_path / "one"))
    with pytest.MonkeyPatch.context() as patch:
        now = time.time()
        patch.setattr(time, "time", lambda: now + years * 365 * 86400)
        patch.setattr(time, "localtime", lambda *_: time.gmtime(now + years * 365 * 86400))
        other = bytes_of(write_bundle(again, tmp_path / "elsewhere" / "deep"))
    assert one == other


def test_the_content_of_a_bundle_makes_that_bundle(written_bundle: Path, tmp_path: Path) -> None:
    again = write_bundle(content_of(written_bundle), tmp_path / "again")
    assert bytes_of(again) == bytes_of(written_bundle)


@pytest.mark.slow
def test_another_process_with_another_order_of_hashes_writes_the_same_bytes(
    written_bundle: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from pipeline.bundle import write_bundle; "
        "from tests.pipeline.tiny_bundles import content_of; "
        "write_bundle(content_of(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    for seed in ("1", "2"):
        folder = tmp_path / seed
        subprocess.run(
            [sys.executable, "-c", program, str(written_bundle), str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC{seed}", "PYTHONPATH": str(ROOT)},
            check=True,
            timeout=120,
        )
        assert file_digest(folder / "manifest.json") == file_digest(written_bundle / "manifest.json")
        assert bytes_of(folder) == bytes_of(written_bundle)
