"""The list of components is CycloneDX, names licences, and is the same for the same bundle."""

from __future__ import annotations

import json
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pipeline.bundle import read_bundle
from pipeline.bundle.components import ListedArtifact, component_list
from pipeline.bundle.writing import inference_script

ARTIFACT = ListedArtifact("artifacts/a/model.onnx", "ab" * 32, inference_script("onnxruntime"), "1.99")


def scopes(document: dict) -> dict[str, str]:
    return {each["bom-ref"]: each["scope"] for each in document["components"] if each["type"] == "library"}


def test_a_bundle_has_a_list_that_is_valid_cyclonedx(written_bundle: Path) -> None:
    manifest = read_bundle(written_bundle)
    text = (written_bundle / manifest.components).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    (entry,) = manifest.targets
    models = [each for each in json.loads(text)["components"] if each["type"] == "machine-learning-model"]
    assert [each["name"] for each in models] == [entry.artifact]
    assert models[0]["hashes"] == [{"alg": "SHA-256", "content": entry.artifact_digest}]


def test_what_made_the_bundle_is_told_from_what_it_needs() -> None:
    document = component_list("tiny", {"torch": "2.9", "onnxruntime": "1.98"}, [ARTIFACT])
    assert scopes(document) == {
        "made-with:onnxruntime@1.98": "excluded",
        "made-with:torch@2.9": "excluded",
        "needs:numpy": "required",
        "needs:onnxruntime@1.99": "required",
        "needs:pillow": "optional",
    }
    needs = next(each for each in document["dependencies"] if each["ref"] == ARTIFACT.path)
    assert sorted(needs["dependsOn"]) == ["needs:numpy", "needs:onnxruntime@1.99", "needs:pillow"]
    purls = {each["purl"] for each in document["components"] if "purl" in each}
    assert "pkg:pypi/onnxruntime@1.99" in purls


def test_licences_are_those_that_packages_state_and_nothing_is_made_up() -> None:
    document = component_list("tiny", {"onnx": "1", "no-such-package": "1"}, [ARTIFACT])
    licences = {each["name"]: each.get("licenses") for each in document["components"]}
    assert licences["onnx"] == [{"license": {"id": "Apache-2.0"}}]
    assert licences["onnxruntime"] == [{"license": {"id": "MIT"}}]
    assert licences["no-such-package"] is None


def test_the_list_depends_on_nothing_but_the_content() -> None:
    one = component_list("tiny", {"torch": "2", "onnx": "1"}, [ARTIFACT])
    assert one == component_list("tiny", {"onnx": "1", "torch": "2"}, [ARTIFACT])
    other = component_list("tiny", {"onnx": "1", "torch": "3"}, [ARTIFACT])
    assert one["serialNumber"] != other["serialNumber"]
    assert "timestamp" not in one["metadata"]


def test_what_another_program_of_the_runtime_was_measured_with_has_no_version() -> None:
    document = component_list("tiny", {}, [ListedArtifact("a", "ab" * 32, ARTIFACT.script, None)])
    assert "needs:onnxruntime" in scopes(document)
