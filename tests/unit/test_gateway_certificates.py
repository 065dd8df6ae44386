import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from warren.gateway.certificates import ensure_certificates, given_certificates
from warren.model.errors import BadRequest

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def end_of(file: Path) -> datetime:
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc


def test_keys_are_the_owners_alone_and_certificates_everybodys(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path / "tls", "e2b.localhost")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in files.directory.iterdir()}
    assert modes == {"ca.key": 0o600, "ca.pem": 0o644, "server.key": 0o600, "server.pem": 0o644, "bundle.pem": 0o644}


def test_a_second_look_changes_nothing(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, "e2b.localhost", NOW)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    ensure_certificates(tmp_path, "e2b.localhost", NOW + timedelta(days=300))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_certificate_is_replaced_before_its_end_and_the_authority_stays(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, "e2b.localhost", NOW)
    authority, end = files.ca.read_bytes(), end_of(files.certificate)
    ensure_certificates(tmp_path, "e2b.localhost", end - timedelta(days=29))
    assert end_of(files.certificate) > end
    assert files.ca.read_bytes() == authority


def test_another_domain_makes_another_authority(tmp_path: Path) -> None:
    before = ensure_certificates(tmp_path, "e2b.localhost", NOW).ca.read_bytes()
    files = ensure_certificates(tmp_path, "boxes.example", NOW)
    assert files.ca.read_bytes() != before
    names = x509.load_pem_x509_certificate(files.certificate.read_bytes()).extensions
    assert "*.boxes.example" in str(names.get_extension_for_class(x509.SubjectAlternativeName).value)


def test_a_half_replaced_or_broken_pair_is_made_anew(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, "e2b.localhost")
    other = ensure_certificates(tmp_path / "other", "e2b.localhost")
    files.key.write_bytes(other.key.read_bytes())
    ensure_certificates(tmp_path, "e2b.localhost")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)
    files.ca.write_bytes(b"rubbish")
    ensure_certificates(tmp_path, "e2b.localhost")
    assert files.bundle.read_bytes().endswith(files.ca.read_bytes())


def test_the_authority_may_vouch_for_this_server_only(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, "e2b.localhost")
    extensions = x509.load_pem_x509_certificate(files.ca.read_bytes()).extensions
    constraints = extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert [str(name.value) for name in constraints.value.permitted_subtrees or []] == [
        "e2b.localhost",
        "localhost",
        "127.0.0.1/32",
        "::1/128",
    ]


def test_somebody_else_s_certificate_is_used_when_it_fits(tmp_path: Path) -> None:
    made = ensure_certificates(tmp_path / "made", "team.test")
    files = given_certificates(tmp_path / "tls", "team.test", made.certificate, made.key)
    assert (files.certificate, files.key, files.is_own) == (made.certificate, made.key, False)
    assert made.certificate.read_text().strip() in files.bundle.read_text()


def test_a_certificate_that_does_not_fit_stops_the_start(tmp_path: Path) -> None:
    made, other = (ensure_certificates(tmp_path / name, "team.test") for name in ("made", "other"))
    for domain, certificate, key, said in (
        ("else.test", made.certificate, made.key, r"not for \*\.else\.test"),
        ("team.test", made.certificate, other.key, "cannot use the certificate"),
        ("team.test", tmp_path / "none", made.key, "cannot use the certificate"),
        ("team.test", made.key, made.key, "cannot use the certificate"),
    ):
        with pytest.raises(BadRequest, match=said):
            given_certificates(tmp_path / "tls", domain, certificate, key)
