"""What several tests of providers need."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def signed_by_nobody(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that no authority knows, and its key."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(["openssl", "req", "-x509", *made, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl here to make a certificate with")
    return certificate, key
