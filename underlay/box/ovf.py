"""The description of a VirtualBox machine that Vagrant imports (DMTF DSP0243, Open Virtualization Format 1.0)."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

_NAMESPACES = {
    "": "http://schemas.dmtf.org/ovf/envelope/1",
    "ovf": "http://schemas.dmtf.org/ovf/envelope/1",
    "rasd": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData",
    "vssd": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData",
    "vbox": "http://www.virtualbox.org/ovf/machine",
}
_STREAM_OPTIMIZED = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
#: "Debian 64-Bit" in CIM_OperatingSystem.OSType, and what VirtualBox calls it.
_CIM_DEBIAN_64 = "96"
_VBOX_DEBIAN_64 = "Debian_64"

_CPUS = 1
_MEMORY_MIB = 1024
#: The disk's name within the description.
_DISK = "vmdisk1"


@dataclass(frozen=True, slots=True)
class _Item:
    """One piece of hardware. ``kind`` is CIM's ResourceType; the rest is what that kind wants said, in CIM's words."""

    kind: int
    name: str
    more: tuple[tuple[str, str], ...]


def ovf_text(*, name: str, disk: str, disk_bytes: int) -> str:
    """Return the description of a machine with one disk: a file beside it, its size that of the disk in it.

    Vagrant and the plan set memory and processors. The network card must be a virtio one: Debian's cloud kernel has no
    driver for the Intel card that VirtualBox would choose. VirtualBox wants the SATA controller's caption to begin so.
    """
    items = (
        _Item(3, f"{_CPUS} virtual CPU", (("VirtualQuantity", str(_CPUS)),)),
        _Item(4, "memory", (("AllocationUnits", "MegaBytes"), ("VirtualQuantity", str(_MEMORY_MIB)))),
        _Item(20, "sataController0", (("Address", "0"), ("ResourceSubType", "AHCI"))),
        _Item(17, "disk0", (("AddressOnParent", "0"), ("HostResource", f"/disk/{_DISK}"), ("Parent", "3"))),
        _Item(
            10, "Ethernet adapter on 'NAT'",
            (("AutomaticAllocation", "true"), ("Connection", "NAT"), ("ResourceSubType", "VirtioNet")),
        ),
    )  # fmt: skip
    root = ET.Element("Envelope", {f"xmlns{':' if key else ''}{key}": uri for key, uri in _NAMESPACES.items()})
    root.set("ovf:version", "1.0")
    ET.SubElement(ET.SubElement(root, "References"), "File", {"ovf:href": disk, "ovf:id": "file1"})
    capacity = {"ovf:capacity": str(disk_bytes), "ovf:diskId": _DISK, "ovf:fileRef": "file1"}
    disks = _described(root, "DiskSection", "Disks of the machine")
    ET.SubElement(disks, "Disk", {**capacity, "ovf:format": _STREAM_OPTIMIZED})
    networks = _described(root, "NetworkSection", "Networks of the machine")
    ET.SubElement(ET.SubElement(networks, "Network", {"ovf:name": "NAT"}), "Description").text = "Vagrant's way in"
    system = _described(root, "VirtualSystem", "A host of the lab", {"ovf:id": name})
    kind = _described(system, "OperatingSystemSection", "The installed system", {"ovf:id": _CIM_DEBIAN_64})
    ET.SubElement(kind, "Description").text = _VBOX_DEBIAN_64
    ET.SubElement(kind, "vbox:OSType", {"ovf:required": "false"}).text = _VBOX_DEBIAN_64
    hardware = _described(system, "VirtualHardwareSection", "What the machine is made of")
    family = ET.SubElement(hardware, "System")
    _texts(family, "vssd", {
        "ElementName": "Virtual Hardware Family", "InstanceID": "0",
        "VirtualSystemIdentifier": name, "VirtualSystemType": "virtualbox-2.2",
    })  # fmt: skip
    for number, item in enumerate(items, start=1):
        words = {"Caption": item.name, "Description": item.name, "ElementName": item.name, "InstanceID": str(number)}
        # The elements stand in the order of their names (DSP0243, annex on resource allocation).
        words |= {"ResourceType": str(item.kind), **dict(item.more)}
        _texts(ET.SubElement(hardware, "Item"), "rasd", dict(sorted(words.items())))
    ET.indent(root)
    return f'<?xml version="1.0"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _described(parent: ET.Element, tag: str, info: str, attributes: dict[str, str] | None = None) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes or {})
    ET.SubElement(element, "Info").text = info
    return element


def _texts(parent: ET.Element, prefix: str, texts: dict[str, str]) -> None:
    for tag, text in texts.items():
        ET.SubElement(parent, f"{prefix}:{tag}").text = text
