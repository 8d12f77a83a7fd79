"""The list of a bundle's components in CycloneDX: versions and licences of what made it and of what it needs.

Source: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json. The list has no time and no random number, so
that the same bundle has the same one.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License

_REQUIREMENTS = re.compile(r"^ *python -m pip install (.+)$", re.MULTILINE)
_CLASSIFIER = "License :: OSI Approved :: "
# Classifiers of the package index whose licence is one of SPDX's, without doubt.
_SPDX = {"MIT License": "MIT", "Apache Software License": "Apache-2.0", "ISC License (ISCL)": "ISC"}
_NAMESPACE = uuid.UUID("6f0f4a0e-29c3-5d0f-8f0c-5b8a6b1f3c55")


@dataclass(frozen=True)
class ListedArtifact:
    """One artifact of a bundle.

    Attributes:
        path: in the bundle.
        digest: SHA-256.
        script: source of its inference script, whose first lines name what it needs.
        runtime: version of the package that was measured; ``None`` if another program of the runtime was.
    """

    path: str
    digest: str
    script: str
    runtime: str | None


def component_list(
    name: str, versions: Mapping[str, str], artifacts: Sequence[ListedArtifact]
) -> dict[str, Any]:
    """The list as a JSON document.

    Packages that made the bundle have the scope ``excluded``, since nothing of them runs on the device; those
    that an artifact needs are ``required``, and Pillow, which only image files need, is ``optional``.

    Args:
        name: of the bundle.
        versions: of the packages that made it, by name.
        artifacts: of the bundle.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    bundle = Component(name=name, type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref="bundle")
    made_by = [
        _package(package, version, ComponentScope.EXCLUDED, "made-with")
        for package, version in sorted(versions.items())
    ]
    models: list[tuple[Component, list[Component]]] = []
    needed: dict[tuple[str, str | None], Component] = {}
    for artifact in artifacts:
        model = Component(
            name=artifact.path,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=artifact.path,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artifact.digest)],
        )
        models.append((model, []))
        for package, version in _needs(artifact):
            scope = ComponentScope.OPTIONAL if package == "pillow" else ComponentScope.REQUIRED
            part = needed.setdefault((package, version), _package(package, version, scope, "needs"))
            models[-1][1].append(part)
    bom = Bom(
        components=[*made_by, *needed.values(), *(model for model, _ in models)],
        metadata=BomMetaData(component=bundle),
    )
    bom.register_dependency(bundle, [model for model, _ in models])
    for model, parts in models:
        bom.register_dependency(model, parts)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["metadata"]["timestamp"], document["serialNumber"]
    digest = json.dumps(document, sort_keys=True)
    return {**document, "serialNumber": uuid.uuid5(_NAMESPACE, digest).urn}


def _needs(artifact: ListedArtifact) -> Iterator[tuple[str, str | None]]:
    """The packages that a script says it needs, the runtime's in the version that was measured."""
    found = _REQUIREMENTS.search(artifact.script)
    for package in found[1].split() if found else ():
        yield package, artifact.runtime if package not in ("numpy", "pillow") else None


def _package(name: str, version: str | None, scope: Any, role: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{role}:{name}@{version}" if version else f"{role}:{name}",
        scope=scope,
        licenses=_licences(name),
        purl=PackageURL("pypi", None, name.lower().replace("_", "-"), version),
    )


def _licences(package: str) -> list[License]:
    """What the installed package says of its licence; nothing if it is not installed or does not say."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    try:
        stated = metadata.metadata(package)
    except (metadata.PackageNotFoundError, ValueError):
        return []
    classifiers = [each for each in stated.get_all("Classifier") or () if each.startswith(_CLASSIFIER)]
    named = [each.removeprefix(_CLASSIFIER) for each in classifiers]
    text = stated["License"].strip() if "License" in stated else ""
    if "License-Expression" in stated:
        texts = [stated["License-Expression"]]
    elif named:
        texts = [_SPDX.get(each, each) for each in named]
    else:
        # Some packages put the whole text of the licence there.
        texts = [text.splitlines()[0]] if text else []
    return [LicenseFactory().make_from_string(each) for each in texts]
