"""``lathe callers`` says where its programs run, and ends with the code of bundles that do not hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from pipeline.bundle import BundleContent, write_bundle
from tests.pipeline.cli.conftest import Lathe
from tests.pipeline.tiny_bundles import bundle_content, compiled_content

__all__ = ["bundle_content", "compiled_content"]


def test_programs_of_a_target_with_an_accelerator_come_with_a_note(
    lathe: Lathe, bundle_content: BundleContent, tmp_path: Path
) -> None:
    (given,) = bundle_content.targets
    on_gpu = dataclasses.replace(given.verdict, target="host/onnxruntime:fp32+cuda@1")
    content = dataclasses.replace(bundle_content, targets=(dataclasses.replace(given, verdict=on_gpu),))
    bundle = str(write_bundle(content, tmp_path / "bundle"))
    said = (
        "host/onnxruntime:fp32+cuda@1: the model was measured on CUDAExecutionProvider, and the programs run "
        "it on the CPU"
    )
    code, output, messages = lathe("callers", bundle, "examples")
    assert (code, messages) == (0, f"note: {said}\n")
    assert "model_info.h" in output
    code, output, messages = lathe("callers", bundle, "examples", "--json")
    assert (code, json.loads(output)["notes"], messages) == (0, [said], "")


def test_a_bundle_that_describes_other_outputs_ends_with_the_code_of_bundles_that_do_not_hold(
    lathe: Lathe, compiled_content: BundleContent, tmp_path: Path
) -> None:
    (target,) = compiled_content.targets
    fewer = dataclasses.replace(target, outputs=target.outputs[:1])
    content = dataclasses.replace(compiled_content, targets=(fewer,))
    code, _, messages = lathe("callers", str(write_bundle(content, tmp_path / "bundle")), "examples")
    assert code == 11
    assert "it describes 1 outputs, and the artifact has 2" in messages
