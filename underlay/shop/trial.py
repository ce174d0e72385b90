"""A trial of the images in the workshop: the whole shop started from them, confined as it will be, and asked.

All are in one network namespace that leads nowhere, so they reach each other at 127.0.0.1. An image whose program
misses a file, or writes where it may not, is found here and never leaves the workshop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from underlay.errors import NotReady, Problem
from underlay.shop import recipe
from underlay.shop.parts import IMAGES, Image
from underlay.shop.workshop import MATERIALS, Workshop
from underlay.wait import NotYet, until

_WHERE = "image shop, trial"
_FOLDER = "trial"
#: Where each container finds it.
_SETTINGS = "/etc/shop"
_ADDRESS = "127.0.0.1"
_PORTS = {"database": 5432, "cache": 6379, "product": 5001, "order": 5002, "gateway": 3000, "edge": 8080}
#: Not a secret: it opens a database that lives for a few seconds, in a network of its own.
_PASSWORD = "trial"  # noqa: S105
_ROLES = ("product", "order")
#: Seconds in which all must be well; two cores start eight programs.
_HEALTHY_S = 60.0
_SECONDS = 2
#: Characters of what a container said that a message shows.
_TAIL = 2000
#: A word of what `GET /api/products` answers: the first product of services/database/schema.sql.
_EXPECTED = "Laptop"
_EDGE = f"""\
daemon off;
pid /run/shop/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path /run/shop/body;
    proxy_temp_path /run/shop/proxy;
    fastcgi_temp_path /run/shop/fastcgi;
    uwsgi_temp_path /run/shop/uwsgi;
    scgi_temp_path /run/shop/scgi;
    server {{
        listen {_ADDRESS}:{_PORTS["edge"]};
        location = /health {{ return 200; }}
        location / {{ proxy_pass http://{_ADDRESS}:{_PORTS["gateway"]}; }}
    }}
}}
"""
#: What the container does that all others share their network with.
_FIRST = "database"


@dataclass(frozen=True, slots=True)
class Told:
    """What a container is told: its environment, and the words after the image's name."""

    environment: Mapping[str, str]
    words: tuple[str, ...] = ()


def lay_out(materials: Path, root: Path) -> None:
    """Put the files that the containers are given into the materials of a build."""
    folder = materials / _FOLDER
    folder.mkdir()
    (folder / "nginx.conf").write_text(_EDGE)
    (folder / "password").write_text(_PASSWORD)
    roles = [f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{_PASSWORD}';\n\\set {role}_role {role}" for role in _ROLES]
    schema = (root / "services/database/schema.sql").read_text()
    (folder / "database.sql").write_text("\n".join([*roles, schema]))
    (folder / "pg_hba.conf").write_text(f"local all postgres peer\nhost shop all {_ADDRESS}/32 scram-sha-256\n")


def run_shop(shop: Workshop, tag: str) -> None:
    """Start all images of that tag and ask the edge for the products; NotReady unless it answers as it should."""
    order = sorted(IMAGES, key=lambda image: list(_PORTS).index(image.name))
    for image in order:
        shop.run(argv(image, tag))
    for image in order:
        _await_health(shop, image)
    asked = f"printf 'GET /api/products HTTP/1.0\\r\\n\\r\\n' | nc.openbsd -w 5 {_ADDRESS} {_PORTS['edge']}"
    answer = shop.run(("docker", "exec", "edge", "/bin/sh", "-c", asked), check=False).stdout
    if _EXPECTED not in answer:
        what = f"the edge was asked for /api/products; expected {_EXPECTED!r} in the answer, seen: {answer!r}"
        raise NotReady(Problem(_WHERE, what, "the images start, but make no shop: do they belong to one another?"))
    shop.run(("docker", "rm", "--force", "--volumes", *(image.name for image in order)))


def argv(image: Image, tag: str) -> tuple[str, ...]:
    """Return the command that starts an image: without rights, with a root that nobody writes in."""
    told = _told(image.name)
    own = f"uid={image.user},gid={image.user},mode=700"
    environment = {"BIND_ADDRESS": _ADDRESS, "PORT": str(_PORTS[image.name]), **told.environment}
    network = "none" if image.name == _FIRST else f"container:{_FIRST}"
    return (
        *("docker", "run", "--detach", "--name", image.name, "--network", network, "--read-only"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "256m"),
        *("--tmpfs", f"/run/shop:{own}", "--volume", f"{MATERIALS}/{_FOLDER}:{_SETTINGS}:ro"),
        *(("--volume", "/var/lib/shop/postgresql") if image.name == "database" else ()),
        *(word for name, value in environment.items() for word in ("--env", f"{name}={value}")),
        recipe.reference(image.repository, tag),
        *told.words,
    )


def _told(name: str) -> Told:
    database = {
        "DATABASE_HOST": _ADDRESS,
        "DATABASE_PORT": str(_PORTS["database"]),
        "DATABASE_NAME": "shop",
        "DATABASE_USER": name,
        "DATABASE_PASSWORD_FILE": f"{_SETTINGS}/password",
        **{f"DATABASE_{kind}_TIMEOUT": str(_SECONDS) for kind in ("CONNECT", "WAIT", "STATEMENT")},
    }
    match name:
        case "gateway":
            urls = {f"{kind.upper()}_URL": f"http://{_ADDRESS}:{_PORTS[kind]}" for kind in ("product", "order")}
            return Told(urls | {f"UPSTREAM_{kind}_TIMEOUT": str(_SECONDS) for kind in ("CONNECT", "READ", "TOTAL")})
        case "product":
            return Told(database | {"REDIS_HOST": _ADDRESS, "REDIS_PORT": str(_PORTS["cache"])})
        case "order":
            return Told(database)
        case "cache":
            words = ("--bind", _ADDRESS, "--port", str(_PORTS["cache"]), "--save", "", "--dir", "/run/shop")
            return Told({}, ("redis-server", *words))
        case "database":
            options = {
                "listen_addresses": _ADDRESS,
                "hba_file": f"{_SETTINGS}/pg_hba.conf",
            }
            return Told({"DATABASE_NAME": "shop", "DATABASE_SCRIPT": f"{_SETTINGS}/database.sql"}, _settings(options))
        case _:
            return Told({})


def _settings(options: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(word for key, value in options.items() for word in ("-c", f"{key}={value}"))


def _await_health(shop: Workshop, image: Image) -> None:
    def probe() -> NotYet | str:
        state = json.loads(shop.run(("docker", "inspect", "--format", "{{json .State}}", image.name)).stdout)
        if state["Status"] != "running":
            return f"it ended with exit code {state['ExitCode']}"
        health = state["Health"]
        if health["Status"] == "healthy":
            return ""
        return NotYet(" ".join((health["Status"], *(entry["Output"].strip() for entry in (health["Log"] or [])[-1:]))))

    try:
        ended = until(probe, deadline_s=_HEALTHY_S, what="its health", where=f"{_WHERE}, {image.name}", interval=0.2)
    except NotReady as error:
        raise NotReady(*error.problems, _own_words(shop, image, "it is not well")) from error
    if ended:
        raise NotReady(_own_words(shop, image, ended))


def _own_words(shop: Workshop, image: Image, what: str) -> Problem:
    done = shop.run(("docker", "logs", "--tail", "20", image.name), check=False)
    return Problem(f"{_WHERE}, {image.name}", what, f"it said: {(done.stdout + done.stderr).strip()[-_TAIL:]}")
