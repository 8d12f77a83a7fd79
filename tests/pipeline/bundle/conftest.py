from tests.pipeline.tiny_bundles import (
    bundle_content,
    compiled_content,
    litert_content,
    own_bundle,
    written_bundle,
)

__all__ = ["bundle_content", "compiled_content", "litert_content", "own_bundle", "written_bundle"]
