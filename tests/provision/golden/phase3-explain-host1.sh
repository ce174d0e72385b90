#!/bin/sh
# Made by Underlay, phase3.
# phase3 on host1, one command at a time. Run it as root, in /vagrant, on a host without it.
# To take it away again: python3 -m provision remove phase3
set -eu

# Write down how the host's own settings are now, so that they can be put back.
python3 -m provision note phase3


# 1. The guard, before there is a wire
#
# One tier on two hosts, and the same rules on both: a frame passes one host's on its way into the
# tunnel, the other's when it comes out. VXLAN itself asks nobody who he is: whoever can send UDP to
# its port puts frames into the tier. So only the other hosts of the tunnel may; and who goes out by
# way of this host, which lends him its address, may not go there; nor may who is not root on this
# host. Frames with a VLAN tag are not shown to iptables: they are dropped where they come in.

# iptables security
iptables-restore --noflush <<'END'
*security
:PHASE3-GUARD - [0:0]
:PHASE3-FROM - [0:0]
:PHASE3-TO - [0:0]
:PHASE3-EGRESS - [0:0]
:PHASE3-DENY - [0:0]
:PHASE3-PEERS - [0:0]
-A PHASE3-GUARD -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A PHASE3-GUARD -j PHASE3-DENY
-A PHASE3-FROM -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A PHASE3-FROM -s 10.78.0.10/32 -d 10.78.0.12/32 -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-1 to p3-product-1" -j RETURN
-A PHASE3-FROM -s 10.78.0.10/32 -d 10.78.0.13/32 -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-1 to p3-product-2" -j RETURN
-A PHASE3-FROM -s 10.78.0.11/32 -d 10.78.0.12/32 -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-2 to p3-product-1" -j RETURN
-A PHASE3-FROM -s 10.78.0.11/32 -d 10.78.0.13/32 -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-2 to p3-product-2" -j RETURN
-A PHASE3-FROM -j PHASE3-DENY
-A PHASE3-TO -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A PHASE3-TO -s 10.78.0.10/32 -d 10.78.0.12/32 -i p3-tunnel -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-1 to p3-product-1" -j RETURN
-A PHASE3-TO -s 10.78.0.10/32 -d 10.78.0.13/32 -i p3-tunnel -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-1 to p3-product-2" -j RETURN
-A PHASE3-TO -s 10.78.0.11/32 -d 10.78.0.12/32 -i p3-tunnel -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-2 to p3-product-1" -j RETURN
-A PHASE3-TO -s 10.78.0.11/32 -d 10.78.0.13/32 -i p3-tunnel -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-2 to p3-product-2" -j RETURN
-A PHASE3-TO -j PHASE3-DENY
-A PHASE3-EGRESS -j RETURN
-A PHASE3-DENY -j DROP
-A PHASE3-PEERS -s 192.168.56.12/32 -j RETURN
-A PHASE3-PEERS -j PHASE3-DENY
-I OUTPUT -d 192.168.56.12/32 -p udp -m udp --dport 4789 -m owner --uid-owner 1-4294967294 -m comment --comment "underlay phase3" -j PHASE3-DENY
-I FORWARD -d 192.168.56.12/32 -p udp -m udp --dport 4789 -m comment --comment "underlay phase3" -j PHASE3-DENY
-I INPUT -p udp -m udp --dport 4789 -m comment --comment "underlay phase3" -j PHASE3-PEERS
-I FORWARD -o p3-tunnel -m comment --comment "underlay phase3" -j PHASE3-TO
-I FORWARD -i p3-tunnel -m comment --comment "underlay phase3" -j PHASE3-FROM
-I INPUT -i p3-tunnel -m comment --comment "underlay phase3" -j PHASE3-GUARD
COMMIT
END

# iptables filter
iptables-restore --noflush <<'END'
*filter
:PHASE3-GUARD - [0:0]
:PHASE3-FROM - [0:0]
:PHASE3-TO - [0:0]
:PHASE3-EGRESS - [0:0]
:PHASE3-DENY - [0:0]
:PHASE3-PEERS - [0:0]
-A PHASE3-GUARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PHASE3-GUARD -j PHASE3-DENY
-A PHASE3-FROM -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PHASE3-FROM -s 10.78.0.10/32 -d 10.78.0.12/32 -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-1 to p3-product-1" -j ACCEPT
-A PHASE3-FROM -s 10.78.0.10/32 -d 10.78.0.13/32 -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-1 to p3-product-2" -j ACCEPT
-A PHASE3-FROM -s 10.78.0.11/32 -d 10.78.0.12/32 -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-2 to p3-product-1" -j ACCEPT
-A PHASE3-FROM -s 10.78.0.11/32 -d 10.78.0.13/32 -p tcp -m tcp --dport 5000 -m comment --comment "p3-gateway-2 to p3-product-2" -j ACCEPT
-A PHASE3-FROM -j PHASE3-DENY
-A PHASE3-TO -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PHASE3-TO -j PHASE3-DENY
-A PHASE3-EGRESS -j ACCEPT
-A PHASE3-DENY -p tcp -j REJECT --reject-with tcp-reset
-A PHASE3-DENY -j DROP
-A PHASE3-PEERS -s 192.168.56.12/32 -j RETURN
-A PHASE3-PEERS -j PHASE3-DENY
-I OUTPUT -d 192.168.56.12/32 -p udp -m udp --dport 4789 -m owner --uid-owner 1-4294967294 -m comment --comment "underlay phase3" -j PHASE3-DENY
-I FORWARD -d 192.168.56.12/32 -p udp -m udp --dport 4789 -m comment --comment "underlay phase3" -j PHASE3-DENY
-I INPUT -p udp -m udp --dport 4789 -m comment --comment "underlay phase3" -j PHASE3-PEERS
-I FORWARD -o p3-tunnel -m comment --comment "underlay phase3" -j PHASE3-TO
-I FORWARD -i p3-tunnel -m comment --comment "underlay phase3" -j PHASE3-FROM
-I INPUT -i p3-tunnel -m comment --comment "underlay phase3" -j PHASE3-GUARD
COMMIT
END

# nftables bridge
nft --file - <<'END'
table bridge underlay-phase3
delete table bridge underlay-phase3
table bridge underlay-phase3 {
	comment "Made by Underlay, phase3."

	chain tagged {
		type filter hook prerouting priority -250; policy accept;
		iifname "p3-vxlan" ether type 8021q drop
		iifname "p3-vxlan" ether type 8021ad drop
		iifname "v-p3-gateway-1" ether type 8021q drop
		iifname "v-p3-gateway-1" ether type 8021ad drop
		iifname "v-p3-gateway-2" ether type 8021q drop
		iifname "v-p3-gateway-2" ether type 8021ad drop
	}
}
END


# 2. Bridged frames are shown to the guard
#
# Frames that a bridge hands on pass no routing, and no rule of iptables, unless the kernel is told
# so.

# sysctl net.bridge.bridge-nf-call-iptables
sysctl -qw net.bridge.bridge-nf-call-iptables=1


# 3. A bridge
#
# The tier's switch on this host. Its own address is for the host alone: the guard's refusals take
# their way by it. Its MTU is 50 bytes less than the underlay's: so much a VXLAN adds.

# link p3-tunnel
ip link add p3-tunnel address 02:4c:0a:4e:00:01 mtu 1450 group 8103 type bridge
ip link set p3-tunnel up

# sysctl net.ipv6.conf.p3-tunnel.disable_ipv6
sysctl -qw net.ipv6.conf.p3-tunnel.disable_ipv6=1

# address 10.78.0.1/24 on p3-tunnel
ip address add 10.78.0.1/24 broadcast + dev p3-tunnel


# 4. A port that leads to the other host
#
# A VXLAN device wraps each frame into a UDP packet to another host. It could learn who is where from
# what arrives, and would believe anybody: so it is told, and so is the bridge who is behind it. Each
# neighbour's MAC address has an entry; what is for everybody, such as the question of ARP, goes to
# every other host.

# link p3-vxlan
ip link add p3-vxlan address 02:4c:c0:a8:38:0b mtu 1450 group 8103 type vxlan id 100 dstport 4789 local 192.168.56.11 dev eth0 nolearning
ip link set p3-vxlan master p3-tunnel up
bridge link set dev p3-vxlan learning off

# sysctl net.ipv6.conf.p3-vxlan.disable_ipv6
sysctl -qw net.ipv6.conf.p3-vxlan.disable_ipv6=1

# forwarding table of p3-vxlan
bridge fdb append 00:00:00:00:00:00 dev p3-vxlan dst 192.168.56.12
bridge fdb append 02:4c:0a:4e:00:02 dev p3-vxlan dst 192.168.56.12
bridge fdb append 02:4c:0a:4e:00:0c dev p3-vxlan dst 192.168.56.12
bridge fdb append 02:4c:0a:4e:00:0d dev p3-vxlan dst 192.168.56.12

# who is behind p3-vxlan
bridge fdb replace 02:4c:0a:4e:00:02 dev p3-vxlan master static
bridge fdb replace 02:4c:0a:4e:00:0c dev p3-vxlan master static
bridge fdb replace 02:4c:0a:4e:00:0d dev p3-vxlan master static


# 5. A namespace for each replica, plugged in
#
# As in phase 1. That its neighbours are on another host it cannot see; where they are is written
# down, so that it need not ask through the tunnel.

# namespace p3-gateway-1
ip netns add p3-gateway-1
ip -n p3-gateway-1 link set lo group 8103 up

# sysctl p3-gateway-1/net.ipv6.conf.all.disable_ipv6
ip netns exec p3-gateway-1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl p3-gateway-1/net.ipv6.conf.default.disable_ipv6
ip netns exec p3-gateway-1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl p3-gateway-1/net.ipv4.ip_unprivileged_port_start
ip netns exec p3-gateway-1 sysctl -qw net.ipv4.ip_unprivileged_port_start=1024

# link v-p3-gateway-1
ip link add v-p3-gateway-1 mtu 1450 group 8103 type veth peer name eth0 netns p3-gateway-1 address 02:4c:0a:4e:00:0a mtu 1450
ip -n p3-gateway-1 link set eth0 group 8103 up
ip link set v-p3-gateway-1 master p3-tunnel up

# sysctl net.ipv6.conf.v-p3-gateway-1.disable_ipv6
sysctl -qw net.ipv6.conf.v-p3-gateway-1.disable_ipv6=1

# address 10.78.0.10/24 on p3-gateway-1/eth0
ip -n p3-gateway-1 address add 10.78.0.10/24 broadcast + dev eth0

# neighbours on p3-gateway-1/eth0
ip -n p3-gateway-1 neighbour add 10.78.0.12 lladdr 02:4c:0a:4e:00:0c dev eth0 nud permanent
ip -n p3-gateway-1 neighbour add 10.78.0.13 lladdr 02:4c:0a:4e:00:0d dev eth0 nud permanent

# namespace p3-gateway-2
ip netns add p3-gateway-2
ip -n p3-gateway-2 link set lo group 8103 up

# sysctl p3-gateway-2/net.ipv6.conf.all.disable_ipv6
ip netns exec p3-gateway-2 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl p3-gateway-2/net.ipv6.conf.default.disable_ipv6
ip netns exec p3-gateway-2 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl p3-gateway-2/net.ipv4.ip_unprivileged_port_start
ip netns exec p3-gateway-2 sysctl -qw net.ipv4.ip_unprivileged_port_start=1024

# link v-p3-gateway-2
ip link add v-p3-gateway-2 mtu 1450 group 8103 type veth peer name eth0 netns p3-gateway-2 address 02:4c:0a:4e:00:0b mtu 1450
ip -n p3-gateway-2 link set eth0 group 8103 up
ip link set v-p3-gateway-2 master p3-tunnel up

# sysctl net.ipv6.conf.v-p3-gateway-2.disable_ipv6
sysctl -qw net.ipv6.conf.v-p3-gateway-2.disable_ipv6=1

# address 10.78.0.11/24 on p3-gateway-2/eth0
ip -n p3-gateway-2 address add 10.78.0.11/24 broadcast + dev eth0

# neighbours on p3-gateway-2/eth0
ip -n p3-gateway-2 neighbour add 10.78.0.12 lladdr 02:4c:0a:4e:00:0c dev eth0 nud permanent
ip -n p3-gateway-2 neighbour add 10.78.0.13 lladdr 02:4c:0a:4e:00:0d dev eth0 nud permanent
