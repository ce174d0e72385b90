from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from underlay.hosts.namespace.state import store
from underlay.repository import REPOSITORY
from underlay.shop import trial, workshop
from underlay.shop.parts import IMAGES, Image
from underlay.topology import render_plan


def test_each_cache_has_a_workshop_of_its_own(tmp_path: Path) -> None:
    one, other = workshop.lab_name(tmp_path / "one"), workshop.lab_name(tmp_path / "other")
    assert one != other
    assert one == workshop.lab_name(tmp_path / "one")
    assert store(one).lab == one  # it is a lab's name


def test_its_plan_can_be_put_on_record() -> None:
    plan = workshop.plan("shop-build-0")
    assert "shop-build-0" in render_plan(plan)
    assert [host.name for host in plan.hosts] == ["workshop"]


def test_its_programs_reach_nobody_else() -> None:
    docker = json.loads(workshop.docker_settings())
    assert (docker["bridge"], docker["iptables"]) == ("none", False)
    assert docker["features"]["containerd-snapshotter"] is True
    registry = yaml.safe_load(workshop.registry_settings())
    assert registry["http"]["addr"] == "127.0.0.1:5000"


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_is_tried_as_it_will_run(image: Image) -> None:
    argv = trial.argv(image, "t")
    assert {"--read-only", "--cap-drop", "no-new-privileges"} <= set(argv)
    assert "--user" not in argv  # the image's own
    network = argv[argv.index("--network") + 1]
    assert network == ("none" if image.name == "database" else "container:database")
    assert f"localhost:5000/{image.repository}:t" in argv


def test_the_trial_has_its_files(tmp_path: Path) -> None:
    trial.lay_out(tmp_path, REPOSITORY)
    names = {path.name for path in (tmp_path / "trial").iterdir()}
    assert names == {"nginx.conf", "password", "database.sql", "pg_hba.conf"}
    assert "\\set order_role order" in (tmp_path / "trial/database.sql").read_text()
