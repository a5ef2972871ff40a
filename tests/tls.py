"""A certificate authority, its certificates, and a proxy that adds TLS to a server."""

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority; its own certificate is in `ca`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA {directory.name}")])
        self.ca = directory / "ca.pem"
        may_sign = x509.BasicConstraints(ca=True, path_length=0)
        own = self._builder(self._name, self._key).add_extension(may_sign, critical=True)
        self._write(own, self.ca)

    def issue(self, host: str) -> Certificate:
        """Return a certificate for a host name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        issued = Certificate(self._directory / f"{host}.pem", self._directory / f"{host}.key")
        self._write(self._builder(subject, key).add_extension(names, critical=False), issued.certificate)
        issued.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return issued

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - DAY,
            not_valid_after=now + DAY,
        )

    def _write(self, builder: x509.CertificateBuilder, path: Path) -> None:
        signed = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


@asynccontextmanager
async def tls_proxy(certificate: Certificate, target_port: int) -> AsyncIterator[int]:
    """Accept TLS connections and forward them to a port of this machine; yields the proxy's port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)

    async def forward(source: StreamReader, sink: StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(65_536):
                sink.write(chunk)
        sink.close()

    async def accept(reader: StreamReader, writer: StreamWriter) -> None:
        from_target, to_target = await asyncio.open_connection("127.0.0.1", target_port)
        await asyncio.gather(forward(reader, to_target), forward(from_target, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
