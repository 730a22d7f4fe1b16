"""Encryption of what Ray's processes say among nodes (https://docs.ray.io/en/latest/ray-core/configure.html): each
cluster has an authority of its own, and each node makes its certificate at its start.

It does not know which nodes there are.
"""

import subprocess
from pathlib import Path

FOLDER = ".llmray-tls"
MOUNTED = f"$HOME/{FOLDER}"
AUTHORITY = ("ca.crt", "ca.key")
NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
DAYS = 3650


def variables(folder: str) -> dict[str, str]:
    """What Ray's processes find in their environment where the node has its certificate in `folder`."""
    files = {"CA_CERT": "ca.crt", "SERVER_CERT": "node.crt", "SERVER_KEY": "node.key"}
    return {"RAY_USE_TLS": "1", **{f"RAY_TLS_{name}": f"{folder}/{file}" for name, file in files.items()}}


def certify(folder: str, names: str = "") -> str:
    """What a node runs in `folder`, where the authority is; `names`: a command that prints more names, each after a
    comma.  Ray wants every address that a node is reached at in its certificate.
    """
    more = f"; {names}" if names else ""
    return (
        f"cd {folder} && umask 077"
        f" && (printf 'subjectAltName=DNS:localhost,IP:127.0.0.1'; printf ',IP:%s' $(hostname -I){more}) > names"
        f" && openssl req -new {NEW_KEY} -subj /CN=node -keyout node.key -out node.csr"
        " && openssl x509 -req -in node.csr -CA ca.crt -CAkey ca.key -set_serial 0x$(openssl rand -hex 16)"
        f" -days {DAYS} -extfile names -out node.crt"
    )


def authority(folder: Path) -> dict[str, Path]:
    """Where the cluster's folder has the authority, by where a node has it; its key signs what may join."""
    return {f"~/{FOLDER}/{file}": folder / "tls" / file for file in AUTHORITY}


def new_authority(name: str, certificate: str, key: str) -> list[str]:
    """The command that makes one."""
    made = ["openssl", "req", "-x509", *NEW_KEY.split(), "-days", str(DAYS), "-subj", f"/CN=llmray-{name}"]
    return [*made, "-keyout", key, "-out", certificate]


def make_authority(folder: Path, name: str) -> None:
    """Make it in the cluster's folder, unless it is there."""
    certificate, key = authority(folder).values()
    if certificate.exists():
        return
    certificate.parent.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(new_authority(name, str(certificate), str(key)), check=True, capture_output=True)
