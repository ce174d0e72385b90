"""The edge's configuration, rendered. ``python3 -m tests.services.test_edge`` writes the golden file anew."""

from __future__ import annotations

import string
from pathlib import Path

TEMPLATE = Path(__file__).parents[2] / "services" / "edge" / "nginx.conf.template"
GOLDEN = Path(__file__).parent / "golden" / "nginx.conf"


class AtTemplate(string.Template):
    """nginx's own variables begin with a dollar sign, so ours begin with an at sign."""

    delimiter = "@"


def render(**values: str) -> str:
    return AtTemplate(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def example() -> str:
    servers = [f"server 10.77.1.{host}:3000 max_fails=1 fail_timeout=2s;" for host in (20, 21)]
    return render(
        listen_address="10.77.1.10",
        port="80",
        upstream_servers="\n        ".join(servers),
        connect_timeout="2s",
        gateway_timeout="7s",
        customer_timeout="10s",
        run_dir="/run/shop/edge-1",
        replica="edge-1",
    )


def test_the_rendered_configuration_is_the_golden_file() -> None:
    assert example() == GOLDEN.read_text(encoding="utf-8")


def test_the_template_asks_for_what_its_head_says() -> None:
    names = set(AtTemplate(TEMPLATE.read_text(encoding="utf-8")).get_identifiers())
    times = {"connect_timeout", "gateway_timeout", "customer_timeout"}
    assert names == {"listen_address", "port", "upstream_servers", "run_dir", "replica"} | times


if __name__ == "__main__":
    GOLDEN.write_text(example(), encoding="utf-8")
