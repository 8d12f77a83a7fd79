"""Bundles: the folder that the edge team ships, written at once and refused after any change."""

from pipeline.bundle.callers import write_callers
from pipeline.bundle.descriptions import Edge, edges_of
from pipeline.bundle.manifest import (
    MANIFEST_NAME,
    CompileOrigin,
    Manifest,
    RunOrigin,
    TargetEntry,
    TensorDescription,
    comparable_name,
    manifest_schema,
)
from pipeline.bundle.publishing import publish
from pipeline.bundle.reading import read_bundle
from pipeline.bundle.signing import Signature, check_signature, sign_bundle
from pipeline.bundle.verification import (
    BundleVerification,
    TargetVerification,
    read_test,
    read_verdict,
    verify_bundle,
)
from pipeline.bundle.writing import (
    BundleContent,
    ClassifierContent,
    CompileContent,
    RunContent,
    TargetContent,
    write_bundle,
)

__all__ = [
    "MANIFEST_NAME",
    "BundleContent",
    "BundleVerification",
    "ClassifierContent",
    "CompileContent",
    "CompileOrigin",
    "Edge",
    "Manifest",
    "RunContent",
    "RunOrigin",
    "Signature",
    "TargetContent",
    "TargetEntry",
    "TargetVerification",
    "TensorDescription",
    "check_signature",
    "comparable_name",
    "edges_of",
    "manifest_schema",
    "publish",
    "read_bundle",
    "read_test",
    "read_verdict",
    "sign_bundle",
    "verify_bundle",
    "write_bundle",
    "write_callers",
]
