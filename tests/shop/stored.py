"""A registry's directory as docker-registry leaves it, made of what a test says."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from underlay.shop.parts import Image

#: What a file of a layer is: its content, and its mode.
Files = Mapping[str, tuple[bytes, int]]
CREATED = "2025-10-09T08:53:20Z"


def configuration(image: Image) -> dict[str, object]:
    """What a good image says of itself."""
    labels = {f"org.opencontainers.image.{name}": name for name in ("title", "description", "version", "licenses")}
    said = {
        "User": f"{image.user}:{image.user}",
        "Env": ["PATH=/usr/bin", "DATABASE_PASSWORD_FILE=/run/secrets/x"],
        "Labels": labels,
        "Healthcheck": {"Test": ["CMD", "true"]},
    }
    return {"created": CREATED, "config": said}


@dataclass(frozen=True, slots=True)
class Filled:
    """A registry's directory that grows."""

    root: Path

    def add(self, repository: str, tag: str, said: Mapping[str, object], layers: Sequence[Files]) -> str:
        """Put an image in, and return its digest."""
        config = self._blob(json.dumps(said).encode())
        packed = [_layer(files) for files in layers]
        stored = [{"digest": self._blob(layer), "size": len(layer)} for layer in packed]
        digest = self._blob(json.dumps({"config": {"digest": config}, "layers": stored}).encode())
        place = self.root / "docker/registry/v2/repositories" / repository
        (place / "_uploads/unfinished").mkdir(parents=True, exist_ok=True)
        link = place / "_manifests/tags" / tag / "current/link"
        link.parent.mkdir(parents=True)
        link.write_text(digest)
        return digest

    def _blob(self, content: bytes) -> str:
        number = hashlib.sha256(content).hexdigest()
        path = self.root / "docker/registry/v2/blobs/sha256" / number[:2] / number / "data"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"sha256:{number}"


def _layer(files: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()
