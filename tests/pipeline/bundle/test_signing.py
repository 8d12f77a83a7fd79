"""A signature tells who made a bundle; without the right one, nothing of the bundle runs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devices.errors import LatheError
from pipeline.bundle import check_signature, read_bundle, sign_bundle, verification, verify_bundle
from pipeline.bundle.manifest import manifest_bytes, manifest_digest
from pipeline.errors import SignatureError, UnsignedError, UsageError, VerificationError

PRIVATE, PUBLIC = serialization.PrivateFormat, serialization.PublicFormat
PEM, OPENSSH = serialization.Encoding.PEM, serialization.Encoding.OpenSSH


def write_keys(
    folder: Path, name: str, *, kind: Any = None, ssh: bool = False, passphrase: bytes | None = None
) -> tuple[Path, Path]:
    """A private key and its public part, in files."""
    key = kind or Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(PEM, PRIVATE.OpenSSH if ssh else PRIVATE.PKCS8, locked))
    form = (OPENSSH, PUBLIC.OpenSSH) if ssh else (PEM, PUBLIC.SubjectPublicKeyInfo)
    public.write_bytes(key.public_key().public_bytes(*form))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "mine")


@pytest.mark.parametrize("ssh", [False, True])
def test_a_signed_bundle_is_accepted_with_the_public_key(own_bundle: Path, tmp_path: Path, ssh: bool) -> None:
    private, public = write_keys(tmp_path, "mine", ssh=ssh)
    manifest = (own_bundle / "manifest.json").read_bytes()
    sign_bundle(own_bundle, private)
    check_signature(own_bundle, public)
    read_bundle(own_bundle)
    assert (own_bundle / "manifest.json").read_bytes() == manifest


def test_signing_again_makes_the_same_bytes(own_bundle: Path, keys: tuple[Path, Path]) -> None:
    sign_bundle(own_bundle, keys[0])
    first = (own_bundle / "signature.json").read_bytes()
    sign_bundle(own_bundle, keys[0])
    assert (own_bundle / "signature.json").read_bytes() == first


def test_a_key_with_a_passphrase_needs_it(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = write_keys(tmp_path, "locked", passphrase=b"open sesame")
    monkeypatch.delenv("LATHE_KEY_PASSPHRASE", raising=False)
    with pytest.raises(UsageError, match="cannot be read") as caught:
        sign_bundle(own_bundle, private)
    assert "LATHE_KEY_PASSPHRASE" in caught.value.fix
    monkeypatch.setenv("LATHE_KEY_PASSPHRASE", "open sesame")
    sign_bundle(own_bundle, private)
    check_signature(own_bundle, public)


def edit_manifest(bundle: Path) -> None:
    path = bundle / "manifest.json"
    document = {**json.loads(path.read_bytes()), "name": "another"}
    document["digest"] = manifest_digest(document)
    path.write_bytes(manifest_bytes(document))


def spoil(bundle: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = bundle / "signature.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("missing", UnsignedError, "is not signed"),
        ("another key", SignatureError, "was not signed with the key"),
        ("changed file", VerificationError, r"recipe\.toml was changed"),
        ("new manifest", SignatureError, "was not signed with the key"),
        ("flipped bit", SignatureError, "was not signed with the key"),
        ("claimed key", SignatureError, "was not signed with the key"),
        ("cut off", VerificationError, r"signature\.json cannot be read"),
        ("news", VerificationError, r"signature\.json cannot be read"),
        ("link", VerificationError, r"signature\.json is a link"),
        ("folder", VerificationError, "is not listed"),
    ],
)
def test_nothing_of_a_bundle_runs_without_the_right_signature(
    own_bundle: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    kind: type[LatheError],
    says: str,
) -> None:
    monkeypatch.delattr(verification, "verify_artifact")
    private, public = keys
    signature = own_bundle / "signature.json"
    sign_bundle(own_bundle, private)
    match fault:
        case "missing":
            signature.unlink()
        case "another key":
            public = write_keys(tmp_path, "other")[1]
        case "changed file":
            (own_bundle / "recipe.toml").write_text("")
        case "new manifest":
            edit_manifest(own_bundle)
        case "flipped bit":
            spoil(own_bundle, lambda had: {**had, "signature": f"{int(had['signature'], 16) ^ 1:0128x}"})
        case "claimed key":
            other = write_keys(tmp_path, "other")[0]
            claimed = json.loads(signature.read_text())["public_key"]
            sign_bundle(own_bundle, other)
            spoil(own_bundle, lambda had: {**had, "public_key": claimed})
        case "cut off":
            signature.write_bytes(signature.read_bytes()[:-9])
        case "news":
            spoil(own_bundle, lambda had: {**had, "schema_version": 2})
        case "link":
            shutil.move(signature, tmp_path / "elsewhere.json")
            signature.symlink_to(tmp_path / "elsewhere.json")
        case "folder":
            signature.unlink()
            signature.mkdir()
            (signature / "file").write_text("")
    with pytest.raises(kind, match=says):
        verify_bundle(own_bundle, lambda *_: None, key=public)


def test_only_ed25519_keys_of_the_right_half_are_taken(
    own_bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    other = write_keys(tmp_path, "curve", kind=ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "bad").write_bytes(b"no key")
    for path in (public, other[0], tmp_path / "bad"):
        with pytest.raises(UsageError, match="is no private Ed25519 key"):
            sign_bundle(own_bundle, path)
    for path in (private, other[1], tmp_path / "bad"):
        with pytest.raises(UsageError, match="is no public Ed25519 key"):
            check_signature(own_bundle, path)
    for use in (sign_bundle, check_signature):
        with pytest.raises(UsageError, match="cannot be read"):
            use(own_bundle, tmp_path / "nowhere")


def test_a_changed_bundle_is_not_signed(own_bundle: Path, keys: tuple[Path, Path]) -> None:
    (own_bundle / "recipe.toml").write_text("")
    with pytest.raises(VerificationError, match=r"recipe\.toml was changed"):
        sign_bundle(own_bundle, keys[0])
    assert not (own_bundle / "signature.json").exists()


def test_it_is_said_which_package_signatures_need(
    own_bundle: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(UsageError, match="need the package cryptography") as caught:
        sign_bundle(own_bundle, keys[0])
    assert "sign" in caught.value.fix
