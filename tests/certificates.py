"""Certificates of an authority that lives for a test session, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificates(folder: Path) -> None:
    """Write an authority (ca.pem), a server's certificate (server.*) and a client's (client.*).

    Both are for 127.0.0.1 and no name.
    """

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem"),
        *("-days", "2", "-subj", "/CN=authz test authority"),
    )
    for name in ("server", "client"):
        openssl(
            "req", *new_key, "-keyout", f"{name}.key", "-out", "request", "-subj", f"/CN={name}"
        )
        (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl(
            *("x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", f"{name}.pem"),
        )
