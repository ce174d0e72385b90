"""Whether KVM works here, found out by booting a kernel with it. Needs nothing but Python: the Vagrantfile asks it.

That /dev/kvm exists says little: where this machine is itself a guest, it may be there and fail at a
kernel's first steps.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from underlay import durable, process
from underlay.hosts.namespace.processes import boot_id

#: Decides instead of a trial: ``kvm`` or ``qemu``.
VARIABLE = "UNDERLAY_DRIVER"
KVM, EMULATION = "kvm", "qemu"
#: Seconds for the trial. With KVM a kernel finds that it has no root filesystem within one.
_TRIAL_S = 10.0
#: What a kernel says last when it was given no root filesystem: by then paging, interrupts and drivers have worked.
_PROOF = "Unable to mount root fs"
_DEVICE = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class Answer:
    """``driver`` is libvirt's word, kvm or qemu; ``why`` is a sentence for people; ``sure``: it was tried."""

    driver: str
    why: str
    sure: bool = True


def answer(kernels: Iterable[Path], memory: Path) -> Answer:
    """Return what to run guests with. A trial's result is kept in ``memory`` until this machine boots again."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen in (KVM, EMULATION):
        return Answer(chosen, f"${VARIABLE} says so")
    if not _DEVICE.exists():
        return Answer(EMULATION, f"this machine has no {_DEVICE}")
    program = shutil.which(f"qemu-system-{platform.machine()}")
    kernel = next((path for path in kernels if os.access(path, os.R_OK)), None)
    if program is None or not os.access(_DEVICE, os.R_OK | os.W_OK):
        reason = "QEMU is not installed" if program is None else f"only others may use {_DEVICE}"
        return Answer(KVM, f"it could not be tried ({reason}); libvirt will say if it does not work", sure=False)
    if kernel is None:
        return Answer(EMULATION, "KVM could not be tried: there is no kernel to boot yet", sure=False)
    known = recall(memory)
    if known is None:
        known = judge(_try(program, kernel))
        _remember(memory, known)
    return known


def judge(said: str) -> Answer:
    """Return what a trial's output means."""
    if _PROOF in said:
        return Answer(KVM, "a kernel was booted with KVM")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = next((line for line in lines if "KVM" in line or "kvm" in line), lines[-1] if lines else "nothing")
    return Answer(EMULATION, f"a kernel did not boot with KVM; it said: {last[:120]}")


def recall(memory: Path) -> Answer | None:
    """Return what was found out since this machine booted, or None."""
    try:
        data = json.loads(memory.read_text())
        return Answer(**data["answer"]) if data["boot"] == boot_id() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it costs one trial


def _remember(memory: Path, found: Answer) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(memory, json.dumps({"boot": boot_id(), "answer": asdict(found)}))
    except OSError:
        return  # it costs one trial more


def _try(program: str, kernel: Path) -> str:
    command = (
        *(program, "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"),
    )
    try:
        done = process.run(command, timeout=_TRIAL_S, check=False, where="KVM")
    except process.ProgramTimedOut as error:
        return error.problems[0].hint.removeprefix("it said: ")  # the end of its output
    return done.stdout + done.stderr
