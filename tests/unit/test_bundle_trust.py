"""Only bundles that a trusted key has signed are opened, and only with the files that were signed."""

import os
import shutil
from pathlib import Path

import pytest

from ecrs.bundle import MANIFEST, Bundle, BundleError, UntrustedBundle
from ecrs_models import build as building
from tests.tiny import resealed


@pytest.fixture
def copy(tiny: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(tiny.path, tmp_path / tiny.version))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Another machine, which has its own keys and trusts no others; returns its file of trusted keys."""
    monkeypatch.setenv("ECRS_BUNDLE_SIGNING_KEY", str(tmp_path / "keys" / "private"))
    monkeypatch.setenv("ECRS_TRUSTED_BUNDLE_KEYS", str(tmp_path / "keys" / "trusted"))
    return tmp_path / "keys" / "trusted"


def test_bundle_of_another_machine_is_refused_until_its_key_is_trusted(tiny: Bundle, elsewhere: Path) -> None:
    with pytest.raises(UntrustedBundle, match=r"is signed by the key (\S+), which is not trusted") as refused:
        Bundle.open(tiny.path)
    assert "\n" not in str(refused.value)
    assert str(elsewhere) in str(refused.value)
    key = (tiny.path / "manifest.sig").read_text().split()[0]
    elsewhere.parent.mkdir()
    elsewhere.write_text(f"# keys\n\n{key} the other machine\n")
    assert Bundle.open(tiny.path).version == tiny.version


def test_public_key_of_settings_replaces_the_file_of_trusted_keys(
    tiny: Bundle, elsewhere: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (tiny.path / "manifest.sig").read_text().split()[0]
    resealed(copy)  # by this machine, which trusts itself
    monkeypatch.setenv("ECRS_BUNDLE_PUBLIC_KEY", f"{'A' * 43}=, {key}")
    assert Bundle.open(tiny.path).version == tiny.version
    with pytest.raises(UntrustedBundle, match="add the key to ECRS_BUNDLE_PUBLIC_KEY"):
        Bundle.open(copy)


def test_unsigned_bundle_is_refused_unless_allowed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "manifest.sig").unlink()
    with pytest.raises(UntrustedBundle, match=r"manifest\.sig is missing: the bundle is not signed"):
        Bundle.open(copy)
    monkeypatch.setenv("ECRS_ALLOW_UNSIGNED_BUNDLES", "1")
    Bundle.open(copy)


def test_resealed_manifest_does_not_match_the_signature(copy: Path) -> None:
    signature = (copy / "manifest.sig").read_bytes()
    (copy / "users.dat").write_text("1:5.0:1.0:5.0:20.0:176.0:1933.0\n")
    resealed(copy)
    (copy / "manifest.sig").write_bytes(signature)
    with pytest.raises(UntrustedBundle, match=r"manifest\.sig: the signature is not of this manifest"):
        Bundle.open(copy)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xfe", b"a b", b"A" * 100_000, b"QUFB QUFB\n"])
def test_malformed_signature_is_refused(copy: Path, content: bytes) -> None:
    (copy / "manifest.sig").write_bytes(content)
    with pytest.raises(UntrustedBundle, match=r"manifest\.sig: not a signature: "):
        Bundle.open(copy)


def test_malformed_keys_are_named(tiny: Bundle, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere.parent.mkdir()
    elsewhere.write_text("no key\n")
    with pytest.raises(BundleError, match=r"keys/trusted: "):
        Bundle.open(tiny.path)
    monkeypatch.setenv("ECRS_BUNDLE_PUBLIC_KEY", "QUFB")
    with pytest.raises(BundleError, match="ECRS_BUNDLE_PUBLIC_KEY: 3 bytes in base64, expected 32"):
        Bundle.open(tiny.path)


def test_signing_key_is_made_once_for_its_owner_alone(copy: Path, elsewhere: Path) -> None:
    keys = {(resealed(copy).path / "manifest.sig").read_text().split()[0] for _ in range(2)}
    private = elsewhere.with_name("private")
    assert private.stat().st_mode & 0o777 == 0o600
    assert elsewhere.read_text().split() == [*keys, "made", "here"]


def test_build_does_not_replace_a_bundle_of_another_machine(tiny: Bundle, elsewhere: Path) -> None:
    messages: list[str] = []
    with pytest.raises(UntrustedBundle):
        building.build("nowhere", tiny.path.parent, elsewhere.parent, say=messages.append)
    assert messages == []


def test_file_that_is_not_listed_is_refused(copy: Path) -> None:
    (copy / "vocabulary" / "more.txt").write_text("1\n")
    with pytest.raises(BundleError, match=rf"vocabulary/more\.txt: {MANIFEST} does not list it"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["users.dat", "ranker"])
def test_link_is_refused(copy: Path, name: str) -> None:
    outside = copy.with_name("outside")
    (copy / name).rename(outside)
    (copy / name).symlink_to(outside)
    with pytest.raises(BundleError, match=f"{name} is neither a file nor a directory"):
        Bundle.open(copy)


def test_pipe_is_refused_and_not_waited_for(copy: Path) -> None:
    (copy / "users.dat").unlink()
    os.mkfifo(copy / "users.dat")
    with pytest.raises(BundleError, match=r"users\.dat is neither a file nor a directory"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../b", "./a", "a//b", ".hidden", "", "a/", "a\\nb"]
)
def test_name_outside_the_bundle_is_refused(copy: Path, name: str) -> None:
    manifest = copy / MANIFEST
    manifest.write_text(manifest.read_text().replace('"users.dat"', f'"{name}"'))
    with pytest.raises(BundleError, match=r"manifest\.json: Expected `str` matching regex"):
        Bundle.open(copy)


def test_circular_link_to_the_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("current")
    with pytest.raises(BundleError, match=r"manifest\.json: "):
        Bundle.open(tmp_path / "current")
