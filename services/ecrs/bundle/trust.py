"""Which bundles are trusted: keys, and signatures of manifests.

A manifest has the hash of every file of its bundle, so a signature of the manifest vouches for all of them.
`manifest.sig` holds the public key that signed `manifest.json` and the Ed25519 signature of its bytes, both
in base64. A machine that exports bundles makes itself a key pair at the first one and trusts that key.
"""

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from ecrs.bundle.errors import BundleError, UntrustedBundle
from ecrs.rpc.settings import EnvironmentSettings

SIGNATURE = "manifest.sig"
PUBLIC_KEY_BYTES, PRIVATE_KEY_BYTES, SIGNATURE_BYTES = 32, 32, 64
MAX_KEY_FILE_BYTES = 1 << 16
"""Largest file of keys, or of a signature, that is read."""


class BundleTrustSettings(EnvironmentSettings):
    """Whose bundles this process accepts, and the key with which it signs its own."""

    bundle_public_key: str = Field(
        "",
        description="the only keys whose bundles are accepted: base64, separated by spaces or commas; "
        "default: those in the file of trusted keys",
    )
    trusted_bundle_keys: Path = Field(
        Path("artifacts/trusted_bundle_keys"), description="file of trusted public keys, one per line"
    )
    bundle_signing_key: Path = Field(
        Path("artifacts/bundle_signing_key"),
        description="file of the private key that signs exported bundles; made at the first export",
    )
    allow_unsigned_bundles: bool = Field(False, description="accept bundles whoever made them")


def check_signature(directory: Path, manifest: bytes) -> None:
    """Raise UntrustedBundle unless a trusted key signed `manifest`, the content of a bundle's manifest.json.

    The settings of the process say which keys are trusted, or that signatures are not checked. Raises
    BundleError if the file of trusted keys is malformed.
    """
    settings = BundleTrustSettings()
    if settings.allow_unsigned_bundles:
        return
    path = directory / SIGNATURE
    try:
        key, signature = _read(path).split()
        signed_by, signature_bytes = _decode(key, PUBLIC_KEY_BYTES), _decode(signature, SIGNATURE_BYTES)
    except FileNotFoundError:
        raise UntrustedBundle(
            f"{path} is missing: the bundle is not signed (ECRS_ALLOW_UNSIGNED_BUNDLES=1 accepts it)"
        ) from None
    except (OSError, ValueError) as error:
        raise UntrustedBundle(f"{path}: not a signature: {error}") from error
    if signed_by not in trusted_keys(settings):
        where = "ECRS_BUNDLE_PUBLIC_KEY" if settings.bundle_public_key else settings.trusted_bundle_keys
        raise UntrustedBundle(
            f"{directory} is signed by the key {key}, which is not trusted. If you know where the bundle "
            f"comes from, add the key to {where}"
        )
    try:
        Ed25519PublicKey.from_public_bytes(signed_by).verify(signature_bytes, manifest)
    except (InvalidSignature, ValueError) as error:
        raise UntrustedBundle(
            f"{path}: the signature is not of this manifest: it was changed after it was signed"
        ) from error


def sign(directory: Path, manifest: bytes) -> None:
    """Write the signature of `manifest` into a bundle's directory.

    Makes the signing key, if this machine has none, and trusts it. Raises BundleError if the files of keys
    are malformed or cannot be read or written, and OSError if the signature cannot be written.
    """
    settings = BundleTrustSettings()
    try:
        key = _signing_key(settings.bundle_signing_key)
        public = key.public_key().public_bytes_raw()
        _trust(public, settings)
    except OSError as error:
        raise BundleError(f"{error.filename}: {error.strerror}") from error
    (directory / SIGNATURE).write_text(f"{_encode(public)} {_encode(key.sign(manifest))}\n", encoding="ascii")


def trusted_keys(settings: BundleTrustSettings) -> set[bytes]:
    """Return the trusted public keys: those in ECRS_BUNDLE_PUBLIC_KEY if it is set, else in the file."""
    if settings.bundle_public_key:
        source, words = "ECRS_BUNDLE_PUBLIC_KEY", settings.bundle_public_key.replace(",", " ").split()
    else:
        source = str(settings.trusted_bundle_keys)
        try:
            lines = _read(settings.trusted_bundle_keys).splitlines()
        except FileNotFoundError:
            return set()
        except (OSError, ValueError) as error:
            raise BundleError(f"{source}: {error}") from error
        words = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    try:
        return {_decode(word, PUBLIC_KEY_BYTES) for word in words}
    except ValueError as error:
        raise BundleError(f"{source}: {error}") from error


def _signing_key(path: Path) -> Ed25519PrivateKey:
    """Read the private key at `path`, or make one there that only its owner can read."""
    try:
        return Ed25519PrivateKey.from_private_bytes(_decode(_read(path).strip(), PRIVATE_KEY_BYTES))
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise BundleError(f"{path}: not a signing key: {error}") from error
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        try:
            file.write(_encode(key.private_bytes_raw()) + "\n")
            file.flush()
        except OSError:
            path.unlink()
            raise
    return key


def _trust(public: bytes, settings: BundleTrustSettings) -> None:
    """Add a key to the file of trusted keys, unless ECRS_BUNDLE_PUBLIC_KEY or the file has it already."""
    if settings.bundle_public_key or public in trusted_keys(settings):
        return
    settings.trusted_bundle_keys.parent.mkdir(parents=True, exist_ok=True)
    with open(settings.trusted_bundle_keys, "a", encoding="ascii") as file:
        file.write(f"{_encode(public)} made here\n")


def _read(path: Path) -> str:
    """Return the text of a small file; ValueError if it is large or not ASCII."""
    with open(path, "rb") as file:
        content = file.read(MAX_KEY_FILE_BYTES + 1)
    if len(content) > MAX_KEY_FILE_BYTES:
        raise ValueError(f"more than {MAX_KEY_FILE_BYTES} bytes")
    return content.decode("ascii")


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str, length: int) -> bytes:
    raw = base64.b64decode(text, validate=True)
    if len(raw) != length:
        raise ValueError(f"{len(raw)} bytes in base64, expected {length}")
    return raw
