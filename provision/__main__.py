"""``python3 -m provision``: work on a phase, on the host it runs on, as root."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from provision import certificates, engine, secrets
from provision.engine import Difference
from provision.explain import explain
from provision.kernel.network import Network
from provision.marks import Mark, Places
from provision.phases import Registered, definition
from provision.resource import Phase
from provision.resources.file import owner_ids
from provision.supervisor import Supervisor
from provision.system import System
from underlay import durable
from underlay.ending import ending
from underlay.errors import Exit, InputError, NotReady, Problem
from underlay.phases import PHASES
from underlay.repository import REPOSITORY
from underlay.signals import usual_signals
from underlay.topology import Plan, Timeouts, load_plan
from underlay.wait import NotYet, until

_PLACES = Places()
_LOCK = Path("/run/underlay-provision.lock")

_EXAMPLES = """examples:
  python3 -m provision converge phase1    make this host as the plan says; again: "0 changes"
  python3 -m provision check phase1       what differs, without touching it
  python3 -m provision explain phase1     the same as a shell script to read
  python3 -m provision remove phase1      take away all that phase 1 made
exit codes: 0 good, 1 a check failed, 2 bad input, 3 this host is not in a state to answer,
            70 a fault of ours, with its traceback in a file"""


def main(arguments: Sequence[str]) -> int:
    """Run one verb and return its exit code."""
    usual_signals()
    options = _parser().parse_args(arguments)
    try:
        return _boot() if options.verb == "boot" else _answer(options)
    except KeyboardInterrupt as error:
        return ending(error, "the next converge or remove takes it from here")


def _answer(options: argparse.Namespace) -> int:
    """Run one verb on one phase; only a signal is not answered with an exit code."""
    try:
        return _run(options)
    except Exception as error:
        if isinstance(error, PermissionError) and os.geteuid() != 0:
            error = NotReady(Problem("", str(error), "provisioning works as root"))
        return ending(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m provision",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in (
        ("converge", "apply what differs"),
        ("check", "say what differs, touch nothing (exit 1 if anything does)"),
        ("remove", "take away all that carries the phase's mark"),
        ("explain", "print the phase as a shell script"),
        ("note", "write down the host's own settings that the phase changes (the script of explain begins with it)"),
    ):
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("phase", choices=PHASES)
        sub.add_argument("--plan", type=Path, help="the plan (default: the one this lab was brought up with)")
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        if verb == "explain":
            sub.add_argument("--under", metavar="REPLICA", help="what Docker has made for a container, as it is now")
        if verb == "check":
            sub.add_argument("--recorded", metavar="SHA256", help="the digest of the plan on record at the workstation")
        if verb == "converge":
            sub.add_argument("--no-wait", action="store_true", help="do not wait until the programs serve")
    verbs.add_parser("status", help="print what is on and what every program does, as one JSON object")
    verbs.add_parser("boot", help="converge the phases that were on (run at boot)")
    secret = verbs.add_parser("secret", help="write a role's password into a file that only its owner may read")
    secret.add_argument("role")
    secret.add_argument("path", type=Path)
    secret.add_argument("--owner", default="root")
    text = "write a certificate of the lab's, or the key of one, into a file"
    certificate = verbs.add_parser("certificate", help=text, description=text)
    certificate.add_argument("what", choices=[kind.value for kind in certificates.Kind])
    certificate.add_argument("name", help="the host's name that it is for")
    certificate.add_argument("path", type=Path)
    certificate.add_argument("--address", action="append", default=[], help="an address that it is for, too")
    certificate.add_argument("--owner", default="root")
    certificate.add_argument("--headline", required=True, help="the line that the file begins with")
    return parser


def _run(options: argparse.Namespace) -> int:
    match options.verb:
        case "secret":
            return _write(lambda: secrets.password(_PLACES.secret, options.role), options.path, options.owner)
        case "certificate":
            paper = certificates.Paper(certificates.Kind(options.what), options.name, tuple(options.address))
            return _write(
                lambda: f"{options.headline}\n{paper.text(_PLACES.secret, _plan(None).timeouts.command)}",
                options.path,
                options.owner,
                paper.kind.mode,
            )
        case "status":
            return _status()
    plan, host = _plan(options.plan), _host_name()
    if host not in {item.name for item in plan.hosts}:
        raise InputError(Problem(host, "the plan has no host of this name", "give this host's name in topology.yaml"))
    with _locked(plan.timeouts):
        network = Network(host)
        try:
            return _verb(options, plan, host, network)
        finally:
            network.close()


def _verb(options: argparse.Namespace, plan: Plan, host: str, network: Network) -> int:
    known = definition(options.phase)
    # What carries the mark goes, whether or not the host could hold the phase now.
    phase = Phase(known.mark, ()) if options.verb == "remove" else known.phase(plan, host, network)
    if options.verb == "explain" and options.under is None:
        print(explain(phase, host), end="")
        return int(Exit.GOOD)
    system = System(host, phase.mark, plan.timeouts, network, Supervisor(host, plan.timeouts.command))
    if options.verb == "explain":
        print(_under(options, plan, system), end="")
        return int(Exit.GOOD)
    if options.verb in {"converge", "note"}:
        _refuse_claimed(known, plan, host)
        _switch(phase.mark, on=True)
    if options.verb == "note":
        for resource in phase.resources:
            resource.note(system)
        return int(Exit.GOOD)
    report = _report(options.json)
    started = time.monotonic()
    match options.verb:
        case "converge":
            found = engine.converge(phase, system, report, known.kinds, wait=not options.no_wait)
            word = "changes"
        case "remove":
            found = engine.remove(phase, system, report, known.kinds)
            _switch(phase.mark, on=False)
            word = "removed"
        case _:
            found = (*_another_plan(options), *engine.check(phase, system, known.kinds))
            for difference in found:
                report(difference)
            word = "differences"
    seconds = time.monotonic() - started
    if options.json:
        items = [{"resource": item.identity, "what": item.what, "remedy": item.remedy} for item in found]
        print(json.dumps({"host": host, "phase": options.phase, "verb": options.verb, word: items, "seconds": seconds}))
    else:
        print(f"{host}: {options.phase}: {len(found)} {word} in {seconds:.2f} s")
    return int(Exit.CHECK_FAILED) if options.verb == "check" and found else int(Exit.GOOD)


def _under(options: argparse.Namespace, plan: Plan, system: System) -> str:
    from provision.phase2 import DEFINITION, seen, under

    if options.phase != DEFINITION.mark.phase:
        raise InputError(Problem("--under", f"{options.phase} has nothing under it", "explain phase2 --under REPLICA"))
    service, replica = seen.replica_of(plan, options.under)
    return under.script(seen.look(system, replica.name), seen.beside(plan, service, replica), system.host)


def _report(quiet: bool) -> engine.Report:
    def report(difference: Difference) -> None:
        if not quiet:
            print(f"  {difference}")
            if difference.remedy:
                print(f"    hint: {difference.remedy}")

    return report


def _plan(path: Path | None) -> Plan:
    recorded = _PLACES.plan
    plan = load_plan(path or (recorded if recorded.exists() else REPOSITORY / "topology.yaml"))
    return plan.patient(_patience())


def _another_plan(options: argparse.Namespace) -> tuple[Difference, ...]:
    """Return a difference if this host goes by another plan than the one that is on record."""
    if options.recorded in (None, _plan_digest()):
        return ()
    what = "it is another one than that on record: this host has not been told of a change"
    return (Difference(f"plan {_PLACES.plan}", what, f"make it so: ./lab converge {options.phase}"),)


def _plan_digest() -> str:
    """Return the SHA-256 of the plan that this host was told, as hexadecimal digits; "" if it was told none."""
    try:
        return hashlib.sha256(_PLACES.plan.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _patience() -> float:
    """Return how many times longer than the plan says things may take on this host."""
    try:
        return float(json.loads(_PLACES.identity.read_text()).get("patience", 1))
    except FileNotFoundError:
        return 1.0


def _host_name() -> str:
    return os.uname().nodename.partition(".")[0]


def _on() -> list[str]:
    """Name the phases that are on, in the order in which they are made."""
    return [name for name in PHASES if definition(name).mark.switch.exists()]


def _refuse_claimed(wanted: Registered, plan: Plan, host: str) -> None:
    """Raise NotReady if a phase that is on has something on this host that only one phase may have."""
    problems = []
    for name in _on():
        other = definition(name)
        if other.mark != wanted.mark:
            for claim in sorted(wanted.claims(plan, host) & other.claims(plan, host)):
                what = f"{wanted.mark.phase} wants {claim}, which is {name}'s"
                problems.append(Problem(host, what, f"change the plan, or: ./lab remove {name}"))
    if problems:
        raise NotReady(*problems)


def _status() -> int:
    """Say which phases are on, and what runs of each; a supervisor that does not answer is an error."""
    plan, host = _plan(None), _host_name()
    network = Network(host)
    supervisor = Supervisor(host, plan.timeouts.command)
    found: dict[str, dict[str, str]] = {}
    for name in _on():
        known = definition(name)
        system = System(host, known.mark, plan.timeouts, network, supervisor)
        asked = (kind.states(system) for kind in known.kinds if kind.states)
        found[name] = {replica: state for states in asked for replica, state in states.items()}
    network.close()
    print(json.dumps({"host": host, "plan": _plan_digest(), "phases": found}))
    return int(Exit.GOOD)


def _switch(mark: Mark, *, on: bool) -> None:
    """Note durably whether the phase is on, so that it comes back after a reboot."""
    flag = mark.switch
    if on:
        flag.parent.mkdir(parents=True, exist_ok=True)
        flag.touch()
    else:
        flag.unlink(missing_ok=True)
    if flag.parent.exists():
        durable.keep_names(flag.parent)


def _boot() -> int:
    parser = _parser()
    return max((_answer(parser.parse_args(("converge", name))) for name in _on()), default=int(Exit.GOOD))


def _write(text: Callable[[], str], path: Path, owner: str, mode: int = secrets.PASSWORD_MODE) -> int:
    try:
        ids = owner_ids(owner)
    except KeyError:
        hint = "name a user of this host; a phase makes one for each service"
        raise InputError(Problem("--owner", f"there is no user {owner}", hint)) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, text(), mode=mode, owner=ids)
    return int(Exit.GOOD)


@contextmanager
def _locked(timeouts: Timeouts) -> Iterator[None]:
    """Let one run at a time work on this host; a second one waits a little and then says who holds it."""
    # As long as another run takes as a rule: its commands, and then the wait until its programs serve.
    limit = timeouts.command + timeouts.ready
    with _LOCK.open("a+") as file:

        def held() -> bool | NotYet:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                return NotYet(f"process {file.read().strip() or '?'} is at work")
            return True

        until(held, deadline_s=limit, what="the end of another provisioning run", where=_host_name())
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
