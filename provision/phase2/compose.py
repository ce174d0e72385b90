"""The project's file for Docker Compose, as a person would be glad to have written it. Pure.

https://docs.docker.com/reference/compose-file/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from provision.marks import Mark
from provision.resources.docker.container import RESTART, Confined
from provision.resources.docker.network import DockerNetwork, Volume

#: The only place in which a container writes, in memory.
ROOM = "/run/shop"
#: What Docker keeps of what a container says: files of this size, so many.
LOG_SIZE, LOG_FILES = "1m", "2"


def render(
    mark: Mark,
    project: str,
    containers: Sequence[tuple[Confined, str]],
    networks: Sequence[DockerNetwork],
    volumes: Sequence[Volume],
    secrets: Mapping[str, Path],
    *,
    ordered: bool = True,
) -> str:
    """Return the file; with each container comes the digest of what it reads. Unless ``ordered``, nobody waits."""
    lines = [
        f"# {mark.text}",
        "# The shop in containers. Everything in here follows from the plan; a change is undone by the next converge.",
        f"#   docker compose --file {mark.settings / 'compose.yaml'} ps",
        f"name: {project}",
        "",
        "# What all of them have in common: no rights, a root that nobody writes in, and an end to what they may use.",
        "x-confined: &confined",
        "  # Not unless-stopped: a daemon that was killed stops, when it is back, what still runs, and leaves it so.",
        f"  restart: {RESTART}",
        "  read_only: true",
        "  cap_drop: [ALL]",
        "  security_opt: ['no-new-privileges:true']",
        "  # A core dump would have the passwords.",
        "  ulimits: {core: 0}",
        f"  logging: {{driver: json-file, options: {{max-size: {LOG_SIZE}, max-file: '{LOG_FILES}'}}}}",
        "",
        "services:",
    ]
    for spec, inputs in containers:
        lines += [f"  {line}" if line else "" for line in _service(mark, spec, inputs, ordered=ordered)]
    lines += ["networks:", *(line for network in networks for line in _network(mark, network))]
    if volumes:
        lines += ["", "volumes:", *(line for volume in volumes for line in _volume(mark, volume))]
    if secrets:
        lines += ["", "secrets:"]
        lines += [f"  {_key(name)}: {{file: {path}}}" for name, path in secrets.items()]
    return "\n".join([*lines, ""])


def _service(mark: Mark, spec: Confined, inputs: str, *, ordered: bool) -> Iterator[str]:
    yield f"{_key(spec.name)}:"
    yield "  <<: *confined"
    yield f"  image: {spec.image}"
    yield f"  container_name: {_key(spec.name)}"
    yield f"  hostname: {_key(spec.name)}"
    if spec.command:
        yield "  command:"
        yield from (f"    - {_word(word)}" for word in spec.command)
    yield "  environment:"
    yield from (f"    {name}: {_word(value)}" for name, value in spec.environment)
    yield "  networks:"
    for item in spec.memberships:
        yield f"    {_key(item.network)}:"
        yield f"      ipv4_address: {item.address}"
        if item.aliases:
            yield f"      aliases: [{', '.join(map(_key, item.aliases))}]"
    if spec.ports:
        yield f"  ports: [{', '.join(_word(f'{outer}:{inner}') for outer, inner in spec.ports)}]"
    yield f"  cpus: {spec.cpus:g}"
    yield f"  mem_limit: {spec.memory}m"
    yield f"  memswap_limit: {spec.memory}m"
    yield f"  pids_limit: {spec.pids}"
    pace = spec.pace
    yield "  healthcheck:"
    yield f"    start_interval: {_seconds(pace.first)}"
    yield f"    start_period: {_seconds(pace.starting)}"
    yield f"    interval: {_seconds(pace.then)}"
    yield f"    timeout: {_seconds(pace.then)}"
    yield f"    retries: {pace.retries}"
    yield f"  tmpfs: [{_word(f'{ROOM}:{spec.room}')}]"
    if spec.mounts:
        yield "  volumes:"
        yield from (f"    - {item.source}:{item.target}{'' if item.volume else ':ro'}" for item in spec.mounts)
    if spec.secrets:
        yield "  secrets:"
        yield from (f"    - {{source: {_key(source)}, target: {_key(inside)}}}" for source, inside in spec.secrets)
    if spec.after and ordered:
        yield "  depends_on:"
        yield from (f"    {_key(name)}: {{condition: service_healthy}}" for name in spec.after)
    key, value = mark.label
    yield f"  labels: {{{key}: {value}, underlay.inputs: {_word(inputs)}}}"
    yield ""


def _network(mark: Mark, network: DockerNetwork) -> Iterator[str]:
    key, value = mark.label
    yield f"  {_key(network.key)}:"
    if network.internal:
        yield "    internal: true"
    yield f"    ipam: {{config: [{{subnet: {network.subnet}, gateway: {network.gateway.ip}}}]}}"
    yield "    driver_opts:"
    yield from (f"      {name}: {_word(option)}" for name, option in network.options.items())
    yield f"    labels: {{{key}: {value}}}"


def _volume(mark: Mark, volume: Volume) -> Iterator[str]:
    key, value = mark.label
    yield f"  {_key(volume.key)}:"
    yield f"    labels: {{{key}: {value}}}"


def _seconds(seconds: float) -> str:
    """Return a time as Compose reads it, which knows no fractions of a second."""
    return f"{seconds:g}s" if seconds == int(seconds) else f"{max(1, round(seconds * 1000))}ms"


def _key(name: str) -> str:
    """Return a name as YAML has it: bare, unless that is no text to it (`on`, `null`, `true`)."""
    return name if isinstance(yaml.safe_load(name), str) else _word(name)


def _word(text: str) -> str:
    """Return a text as YAML has it. What Compose would take for a variable of its own is doubled."""
    return json.dumps(text.replace("$", "$$"), ensure_ascii=False)
