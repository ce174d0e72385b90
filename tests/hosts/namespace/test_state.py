from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from underlay.errors import InputError, NotReady
from underlay.hosts.namespace.cgroups import lab_group
from underlay.hosts.namespace.processes import Process
from underlay.hosts.namespace.state import (
    DIRECTORY_VARIABLE,
    RUN_VARIABLE,
    HostState,
    LabState,
    Store,
    from_json,
    state_directory,
    store,
    stored_labs,
    to_json,
)
from underlay.hosts.vagrant import places

ROOT = Path(__file__).parents[3]
STATE = LabState(
    lab="shop",
    plan_text="lab: shop\n# ünïcode\n",
    image="/images/a b",
    repository="/home/me/underlay",
    wire="abc",
    cgroups=("/sys/fs/cgroup/underlay-shop",),
    hosts=(HostState("host1", "d1", Process(4711, 123456789, "boot")), HostState("host2", "d2")),
)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    return store("shop")


def test_a_record_reads_back_as_it_was_written() -> None:
    assert from_json(to_json(STATE), "here") == STATE


def test_the_process_of_one_host_can_be_replaced() -> None:
    first = Process(1, 2, "boot")
    changed = STATE.with_process("host2", first).with_process("host1", None)
    assert [host.process for host in changed.hosts] == [None, first]
    assert changed.host("host3") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', to_json(STATE).replace("4711", '"x"')])
def test_a_broken_record_is_named(text: str) -> None:
    with pytest.raises(NotReady, match=r"^state\.json: .*cannot be read"):
        from_json(text, "state.json")


def test_a_record_of_another_version_is_named() -> None:
    with pytest.raises(NotReady, match="has schema 99, this version of Underlay knows 1"):
        from_json(to_json(STATE).replace('"schema": 1', '"schema": 99'), "state.json")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "A", "1a", "-a", "a b", "a" * 64, "a\n"])
def test_only_a_name_becomes_part_of_a_path(name: str) -> None:
    with pytest.raises(InputError, match="is no name of a lab"):
        store(name)


def test_the_directory_comes_from_the_environment(shop: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shop.directory == tmp_path / "labs/shop"
    monkeypatch.delenv(DIRECTORY_VARIABLE)
    assert state_directory() == Path("/var/lib/underlay")


def test_what_the_kernel_names_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path / "aside"))
    assert (store("shop").pin, places.pin()) == (tmp_path / "aside/shop/net", tmp_path / "aside-vm/net")
    assert lab_group("shop") == "aside-shop"
    monkeypatch.delenv(RUN_VARIABLE)
    assert (store("shop").pin, places.pin()) == (Path("/run/underlay/shop/net"), Path("/run/underlay-vm/net"))
    assert lab_group("shop") == "underlay-shop"


def test_a_record_is_kept_and_the_lab_is_listed(shop: Store) -> None:
    assert (shop.read(), shop.exists(), stored_labs()) == (None, False, ())
    with shop.locked():
        shop.write(STATE)
    assert (shop.read(), shop.exists(), stored_labs()) == (STATE, True, ("shop",))


def test_a_lock_without_a_record_leaves_nothing(shop: Store, tmp_path: Path) -> None:
    with shop.locked():
        assert shop.exists()
    assert list(tmp_path.iterdir()) == []


def test_the_secret_is_made_once_and_only_root_may_read_it(shop: Store) -> None:
    with shop.locked():
        shop.make_secret()
        secret = shop.secret()
        shop.make_secret()
        assert shop.secret() == secret
        assert len(bytes.fromhex(secret)) == 32
        assert (shop.directory / "secret").stat().st_mode & 0o777 == 0o600


def test_a_second_holder_is_told_who_holds_the_lab(shop: Store) -> None:
    expected = pytest.raises(NotReady, match=f"lab shop: .*process {os.getpid()} is changing it")
    with shop.locked(), expected, shop.locked(wait_s=0):
        pass
    with shop.locked(wait_s=0):
        pass


def test_the_lock_ends_with_its_holder(shop: Store) -> None:
    lock = "with store('shop').locked():\n  print('got', flush=True)\n  input()"
    code = f"from underlay.hosts.namespace.state import store\n{lock}"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"got\n"
        with pytest.raises(NotReady, match=f"process {holder.pid} is changing it"), shop.locked(wait_s=0):
            pass
        holder.kill()
        holder.wait()
        with shop.locked():
            pass
