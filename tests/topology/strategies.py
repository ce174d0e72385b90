"""Plans at random: valid ones as the text of a plan, and ways to break such a text."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import yaml
from hypothesis import strategies as st

from underlay.topology.draft import LEAST_MTU

_WORDS = st.one_of(
    st.from_regex(r"[a-z][a-z0-9-]{0,29}[a-z]", fullmatch=True),
    st.sampled_from(["a", "on", "no", "null", "true", "e", "yes", "nan", "service-with-a-long-name-of-31c"]),
)
#: Program, and the programs it must reach; the order is that in which services are made.
_REACHES = {
    "postgres": (),
    "redis": (),
    "product": ("postgres",),
    "order": ("postgres",),
    "gateway": ("product", "order"),
    "nginx": ("gateway",),
}


@dataclass
class _Ranges:
    """Gives out subnets that do not overlap, from 10.0.0.0/8."""

    free: int = int(IPv4Address("10.0.0.0"))

    def take(self, prefix: int) -> IPv4Network:
        size = 2 ** (32 - prefix)
        start = -(-self.free // size) * size
        self.free = start + size
        return IPv4Network((start, prefix))


@st.composite
def plan_texts(draw: st.DrawFn) -> str:
    """The text of a valid plan."""
    ranges = _Ranges()
    wire = ranges.take(draw(st.integers(20, 28)))
    hosts = draw(st.lists(st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True), min_size=2, max_size=4, unique=True))
    hosts = [host for host in hosts if host != "localhost"]
    numbers = draw(st.permutations(range(1, 14)))
    tiers = draw(st.lists(_WORDS, min_size=1, max_size=5, unique=True))
    carrier = {tier: draw(st.sampled_from(hosts)) for tier in tiers}
    names = draw(st.lists(_WORDS.filter(lambda word: word not in hosts), min_size=6, max_size=10, unique=True))
    services: dict[str, dict[str, object]] = {}
    flows: list[str] = []
    used = dict.fromkeys(tiers, 2)
    programs = [*_REACHES, *draw(st.lists(st.sampled_from(list(_REACHES)), min_size=4, max_size=4))]
    for name, program in zip(names, programs, strict=False):
        tier = draw(st.sampled_from(tiers))
        single = program in {"postgres", "redis"}
        replicas = 1 if single else draw(st.integers(1, 5))
        service: dict[str, object] = {"tier": tier, "host": carrier[tier], "program": program}
        service["port"] = draw(st.integers(1, 65535))
        if replicas > 1 or draw(st.booleans()):
            service["replicas"] = replicas
        if draw(st.booleans()):
            service["first"] = used[tier] + draw(st.integers(0, 3))
            used[tier] = int(str(service["first"])) + replicas
        else:
            used[tier] = max(used[tier], 10) + replicas
        if draw(st.booleans()):
            service["egress"] = draw(st.booleans())
        for needed in _REACHES[program]:
            targets = [other for other, settings in services.items() if settings["program"] == needed]
            flows += [f"{name} -> {target}" for target in draw(st.sets(st.sampled_from(targets), min_size=1))]
        services[name] = service
    public = [name for name, service in services.items() if service["program"] in {"nginx", "gateway"}]
    ports = draw(st.lists(st.integers(8000, 8999), max_size=3, unique=True))
    wanted = [(port, draw(st.sampled_from(public))) for port in ports]
    seconds = st.one_of(st.integers(1, 3600), st.floats(0.01, 86400).map(lambda value: round(value, 3)))
    tunnel = {
        "vni": draw(st.integers(1, 2**24 - 1)),
        "port": draw(st.sampled_from((4789, 8472, 1, 65535))),
        "subnet": str(ranges.take(draw(st.integers(16, 25)))),
    }
    plan = {
        "lab": draw(st.from_regex(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?", fullmatch=True)),
        "domain": draw(st.sampled_from(["shop.internal", "lab", "a-1.example", "x.y.z.test", "on", "1.e3"])),
        "hosts": {
            host: {"address": str(wire[number]), "cpus": draw(st.integers(1, 64))}
            for host, number in zip(hosts, numbers[1:], strict=False)
        },
        "underlay": {"subnet": str(wire), "gateway": str(wire[numbers[0]]), "mtu": draw(st.integers(LEAST_MTU, 9000))},
        "pools": {name: str(ranges.take(draw(st.integers(16, 20)))) for name in ("docker", "swarm")},
        "tiers": {tier: {"subnet": str(ranges.take(draw(st.integers(14, 24))))} for tier in tiers},
        "services": services,
        "flows": flows,
        "publish": [{"host": services[name]["host"], "port": port, "service": name} for port, name in wanted],
        "tunnel": tunnel,
        "timeouts": {name: draw(seconds) for name in ("connect", "command", "ready", "cache")},
    }
    return yaml.safe_dump(plan, sort_keys=draw(st.booleans()), default_flow_style=draw(st.sampled_from([None, False])))


_ODD = (
    "[] {} ~ yes on 010 0x1f 1_0 22:22 .inf .nan 1e999 '' \"\\UFFFFFFFF\" &a *a !!int !!map !!bool <<: = - ? : | > % @ "
    "2026-01-01 !!binary 10.77.1.0/24 10.77.1.1 10.0.0.0/8 0.0.0.0/0 a->b -> %YAML --- ... !<x> {<<:1} [*a]"
)
_SCALARS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8),
    st.sampled_from([*_ODD.split(), "9" * 100]),
)


@st.composite
def broken(draw: st.DrawFn, text: str) -> str:
    """The text with a few things in it changed at random."""
    for _ in range(draw(st.integers(1, 4))):
        lines = text.splitlines() or [""]
        at = draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        match draw(st.sampled_from(["delete", "double", "move", "value", "word", "insert", "indent", "truncate"])):
            case "delete":
                del lines[at]
            case "double":
                lines.insert(draw(st.integers(0, len(lines))), line)
            case "move":
                lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
            case "value":
                lines[at] = f"{line.partition(':')[0]}: {draw(_SCALARS)}"
            case "word":
                words = line.split(" ")
                words[draw(st.integers(0, len(words) - 1))] = draw(_SCALARS)
                lines[at] = " ".join(words)
            case "insert":
                column = draw(st.integers(0, len(line)))
                lines[at] = line[:column] + draw(st.text(min_size=1, max_size=4)) + line[column:]
            case "indent":
                lines[at] = " " * draw(st.integers(0, 6)) + line.lstrip()
            case "truncate":
                lines = "\n".join(lines)[: draw(st.integers(0, len(text)))].splitlines()
        text = "\n".join(lines) + "\n"
    return text
