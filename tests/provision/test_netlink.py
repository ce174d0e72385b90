"""What is sent to the kernel, read back; and what the kernel answers, read without one."""

from __future__ import annotations

import errno
import socket
import struct

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from provision.kernel import netlink
from underlay.errors import Exit

# linux/netlink.h: struct nlmsghdr is length, type, flags, sequence, port; struct nlattr is length, type.
_HEADER = struct.Struct("=IHHII")
_ACK_TLVS = 0x200


def decoded(kind: type[nlmsg], item: netlink.Request) -> nlmsg:
    message = kind(item.data)
    message.decode()
    return message


def attribute(number: int, value: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(value), number) + value
    return data + b"\0" * (-len(data) % 4)


def test_veth_pair_decodes_to_what_was_asked_for() -> None:
    peer: netlink.Value = {"index": 2, "attrs": [("IFLA_IFNAME", "eth0"), ("IFLA_MTU", 1400)]}
    kind: netlink.Value = {
        "attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]
    }
    item = netlink.request(
        "plug a-1 in",
        netlink.NEWLINK,
        netlink.CREATE | netlink.EXCLUSIVE,
        {"index": 77, "flags": 1, "change": 1},
        [
            ("IFLA_IFNAME", "v-a-1"),
            ("IFLA_GROUP", 8101),
            ("IFLA_ADDRESS", "02:4c:0a:4d:01:0a"),
            ("IFLA_LINKINFO", kind),
        ],
    )
    message = decoded(ifinfmsg, item)
    assert item.what == "plug a-1 in"
    assert len(item.data) == message["header"]["length"]
    assert len(item.data) % 4 == 0
    assert message["header"]["type"] == netlink.NEWLINK
    assert message["header"]["flags"] == netlink.REQUEST | netlink.ACK | netlink.CREATE | netlink.EXCLUSIVE
    assert (message["index"], message["flags"], message["change"]) == (77, 1, 1)
    assert message.get_attr("IFLA_IFNAME") == "v-a-1"
    assert message.get_attr("IFLA_GROUP") == 8101
    assert message.get_attr("IFLA_ADDRESS") == "02:4c:0a:4d:01:0a"
    assert message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"
    other = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert other["index"] == 2
    assert (other.get_attr("IFLA_IFNAME"), other.get_attr("IFLA_MTU")) == ("eth0", 1400)


def test_address_decodes_to_what_was_asked_for() -> None:
    item = netlink.request(
        "add an address",
        netlink.NEWADDR,
        netlink.CREATE | netlink.REPLACE,
        {"family": socket.AF_INET, "prefixlen": 24, "index": 3},
        [("IFA_LOCAL", "10.77.1.10"), ("IFA_ADDRESS", "10.77.1.10"), ("IFA_BROADCAST", "10.77.1.255")],
    )
    message = decoded(ifaddrmsg, item)
    assert message["header"]["type"] == netlink.NEWADDR
    assert (message["family"], message["prefixlen"], message["index"]) == (socket.AF_INET, 24, 3)
    assert message.get_attr("IFA_LOCAL") == "10.77.1.10"
    assert message.get_attr("IFA_BROADCAST") == "10.77.1.255"


def test_route_decodes_to_what_was_asked_for() -> None:
    fields = {"family": socket.AF_INET, "dst_len": 24, "table": 254, "proto": 201, "scope": 0, "type": 1}
    item = netlink.request(
        "route",
        netlink.NEWROUTE,
        netlink.CREATE,
        fields,
        [("RTA_GATEWAY", "192.168.56.12"), ("RTA_OIF", 9), ("RTA_DST", "10.77.3.0")],
    )
    message = decoded(rtmsg, item)
    assert {name: message[name] for name in fields} == fields
    assert message.get_attr("RTA_DST") == "10.77.3.0"
    assert message.get_attr("RTA_GATEWAY") == "192.168.56.12"
    assert message.get_attr("RTA_OIF") == 9


def test_request_without_attributes() -> None:
    message = decoded(ifinfmsg, netlink.request("delete", netlink.DELLINK, 0, {"index": 5}))
    assert message["header"]["type"] == netlink.DELLINK
    assert (message["index"], message["attrs"]) == (5, [])


def test_kernels_own_words_are_found_behind_the_other_attributes() -> None:
    refusal = struct.pack("=i", -errno.EEXIST) + _HEADER.pack(16, netlink.NEWLINK, 0, 1, 0)
    # NLMSGERR_ATTR_OFFS is 2, NLMSGERR_ATTR_MSG is 1.
    body = refusal + attribute(2, struct.pack("=I", 20)) + attribute(1, b"device is busy\0")
    assert netlink._reason(_ACK_TLVS, body) == "device is busy"
    assert netlink._reason(0, body) == "", "without the flag there are no attributes"
    assert netlink._reason(_ACK_TLVS, refusal) == ""
    assert netlink._reason(_ACK_TLVS, refusal + attribute(2, b"\1\0\0\0")) == ""


def test_attributes_of_any_length_are_walked_over() -> None:
    values = [b"", b"a", b"abc", b"abcd", b"abcde"]
    body = b"head" + b"".join(attribute(number, value) for number, value in enumerate(values))
    assert list(netlink.attributes(body, 4)) == list(enumerate(values))


def test_walk_ends_at_an_attribute_that_is_too_short() -> None:
    assert list(netlink.attributes(attribute(1, b"x") + b"\0" * 64, 0)) == [(1, b"x")]
    assert list(netlink.attributes(b"\x08\0", 0)) == []


def test_refusal_says_what_was_asked_and_why_not() -> None:
    error = netlink.KernelRefused("host1/a-1", "add address 10.0.0.1/24 to eth0", errno.EEXIST, "already there")
    assert error.errno == errno.EEXIST
    assert error.exit_code is Exit.NOT_READY
    said = "host1/a-1: the kernel refused to add address 10.0.0.1/24 to eth0: File exists (already there)"
    assert str(error).splitlines()[0] == said


def test_kernel_without_a_module_is_told_which() -> None:
    error = netlink.KernelRefused("host1", "make the tunnel x", errno.EOPNOTSUPP, "Unknown device type", "vxlan")
    assert error.problems[0].hint == "load the kernel module vxlan: modprobe vxlan"
    other = netlink.KernelRefused("host1", "make the tunnel x", errno.EEXIST, "", "vxlan")
    assert "modprobe" not in other.problems[0].hint
