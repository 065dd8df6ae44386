"""The server's own certificate authority and its certificate for the names of all sandboxes."""

import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from warren import durable
from warren.model import limits
from warren.model.errors import BadRequest

_SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_PUBLIC = 0o644
_Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """ca: what a client has to trust. certificate and key: the server's. bundle: the system's authorities and ours,
    for programs that take one file for all (`SSL_CERT_FILE`). is_own: made here, and renewed here."""

    directory: Path
    ca: Path
    certificate: Path
    key: Path
    bundle: Path
    is_own: bool = True


def given_certificates(directory: Path, domain: str, certificate: Path, key: Path) -> TlsFiles:
    """Somebody else's certificate for the sandboxes' names, with its chain. Raises BadRequest for a wrong one."""
    directory.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(directory, certificate, certificate, key, directory / "bundle.pem", is_own=False)
    try:
        pair = x509.load_pem_x509_certificate(certificate.read_bytes())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise BadRequest(f"cannot use the certificate {certificate} with the key {key}: {error}") from error
    with contextlib.suppress(x509.ExtensionNotFound):
        names = pair.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if f"*.{domain}" in names.get_values_for_type(x509.DNSName):
            _write_bundle(files)
            return files
    raise BadRequest(
        f"cannot use the certificate {certificate}: it is not for *.{domain}; set WARREN_DOMAIN to its name"
    )


def ensure_certificates(directory: Path, domain: str, now: datetime | None = None) -> TlsFiles:
    """Make what is missing, belongs to another domain or ends soon. Keys are readable by the owner only."""
    now = now or datetime.now(UTC)
    directory.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(
        directory,
        ca=directory / "ca.pem",
        certificate=directory / "server.pem",
        key=directory / "server.key",
        bundle=directory / "bundle.pem",
    )
    authority = _load(files.ca, directory / "ca.key")
    if authority is None or not _is_good(authority[0], now, _authority_names(domain)):
        authority = _make_authority(domain, now)
        _store(files.ca, directory / "ca.key", authority)
    server = _load(files.certificate, files.key)
    if server is None or not _is_good(server[0], now, _server_names(domain)) or not _issued(authority[0], server[0]):
        _store(files.certificate, files.key, _make_server(domain, now, authority))
    _write_bundle(files)
    return files


def _server_names(domain: str) -> list[x509.GeneralName]:
    names = [domain, f"*.{domain}", "localhost"]
    addresses = [IPv4Address("127.0.0.1"), IPv6Address("::1")]
    return [*map(x509.DNSName, names), *map(x509.IPAddress, addresses)]


def _authority_names(domain: str) -> list[x509.GeneralName]:
    """All that the authority may vouch for: whoever steals its key can pretend to be this server and nobody else."""
    networks = [IPv4Network("127.0.0.1/32"), IPv6Network("::1/128")]
    return [*map(x509.DNSName, [domain, "localhost"]), *map(x509.IPAddress, networks)]


def _make_authority(domain: str, now: datetime) -> tuple[x509.Certificate, _Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Warren at {domain}"[:64])])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(name, name, key, now, timedelta(days=limits.GATEWAY_AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.NameConstraints(_authority_names(domain), None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _make_server(domain: str, now: datetime, authority: tuple[x509.Certificate, _Key]) -> tuple[x509.Certificate, _Key]:
    issuer, issuer_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain[:64])])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    certificate = (
        _builder(name, issuer.subject, key, now, timedelta(days=limits.GATEWAY_CERTIFICATE_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_server_names(domain)), critical=False)
        .add_extension(identifier, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: _Key, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clients' clocks may be a little behind
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _is_good(certificate: x509.Certificate, now: datetime, names: list[x509.GeneralName]) -> bool:
    if certificate.not_valid_after_utc - now < timedelta(days=limits.GATEWAY_RENEW_DAYS):
        return False
    if certificate.not_valid_before_utc > now:
        return False
    with contextlib.suppress(x509.ExtensionNotFound):
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == names
    with contextlib.suppress(x509.ExtensionNotFound):
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        return constraints.permitted_subtrees == names
    return False


def _issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _load(certificate_file: Path, key_file: Path) -> tuple[x509.Certificate, _Key] | None:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, _Key) or key.public_key() != certificate.public_key():
        return None  # half of a pair that was being replaced
    return certificate, key


def _store(certificate_file: Path, key_file: Path, pair: tuple[x509.Certificate, _Key]) -> None:
    certificate, key = pair
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    durable.write(key_file, secret)
    durable.write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), _PUBLIC)


def _write_bundle(files: TlsFiles) -> None:
    system = Path(ssl.get_default_verify_paths().openssl_cafile)
    found: Callable[[Path], bool] = Path.is_file
    source = next(filter(found, (_SYSTEM_BUNDLE, system)), None)
    text = (source.read_bytes().rstrip() + b"\n" if source else b"") + files.ca.read_bytes()
    if not files.bundle.exists() or files.bundle.read_bytes() != text:
        durable.write(files.bundle, text, _PUBLIC)
