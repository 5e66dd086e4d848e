"""The container's authority, its key stolen, against names outside of its constraints: real clients refuse.

Each client first accepts what it should, so that a refusal says something about the certificate.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from terok_host.sidecars.store.records import Authority
from terok_host.sidecars.vault.tls.authority import make_authority

HOST = "localhost"
INSIDE = make_authority("box", [HOST])
OUTSIDE = make_authority("box", ["api.example"])
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def forge(authority: Authority, *names: x509.GeneralName, below: bool = False) -> bytes:
    """What a thief of the intermediate's key signs: a leaf for these names, or one behind another authority."""
    issuer = x509.load_pem_x509_certificate(authority.intermediate)
    issuer_key: Any = serialization.load_pem_private_key(authority.key, password=None)
    chain = authority.intermediate
    if below:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "another authority")])
        made = sign(name, issuer.subject, key.public_key(), issuer_key, ca=True)
        chain = made.public_bytes(serialization.Encoding.PEM) + chain
        issuer, issuer_key = made, key
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = sign(x509.Name([]), issuer.subject, key.public_key(), issuer_key, *names)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem + leaf.public_bytes(serialization.Encoding.PEM) + chain


def sign(
    subject: x509.Name, issuer: x509.Name, key: Any, issuer_key: Any, *names: x509.GeneralName, ca: bool = False
) -> x509.Certificate:
    """A certificate that is right in everything else."""
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = builder.add_extension(aki, critical=False)
    if ca:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


@contextmanager
def served(pem: bytes, root: Path) -> Iterator[tuple[int, list[bytes]]]:
    """A server with this key and chain; yields its port, and the requests that clients trusted it with."""
    requests: list[bytes] = []
    file = root / "served.pem"
    file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    raw, _ = listener.accept()
                except OSError:
                    return
                try:
                    raw.settimeout(5)
                    with context.wrap_socket(raw, server_side=True) as sock:
                        if request := sock.recv(65536):
                            requests.append(request)
                            sock.sendall(ANSWER)
                except OSError:
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1]), requests
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def run(*argv: str, **env: str) -> str:
    """What a program prints that has a request on its standard input."""
    full = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **env}
    done = subprocess.run(argv, env=full, capture_output=True, input="GET / HTTP/1.1\r\n\r\n", text=True, timeout=60)
    return f"{done.stdout}{done.stderr}"


def python(root: str, host: str, port: int) -> str:
    """OpenSSL by Python."""
    context = ssl.create_default_context(cafile=root)
    try:
        with socket.create_connection((host, port)) as raw, context.wrap_socket(raw, server_hostname=host) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return sock.recv(1000).decode()
    except ssl.SSLCertVerificationError as error:
        return str(error)


def node(root: str, host: str, port: int) -> str:
    """Node's own list of authorities, and ours."""
    script = f"fetch('https://{host}:{port}/').then(r => r.text()).then(console.log, e => console.log(e.cause.code))"
    return run("node", "-e", script, NODE_EXTRA_CA_CERTS=root)


JAVA = """
import java.net.URI; import java.net.http.*;
public class Ask { public static void main(String[] a) throws Exception {
  try { System.out.println(HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(a[0])).build(),
          HttpResponse.BodyHandlers.ofString()).body()); }
  catch (Exception e) { for (Throwable t = e; t != null; t = t.getCause()) System.out.println(t); } } }
"""


def java(root: str, host: str, port: int) -> str:
    """Java's HttpClient, which ignores the constraints of what it trusts by itself."""
    folder = Path(root).parent
    (folder / "Ask.java").write_text(JAVA)
    store = folder / "trust.p12"
    store.unlink(missing_ok=True)
    run("keytool", "-importcert", "-noprompt", "-file", root, "-keystore", str(store), "-storepass", "changeit")
    trust = [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit"]
    return run("java", *trust, str(folder / "Ask.java"), f"https://{host}:{port}/")


def nss(root: str, host: str, port: int) -> str:
    """NSS, as Firefox has it, by its own test client."""
    folder = Path(root).parent / f"nss-{Path(root).stem}"
    if not folder.exists():
        folder.mkdir()
        run("certutil", "-N", "-d", f"sql:{folder}", "--empty-password")
        run("certutil", "-A", "-d", f"sql:{folder}", "-n", "terok", "-t", "C,,", "-i", root)
    request = folder / "request"
    request.write_text("GET / HTTP/1.1\r\n\r\n")
    return run("tstclnt", "-d", f"sql:{folder}", "-h", host, "-p", str(port), "-4", "-A", str(request))


def go(root: str, host: str, port: int) -> str:
    """Go's crypto/tls, by a program that is written in it."""
    return run("gh", "api", f"https://{host}:{port}/", SSL_CERT_FILE=root, SSL_CERT_DIR="/nonexistent", GH_TOKEN="none")


Client = Callable[[str, str, int], str]
CLIENTS: dict[str, Client] = {
    "python": python,
    "curl": lambda root, host, port: run("curl", "-sS", "--cacert", root, f"https://{host}:{port}/"),
    "openssl": lambda root, host, port: run(
        "openssl", "s_client", "-CAfile", root, "-verify_return_error", "-connect", f"{host}:{port}",
        *(("-verify_ip",) if host[0].isdigit() else ("-verify_hostname",)), host,
    ),
    "wget": lambda root, host, port: run("wget", "-qO-", "--ca-certificate", root, f"https://{host}:{port}/"),
    "gnutls": lambda root, host, port: run("gnutls-cli", "--x509cafile", root, "-p", str(port), host),
    "git": lambda root, host, port: run(
        "git", "ls-remote", f"https://{host}:{port}/x", GIT_SSL_CAINFO=root, GIT_TERMINAL_PROMPT="0"
    ),
    "node": node,
    "java": java,
    "go": go,
    "nss": nss,
}  # fmt: skip
PROGRAMS = {"gnutls": "gnutls-cli", "go": "gh", "nss": "tstclnt"}
HERE = [name for name in CLIENTS if name == "python" or shutil.which(PROGRAMS.get(name, name))]


def test_the_clients_are_here() -> None:
    assert {"python", "curl", "openssl", "git"} <= set(HERE)


@pytest.mark.parametrize("name", HERE)
def test_real_clients(tmp_path: Path, name: str) -> None:
    inside, outside = tmp_path / "inside.pem", tmp_path / "outside.pem"
    inside.write_bytes(INSIDE.root)
    outside.write_bytes(OUTSIDE.root)
    local, address = x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))

    def trusts(
        root: Path, authority: Authority, *names: x509.GeneralName, host: str = HOST, below: bool = False
    ) -> bool:
        with served(forge(authority, *names, below=below), tmp_path) as (port, requests):
            said = CLIENTS[name](str(root), host, port)
        print(name, names, host, below, said[-200:])
        return bool(requests)

    assert trusts(inside, INSIDE, local)
    assert not trusts(outside, INSIDE, local), "another container's authority"
    assert not trusts(outside, OUTSIDE, local), "a name outside of the constraints"
    assert not trusts(outside, OUTSIDE, x509.DNSName("api.example"), local), "one beside a permitted one"
    assert not trusts(inside, INSIDE, address, host="127.0.0.1"), "an address"
    assert not trusts(inside, INSIDE, local, below=True), "an authority below"
