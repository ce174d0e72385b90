"""The plan: read from one YAML file, checked as a whole, and kept as immutable values.

>>> from pathlib import Path
>>> plan = load_plan(Path("topology.yaml"))
>>> plan.service("gateway").replicas[0].link
'v-gateway-1'
"""

from underlay.topology.compare import differences, needing_a_start
from underlay.topology.derive import dns_names, flow_pairs
from underlay.topology.docker import Attachment, Containers, in_containers
from underlay.topology.load import load_plan, parse_plan
from underlay.topology.model import (
    Flow,
    Host,
    Plan,
    Pools,
    Program,
    Published,
    Replica,
    Service,
    Tier,
    Timeouts,
    Tunnel,
    Underlay,
)
from underlay.topology.render import Json, plan_as_json, render_plan
from underlay.topology.tunnel import Stretched, across

__all__ = [
    "Attachment",
    "Containers",
    "Flow",
    "Host",
    "Json",
    "Plan",
    "Pools",
    "Program",
    "Published",
    "Replica",
    "Service",
    "Stretched",
    "Tier",
    "Timeouts",
    "Tunnel",
    "Underlay",
    "across",
    "differences",
    "dns_names",
    "flow_pairs",
    "in_containers",
    "load_plan",
    "needing_a_start",
    "parse_plan",
    "plan_as_json",
    "render_plan",
]
