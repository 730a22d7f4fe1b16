"""Encryption of what Ray's processes say among nodes (https://docs.ray.io/en/latest/ray-core/configure.html): each
cluster has an authority of its own, and each node makes its certificate at its start.

It does not know which nodes there are.
"""

import subprocess
from pathlib import Path

FOLDER = ".llmray-tls"
MOUNTED = f"$HOME/{FOLDER}"
AUTHORITY = ("ca.crt", "ca.key")
VARIABLES = (
    f"RAY_USE_TLS=1 RAY_TLS_CA_CERT={MOUNTED}/ca.crt"
    f" RAY_TLS_SERVER_CERT={MOUNTED}/node.crt RAY_TLS_SERVER_KEY={MOUNTED}/node.key"
)
NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
DAYS = 3650
CERTIFY = (
    f"cd {MOUNTED} && umask 077"
    " && (printf 'subjectAltName=DNS:localhost,IP:127.0.0.1'; printf ',IP:%s' $(hostname -I)) > names"
    f" && openssl req -new {NEW_KEY} -subj /CN=node -keyout node.key -out node.csr"
    f" && openssl x509 -req -in node.csr -CA ca.crt -CAkey ca.key -set_serial 0x$(openssl rand -hex 16) -days {DAYS}"
    " -extfile names -out node.crt"
)
"""What a node runs: Ray wants every address that a node is reached at in its certificate."""


def authority(folder: Path) -> dict[str, Path]:
    """Where the cluster's folder has the authority, by where a node has it; its key signs what may join."""
    return {f"~/{FOLDER}/{file}": folder / "tls" / file for file in AUTHORITY}


def make_authority(folder: Path, name: str) -> None:
    """Make it in the cluster's folder, unless it is there."""
    certificate, key = authority(folder).values()
    if certificate.exists():
        return
    certificate.parent.mkdir(mode=0o700, exist_ok=True)
    words = ["openssl", "req", "-x509", *NEW_KEY.split(), "-days", str(DAYS), "-subj", f"/CN=llmray-{name}"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
