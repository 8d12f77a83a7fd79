from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipeline.bundle.test_signing import write_keys
from tests.pipeline.cli.conftest import Lathe
from tests.pipeline.tiny_bundles import bundle_content, own_bundle, written_bundle

__all__ = ["bundle_content", "own_bundle", "written_bundle"]


def test_a_bundle_is_signed_and_verified_with_the_public_key(
    lathe: Lathe, own_bundle: Path, tmp_path: Path, quiet_machine: None
) -> None:
    private, public = write_keys(tmp_path, "mine")
    code, output, _ = lathe("sign", str(own_bundle), "--key", str(private), "--json")
    assert code == 0
    assert len(json.loads(output)["public_key"]) == 64
    code, output, messages = lathe("verify", str(own_bundle), "--key", str(public))
    assert code == 0, messages
    assert f"every file is unchanged, and it was signed with the key that belongs to {public}" in output


@pytest.mark.parametrize(("signed", "code"), [(False, 14), (True, 15)])
def test_a_missing_signature_and_one_of_another_key_have_exit_codes_of_their_own(
    lathe: Lathe, own_bundle: Path, tmp_path: Path, signed: bool, code: int
) -> None:
    private, _ = write_keys(tmp_path, "mine")
    _, other = write_keys(tmp_path, "other")
    if signed:
        assert lathe("sign", str(own_bundle), "--key", str(private))[0] == 0
    ended, output, _ = lathe("verify", str(own_bundle), "--key", str(other), "--json")
    document = json.loads(output)
    assert ended == document["error"]["exit_code"] == code
    assert document["holds"] is False
