"""Signatures: who made a bundle. Digests only tell that it is unchanged.

An Ed25519 signature (RFC 8032) covers the bytes of the manifest, which has the digest of every file. It is a
file of its own, so that signing changes nothing else, and the same bundle can be signed again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from devices.installing import how_to_install
from devices.untrusted import file_bytes, json_from
from devices.words import cause_of
from pipeline.bundle.manifest import MANIFEST_NAME, SIGNATURE_NAME, manifest_bytes
from pipeline.bundle.reading import MOST_JSON_BYTES, read_bundle, refused
from pipeline.errors import SignatureError, UnsignedError, UsageError
from pipeline.work.disk import disk_errors, write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSPHRASE = "LATHE_KEY_PASSPHRASE"
"""Environment variable with the passphrase of a private key that has one."""
_MOST_KEY_BYTES = 64 << 10
# What is signed begins with this, so that the signature of a bundle is one of nothing else.
_CONTEXT = b"lathe bundle, manifest:\n"

Hexadecimal = Annotated[str, Field(pattern="^[0-9a-f]+$")]


class Signature(BaseModel):
    """The content of ``signature.json``: the signer's public key and the signature, both in hexadecimal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: Annotated[Hexadecimal, Field(min_length=64, max_length=64)]
    signature: Annotated[Hexadecimal, Field(min_length=128, max_length=128)]


def sign_bundle(folder: Path, key: Path) -> Signature:
    """Sign a bundle with a private key; a signature that it has is replaced.

    Args:
        folder: an unchanged bundle.
        key: a private Ed25519 key, PEM (PKCS #8) or OpenSSH; its passphrase is in ``LATHE_KEY_PASSPHRASE``.

    Raises:
        VerificationError: the bundle was changed.
        UsageError: the key cannot be used, or the package cryptography is not installed.
        WorkFolderError: the folder cannot be written.
    """
    private = _private_key(key)
    read_bundle(folder)
    signature = Signature(
        public_key=private.public_key().public_bytes_raw().hex(),
        signature=private.sign(_message(folder)).hex(),
    )
    with disk_errors(folder):
        write_atomically(folder / SIGNATURE_NAME, manifest_bytes(signature.model_dump(mode="json")))
    return signature


def check_signature(folder: Path, key: Path) -> None:
    """Accept a bundle only if it was signed with the private key that belongs to a public one.

    Args:
        folder: the bundle; its files are not checked here, see ``read_bundle``.
        key: a public Ed25519 key, PEM or OpenSSH.

    Raises:
        UnsignedError: it has no signature.
        SignatureError: it was signed with another key, or the signature is of another bundle.
        VerificationError: ``signature.json`` is no signature.
        UsageError: the key cannot be used, or the package cryptography is not installed.
    """
    public = _public_key(key)
    from cryptography.exceptions import InvalidSignature

    path = folder / SIGNATURE_NAME
    if not path.exists():
        raise UnsignedError(
            f"the bundle {folder} is not signed",
            why=f"it has no {SIGNATURE_NAME}",
            fix="ask whoever made it to sign it with lathe sign, or verify it without --key",
        )
    try:
        signature = Signature.model_validate(json_from(file_bytes(path, MOST_JSON_BYTES)))
    except (ValidationError, ValueError, OSError) as error:
        raise refused(folder, SIGNATURE_NAME, f"cannot be read: {cause_of(error)}") from error
    other = signature.public_key != public.public_bytes_raw().hex()
    try:
        public.verify(bytes.fromhex(signature.signature), _message(folder))
    except InvalidSignature:
        raise SignatureError(
            f"the bundle {folder} was not signed with the key that belongs to {key}",
            why=f"it names the public key {signature.public_key}"
            if other
            else "the signature is of another manifest",
            fix="do not use it, unless you know why; take it again from where you trust",
        ) from None


def _message(folder: Path) -> bytes:
    return _CONTEXT + file_bytes(folder / MANIFEST_NAME, MOST_JSON_BYTES)


def _private_key(path: Path) -> Ed25519PrivateKey:
    serialization, ed25519 = _cryptography()
    text = os.environ.get(PASSPHRASE)
    passphrase = text.encode() if text is not None else None
    content = _read_key(path)
    ssh = content.startswith(b"-----BEGIN OPENSSH")
    load = serialization.load_ssh_private_key if ssh else serialization.load_pem_private_key
    try:
        key = load(content, passphrase)
    except TypeError as error:  # a passphrase is missing, or there is one and the key has none
        raise UsageError(
            f"the key {path} cannot be read",
            why=str(error),
            fix=f"put its passphrase into the environment variable {PASSPHRASE}, if it has one",
        ) from error
    except Exception as error:  # the library raises errors of several kinds for damaged keys
        raise _unusable(path, "private", cause_of(error)) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _unusable(path, "private", f"it is of another kind ({type(key).__name__})")
    private: Ed25519PrivateKey = key
    return private


def _public_key(path: Path) -> Ed25519PublicKey:
    serialization, ed25519 = _cryptography()
    content = _read_key(path)
    ssh = content.startswith(b"ssh-")
    load = serialization.load_ssh_public_key if ssh else serialization.load_pem_public_key
    try:
        key = load(content)
    except Exception as error:  # as above
        private = "it is a private key" if b"PRIVATE KEY" in content else cause_of(error)
        raise _unusable(path, "public", private) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise _unusable(path, "public", f"it is of another kind ({type(key).__name__})")
    public: Ed25519PublicKey = key
    return public


def _read_key(path: Path) -> bytes:
    try:
        return file_bytes(path, _MOST_KEY_BYTES)
    except (OSError, ValueError) as error:
        raise UsageError(f"the key {path} cannot be read", why=cause_of(error)) from error


def _unusable(path: Path, kind: str, why: str) -> UsageError:
    makes = "openssl genpkey -algorithm ed25519 -out key.pem"
    if kind == "public":
        makes = "openssl pkey -in key.pem -pubout -out key.pub"
    return UsageError(f"{path} is no {kind} Ed25519 key", why=why, fix=f"make one with {makes}")


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UsageError(
            "signatures need the package cryptography", why=str(error), fix=how_to_install("sign")
        ) from error
    return serialization, ed25519
