#!/bin/sh
# Made by Underlay, phase1.
# phase1 on host1, one command at a time. Run it as root, in /vagrant, on a host without it.
# To take it away again: python3 -m provision remove phase1
set -eu

# Write down how the host's own settings are now, so that they can be put back.
python3 -m provision note phase1


# 1. The guard, before there is a road
#
# Rules first, so that no packet is ever forwarded without them. Everything is denied but the plan's
# flows. Chains of our own hang on the kernel's, each only for packets that come from a bridge of ours
# or go to one: in the filter table those for what comes into the host and what passes through it, in
# the nat table those that rewrite addresses. Whoever inserts a rule before ours decides first, as
# Docker does whenever it starts. So the guard stands a second time in the security table, which
# packets pass after the filter table: what somebody accepts too much there is dropped here. Frames
# with a VLAN tag are not shown to iptables, and nobody here has a use for them: they are dropped
# where they come in.

# iptables security
iptables-restore --noflush <<'END'
*security
:PHASE1-GUARD - [0:0]
:PHASE1-FROM - [0:0]
:PHASE1-TO - [0:0]
:PHASE1-EGRESS - [0:0]
:PHASE1-DENY - [0:0]
-A PHASE1-GUARD -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A PHASE1-GUARD -d 10.77.1.1/32 -i br-frontend -p udp -m udp --dport 53 -j RETURN
-A PHASE1-GUARD -d 10.77.1.1/32 -i br-frontend -p tcp -m tcp --dport 53 -j RETURN
-A PHASE1-GUARD -d 10.77.2.1/32 -i br-backend -p udp -m udp --dport 53 -j RETURN
-A PHASE1-GUARD -d 10.77.2.1/32 -i br-backend -p tcp -m tcp --dport 53 -j RETURN
-A PHASE1-GUARD -d 10.77.3.1/32 -i br-data -p udp -m udp --dport 53 -j RETURN
-A PHASE1-GUARD -d 10.77.3.1/32 -i br-data -p tcp -m tcp --dport 53 -j RETURN
-A PHASE1-GUARD -j PHASE1-DENY
-A PHASE1-FROM -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A PHASE1-FROM -s 10.77.1.10/32 -d 10.77.1.20/32 -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-1" -j RETURN
-A PHASE1-FROM -s 10.77.1.10/32 -d 10.77.1.21/32 -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-2" -j RETURN
-A PHASE1-FROM -s 10.77.1.20/32 -d 10.77.2.30/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-1" -j RETURN
-A PHASE1-FROM -s 10.77.1.20/32 -d 10.77.2.31/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-2" -j RETURN
-A PHASE1-FROM -s 10.77.1.21/32 -d 10.77.2.30/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-1" -j RETURN
-A PHASE1-FROM -s 10.77.1.21/32 -d 10.77.2.31/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-2" -j RETURN
-A PHASE1-FROM -s 10.77.1.20/32 -d 10.77.2.40/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to order-1" -j RETURN
-A PHASE1-FROM -s 10.77.1.21/32 -d 10.77.2.40/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to order-1" -j RETURN
-A PHASE1-FROM -s 10.77.2.30/32 -d 10.77.3.50/32 -p tcp -m tcp --dport 6379 -m comment --comment "product-1 to redis-1" -j RETURN
-A PHASE1-FROM -s 10.77.2.31/32 -d 10.77.3.50/32 -p tcp -m tcp --dport 6379 -m comment --comment "product-2 to redis-1" -j RETURN
-A PHASE1-FROM -s 10.77.2.30/32 -d 10.77.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "product-1 to postgres-1" -j RETURN
-A PHASE1-FROM -s 10.77.2.31/32 -d 10.77.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "product-2 to postgres-1" -j RETURN
-A PHASE1-FROM -s 10.77.2.40/32 -d 10.77.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "order-1 to postgres-1" -j RETURN
-A PHASE1-FROM -s 10.77.1.20/32 -g PHASE1-EGRESS
-A PHASE1-FROM -s 10.77.1.21/32 -g PHASE1-EGRESS
-A PHASE1-FROM -s 10.77.2.40/32 -g PHASE1-EGRESS
-A PHASE1-FROM -j PHASE1-DENY
-A PHASE1-TO -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A PHASE1-TO -s 10.77.1.10/32 -d 10.77.1.20/32 -i br-frontend -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-1" -j RETURN
-A PHASE1-TO -s 10.77.1.10/32 -d 10.77.1.21/32 -i br-frontend -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-2" -j RETURN
-A PHASE1-TO -s 10.77.1.20/32 -d 10.77.2.30/32 -i br-frontend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-1" -j RETURN
-A PHASE1-TO -s 10.77.1.20/32 -d 10.77.2.31/32 -i br-frontend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-2" -j RETURN
-A PHASE1-TO -s 10.77.1.21/32 -d 10.77.2.30/32 -i br-frontend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-1" -j RETURN
-A PHASE1-TO -s 10.77.1.21/32 -d 10.77.2.31/32 -i br-frontend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-2" -j RETURN
-A PHASE1-TO -s 10.77.1.20/32 -d 10.77.2.40/32 -i br-frontend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to order-1" -j RETURN
-A PHASE1-TO -s 10.77.1.21/32 -d 10.77.2.40/32 -i br-frontend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to order-1" -j RETURN
-A PHASE1-TO -s 10.77.2.30/32 -d 10.77.3.50/32 -i br-backend -p tcp -m tcp --dport 6379 -m comment --comment "product-1 to redis-1" -j RETURN
-A PHASE1-TO -s 10.77.2.31/32 -d 10.77.3.50/32 -i br-backend -p tcp -m tcp --dport 6379 -m comment --comment "product-2 to redis-1" -j RETURN
-A PHASE1-TO -s 10.77.2.30/32 -d 10.77.3.60/32 -i br-backend -p tcp -m tcp --dport 5432 -m comment --comment "product-1 to postgres-1" -j RETURN
-A PHASE1-TO -s 10.77.2.31/32 -d 10.77.3.60/32 -i br-backend -p tcp -m tcp --dport 5432 -m comment --comment "product-2 to postgres-1" -j RETURN
-A PHASE1-TO -s 10.77.2.40/32 -d 10.77.3.60/32 -i br-backend -p tcp -m tcp --dport 5432 -m comment --comment "order-1 to postgres-1" -j RETURN
-A PHASE1-TO -d 10.77.1.10/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT --ctorigdstport 8080 -j RETURN
-A PHASE1-TO -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.77.1.10/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT --ctorigdstport 8080 -j RETURN
-A PHASE1-EGRESS -d 10.77.1.0/24 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.77.2.0/24 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.77.3.0/24 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.79.0.0/16 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.80.0.0/16 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.78.0.0/24 -j PHASE1-DENY
-A PHASE1-EGRESS -d 192.168.56.0/24 -p udp -m udp --dport 4789 -j PHASE1-DENY
-A PHASE1-EGRESS -j RETURN
-A PHASE1-DENY -j DROP
-I FORWARD -o br-data -m comment --comment "underlay phase1" -j PHASE1-TO
-I FORWARD -o br-backend -m comment --comment "underlay phase1" -j PHASE1-TO
-I FORWARD -o br-frontend -m comment --comment "underlay phase1" -j PHASE1-TO
-I FORWARD -i br-data -m comment --comment "underlay phase1" -j PHASE1-FROM
-I FORWARD -i br-backend -m comment --comment "underlay phase1" -j PHASE1-FROM
-I FORWARD -i br-frontend -m comment --comment "underlay phase1" -j PHASE1-FROM
-I INPUT -i br-data -m comment --comment "underlay phase1" -j PHASE1-GUARD
-I INPUT -i br-backend -m comment --comment "underlay phase1" -j PHASE1-GUARD
-I INPUT -i br-frontend -m comment --comment "underlay phase1" -j PHASE1-GUARD
COMMIT
END

# iptables filter
iptables-restore --noflush <<'END'
*filter
:FORWARD DROP [0:0]
:PHASE1-GUARD - [0:0]
:PHASE1-FROM - [0:0]
:PHASE1-TO - [0:0]
:PHASE1-EGRESS - [0:0]
:PHASE1-DENY - [0:0]
-A PHASE1-GUARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PHASE1-GUARD -d 10.77.1.1/32 -i br-frontend -p udp -m udp --dport 53 -j ACCEPT
-A PHASE1-GUARD -d 10.77.1.1/32 -i br-frontend -p tcp -m tcp --dport 53 -j ACCEPT
-A PHASE1-GUARD -d 10.77.2.1/32 -i br-backend -p udp -m udp --dport 53 -j ACCEPT
-A PHASE1-GUARD -d 10.77.2.1/32 -i br-backend -p tcp -m tcp --dport 53 -j ACCEPT
-A PHASE1-GUARD -d 10.77.3.1/32 -i br-data -p udp -m udp --dport 53 -j ACCEPT
-A PHASE1-GUARD -d 10.77.3.1/32 -i br-data -p tcp -m tcp --dport 53 -j ACCEPT
-A PHASE1-GUARD -j PHASE1-DENY
-A PHASE1-FROM -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PHASE1-FROM -s 10.77.1.10/32 -d 10.77.1.20/32 -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.1.10/32 -d 10.77.1.21/32 -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-2" -j ACCEPT
-A PHASE1-FROM -s 10.77.1.20/32 -d 10.77.2.30/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.1.20/32 -d 10.77.2.31/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-2" -j ACCEPT
-A PHASE1-FROM -s 10.77.1.21/32 -d 10.77.2.30/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.1.21/32 -d 10.77.2.31/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-2" -j ACCEPT
-A PHASE1-FROM -s 10.77.1.20/32 -d 10.77.2.40/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to order-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.1.21/32 -d 10.77.2.40/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to order-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.2.30/32 -d 10.77.3.50/32 -p tcp -m tcp --dport 6379 -m comment --comment "product-1 to redis-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.2.31/32 -d 10.77.3.50/32 -p tcp -m tcp --dport 6379 -m comment --comment "product-2 to redis-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.2.30/32 -d 10.77.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "product-1 to postgres-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.2.31/32 -d 10.77.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "product-2 to postgres-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.2.40/32 -d 10.77.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "order-1 to postgres-1" -j ACCEPT
-A PHASE1-FROM -s 10.77.1.20/32 -j PHASE1-EGRESS
-A PHASE1-FROM -s 10.77.1.21/32 -j PHASE1-EGRESS
-A PHASE1-FROM -s 10.77.2.40/32 -j PHASE1-EGRESS
-A PHASE1-FROM -j PHASE1-DENY
-A PHASE1-TO -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PHASE1-TO -d 10.77.1.10/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT --ctorigdstport 8080 -j ACCEPT
-A PHASE1-TO -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.77.1.10/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT --ctorigdstport 8080 -j ACCEPT
-A PHASE1-EGRESS -d 10.77.1.0/24 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.77.2.0/24 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.77.3.0/24 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.79.0.0/16 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.80.0.0/16 -j PHASE1-DENY
-A PHASE1-EGRESS -d 10.78.0.0/24 -j PHASE1-DENY
-A PHASE1-EGRESS -d 192.168.56.0/24 -p udp -m udp --dport 4789 -j PHASE1-DENY
-A PHASE1-EGRESS -j ACCEPT
-A PHASE1-DENY -p tcp -j REJECT --reject-with tcp-reset
-A PHASE1-DENY -j DROP
-I FORWARD -o br-data -m comment --comment "underlay phase1" -j PHASE1-TO
-I FORWARD -o br-backend -m comment --comment "underlay phase1" -j PHASE1-TO
-I FORWARD -o br-frontend -m comment --comment "underlay phase1" -j PHASE1-TO
-I FORWARD -i br-data -m comment --comment "underlay phase1" -j PHASE1-FROM
-I FORWARD -i br-backend -m comment --comment "underlay phase1" -j PHASE1-FROM
-I FORWARD -i br-frontend -m comment --comment "underlay phase1" -j PHASE1-FROM
-I INPUT -i br-data -m comment --comment "underlay phase1" -j PHASE1-GUARD
-I INPUT -i br-backend -m comment --comment "underlay phase1" -j PHASE1-GUARD
-I INPUT -i br-frontend -m comment --comment "underlay phase1" -j PHASE1-GUARD
COMMIT
END

# iptables nat
iptables-restore --noflush <<'END'
*nat
:PHASE1-PUBLISH - [0:0]
:PHASE1-TARGET - [0:0]
:PHASE1-LEAVE - [0:0]
-A PHASE1-PUBLISH -s 10.77.1.20/32 -j PHASE1-TARGET
-A PHASE1-PUBLISH -s 10.77.1.21/32 -j PHASE1-TARGET
-A PHASE1-PUBLISH -s 10.77.2.40/32 -j PHASE1-TARGET
-A PHASE1-PUBLISH -i br-frontend -j RETURN
-A PHASE1-PUBLISH -i br-backend -j RETURN
-A PHASE1-PUBLISH -i br-data -j RETURN
-A PHASE1-PUBLISH -j PHASE1-TARGET
-A PHASE1-TARGET -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.77.1.10:80
-A PHASE1-LEAVE -s 10.77.1.0/24 -d 10.77.1.10/32 -o br-frontend -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT -j MASQUERADE
-A PHASE1-LEAVE -s 127.0.0.0/8 -d 10.77.1.10/32 -o br-frontend -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT -j MASQUERADE
-A PHASE1-LEAVE -d 10.77.1.0/24 -j RETURN
-A PHASE1-LEAVE -d 10.77.2.0/24 -j RETURN
-A PHASE1-LEAVE -d 10.77.3.0/24 -j RETURN
-A PHASE1-LEAVE -s 10.77.1.0/24 -j MASQUERADE
-A PHASE1-LEAVE -s 10.77.2.0/24 -j MASQUERADE
-A PHASE1-LEAVE -s 10.77.3.0/24 -j MASQUERADE
-I POSTROUTING -m comment --comment "underlay phase1" -j PHASE1-LEAVE
-I OUTPUT -m addrtype --dst-type LOCAL -m comment --comment "underlay phase1" -j PHASE1-PUBLISH
-I PREROUTING -m addrtype --dst-type LOCAL -m comment --comment "underlay phase1" -j PHASE1-PUBLISH
COMMIT
END

# nftables bridge
nft --file - <<'END'
table bridge underlay-phase1
delete table bridge underlay-phase1
table bridge underlay-phase1 {
	comment "Made by Underlay, phase1."

	chain tagged {
		type filter hook prerouting priority -250; policy accept;
		iifname "v-edge-1" ether type 8021q drop
		iifname "v-edge-1" ether type 8021ad drop
		iifname "v-gateway-1" ether type 8021q drop
		iifname "v-gateway-1" ether type 8021ad drop
		iifname "v-gateway-2" ether type 8021q drop
		iifname "v-gateway-2" ether type 8021ad drop
		iifname "v-product-1" ether type 8021q drop
		iifname "v-product-1" ether type 8021ad drop
		iifname "v-product-2" ether type 8021q drop
		iifname "v-product-2" ether type 8021ad drop
		iifname "v-order-1" ether type 8021q drop
		iifname "v-order-1" ether type 8021ad drop
		iifname "v-redis-1" ether type 8021q drop
		iifname "v-redis-1" ether type 8021ad drop
		iifname "v-postgres-1" ether type 8021q drop
		iifname "v-postgres-1" ether type 8021ad drop
	}
}
END


# 2. The host becomes a router
#
# ip_forward lets packets pass between links. bridge-nf-call-iptables shows bridged frames to
# iptables: without it a rule between two ports of one bridge looks right and never matches. Redirects
# are turned off, since a neighbour that is told a shorter way would go around the address
# translation. A router takes none either: the kernel sees to that when ip_forward is written, so what
# the host had is written down before.

# sysctl net.bridge.bridge-nf-call-iptables
sysctl -qw net.bridge.bridge-nf-call-iptables=1

# sysctl net.ipv4.conf.all.send_redirects
sysctl -qw net.ipv4.conf.all.send_redirects=0

# sysctl net.ipv4.conf.default.send_redirects
sysctl -qw net.ipv4.conf.default.send_redirects=0

# sysctl net.ipv4.conf.all.accept_redirects
sysctl -qw net.ipv4.conf.all.accept_redirects=0

# sysctl net.ipv4.ip_forward
sysctl -qw net.ipv4.ip_forward=1


# 3. A bridge for each tier
#
# A bridge is a switch in the kernel. Its own address is the tier's way out, as docker0 is for
# containers. IPv6 is off, since no rule guards it: each link would else have a link-local address
# that goes around the rules.

# link br-frontend
ip link add br-frontend address 02:4c:0a:4d:01:01 mtu 1500 group 8101 type bridge
ip link set br-frontend up

# sysctl net.ipv6.conf.br-frontend.disable_ipv6
sysctl -qw net.ipv6.conf.br-frontend.disable_ipv6=1

# address 10.77.1.1/24 on br-frontend
ip address add 10.77.1.1/24 broadcast + dev br-frontend

# sysctl net.ipv4.conf.br-frontend.route_localnet
sysctl -qw net.ipv4.conf.br-frontend.route_localnet=1

# link br-backend
ip link add br-backend address 02:4c:0a:4d:02:01 mtu 1500 group 8101 type bridge
ip link set br-backend up

# sysctl net.ipv6.conf.br-backend.disable_ipv6
sysctl -qw net.ipv6.conf.br-backend.disable_ipv6=1

# address 10.77.2.1/24 on br-backend
ip address add 10.77.2.1/24 broadcast + dev br-backend

# link br-data
ip link add br-data address 02:4c:0a:4d:03:01 mtu 1500 group 8101 type bridge
ip link set br-data up

# sysctl net.ipv6.conf.br-data.disable_ipv6
sysctl -qw net.ipv6.conf.br-data.disable_ipv6=1

# address 10.77.3.1/24 on br-data
ip address add 10.77.3.1/24 broadcast + dev br-data


# 4. A namespace for each replica, plugged into its tier
#
# A network namespace has links, addresses, routes, rules and sockets of its own. A veth pair is a
# cable: one end is a port of the bridge, the other is eth0 inside. A resolv.conf of its own is bound
# over the host's one by `ip netns exec`; the host's file is never written.

# namespace edge-1
ip netns add edge-1
ip -n edge-1 link set lo group 8101 up

# sysctl edge-1/net.ipv6.conf.all.disable_ipv6
ip netns exec edge-1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl edge-1/net.ipv6.conf.default.disable_ipv6
ip netns exec edge-1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl edge-1/net.ipv4.ip_unprivileged_port_start
ip netns exec edge-1 sysctl -qw net.ipv4.ip_unprivileged_port_start=80

# link v-edge-1
ip link add v-edge-1 mtu 1500 group 8101 type veth peer name eth0 netns edge-1 address 02:4c:0a:4d:01:0a mtu 1500
ip -n edge-1 link set eth0 group 8101 up
ip link set v-edge-1 master br-frontend up

# sysctl net.ipv6.conf.v-edge-1.disable_ipv6
sysctl -qw net.ipv6.conf.v-edge-1.disable_ipv6=1

# address 10.77.1.10/24 on edge-1/eth0
ip -n edge-1 address add 10.77.1.10/24 broadcast + dev eth0

# route edge-1/0.0.0.0/0
ip -n edge-1 route add default via 10.77.1.1 dev eth0 proto 201

# file /etc/netns/edge-1/resolv.conf
mkdir -p /etc/netns/edge-1
cat > /etc/netns/edge-1/resolv.conf <<'END'
# Made by Underlay, phase1.
nameserver 10.77.1.1
search shop.internal
options timeout:1 attempts:2
END

# namespace gateway-1
ip netns add gateway-1
ip -n gateway-1 link set lo group 8101 up

# sysctl gateway-1/net.ipv6.conf.all.disable_ipv6
ip netns exec gateway-1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl gateway-1/net.ipv6.conf.default.disable_ipv6
ip netns exec gateway-1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl gateway-1/net.ipv4.ip_unprivileged_port_start
ip netns exec gateway-1 sysctl -qw net.ipv4.ip_unprivileged_port_start=1024

# link v-gateway-1
ip link add v-gateway-1 mtu 1500 group 8101 type veth peer name eth0 netns gateway-1 address 02:4c:0a:4d:01:14 mtu 1500
ip -n gateway-1 link set eth0 group 8101 up
ip link set v-gateway-1 master br-frontend up

# sysctl net.ipv6.conf.v-gateway-1.disable_ipv6
sysctl -qw net.ipv6.conf.v-gateway-1.disable_ipv6=1

# address 10.77.1.20/24 on gateway-1/eth0
ip -n gateway-1 address add 10.77.1.20/24 broadcast + dev eth0

# route gateway-1/0.0.0.0/0
ip -n gateway-1 route add default via 10.77.1.1 dev eth0 proto 201

# file /etc/netns/gateway-1/resolv.conf
mkdir -p /etc/netns/gateway-1
cat > /etc/netns/gateway-1/resolv.conf <<'END'
# Made by Underlay, phase1.
nameserver 10.77.1.1
search shop.internal
options timeout:1 attempts:2
END

# namespace gateway-2
ip netns add gateway-2
ip -n gateway-2 link set lo group 8101 up

# sysctl gateway-2/net.ipv6.conf.all.disable_ipv6
ip netns exec gateway-2 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl gateway-2/net.ipv6.conf.default.disable_ipv6
ip netns exec gateway-2 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl gateway-2/net.ipv4.ip_unprivileged_port_start
ip netns exec gateway-2 sysctl -qw net.ipv4.ip_unprivileged_port_start=1024

# link v-gateway-2
ip link add v-gateway-2 mtu 1500 group 8101 type veth peer name eth0 netns gateway-2 address 02:4c:0a:4d:01:15 mtu 1500
ip -n gateway-2 link set eth0 group 8101 up
ip link set v-gateway-2 master br-frontend up

# sysctl net.ipv6.conf.v-gateway-2.disable_ipv6
sysctl -qw net.ipv6.conf.v-gateway-2.disable_ipv6=1

# address 10.77.1.21/24 on gateway-2/eth0
ip -n gateway-2 address add 10.77.1.21/24 broadcast + dev eth0

# route gateway-2/0.0.0.0/0
ip -n gateway-2 route add default via 10.77.1.1 dev eth0 proto 201

# file /etc/netns/gateway-2/resolv.conf
mkdir -p /etc/netns/gateway-2
cat > /etc/netns/gateway-2/resolv.conf <<'END'
# Made by Underlay, phase1.
nameserver 10.77.1.1
search shop.internal
options timeout:1 attempts:2
END

# namespace product-1
ip netns add product-1
ip -n product-1 link set lo group 8101 up

# sysctl product-1/net.ipv6.conf.all.disable_ipv6
ip netns exec product-1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl product-1/net.ipv6.conf.default.disable_ipv6
ip netns exec product-1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl product-1/net.ipv4.ip_unprivileged_port_start
ip netns exec product-1 sysctl -qw net.ipv4.ip_unprivileged_port_start=1024

# link v-product-1
ip link add v-product-1 mtu 1500 group 8101 type veth peer name eth0 netns product-1 address 02:4c:0a:4d:02:1e mtu 1500
ip -n product-1 link set eth0 group 8101 up
ip link set v-product-1 master br-backend up

# sysctl net.ipv6.conf.v-product-1.disable_ipv6
sysctl -qw net.ipv6.conf.v-product-1.disable_ipv6=1

# address 10.77.2.30/24 on product-1/eth0
ip -n product-1 address add 10.77.2.30/24 broadcast + dev eth0

# route product-1/0.0.0.0/0
ip -n product-1 route add default via 10.77.2.1 dev eth0 proto 201

# file /etc/netns/product-1/resolv.conf
mkdir -p /etc/netns/product-1
cat > /etc/netns/product-1/resolv.conf <<'END'
# Made by Underlay, phase1.
nameserver 10.77.2.1
search shop.internal
options timeout:1 attempts:2
END

# namespace product-2
ip netns add product-2
ip -n product-2 link set lo group 8101 up

# sysctl product-2/net.ipv6.conf.all.disable_ipv6
ip netns exec product-2 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl product-2/net.ipv6.conf.default.disable_ipv6
ip netns exec product-2 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl product-2/net.ipv4.ip_unprivileged_port_start
ip netns exec product-2 sysctl -qw net.ipv4.ip_unprivileged_port_start=1024

# link v-product-2
ip link add v-product-2 mtu 1500 group 8101 type veth peer name eth0 netns product-2 address 02:4c:0a:4d:02:1f mtu 1500
ip -n product-2 link set eth0 group 8101 up
ip link set v-product-2 master br-backend up

# sysctl net.ipv6.conf.v-product-2.disable_ipv6
sysctl -qw net.ipv6.conf.v-product-2.disable_ipv6=1

# address 10.77.2.31/24 on product-2/eth0
ip -n product-2 address add 10.77.2.31/24 broadcast + dev eth0

# route product-2/0.0.0.0/0
ip -n product-2 route add default via 10.77.2.1 dev eth0 proto 201

# file /etc/netns/product-2/resolv.conf
mkdir -p /etc/netns/product-2
cat > /etc/netns/product-2/resolv.conf <<'END'
# Made by Underlay, phase1.
nameserver 10.77.2.1
search shop.internal
options timeout:1 attempts:2
END

# namespace order-1
ip netns add order-1
ip -n order-1 link set lo group 8101 up

# sysctl order-1/net.ipv6.conf.all.disable_ipv6
ip netns exec order-1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl order-1/net.ipv6.conf.default.disable_ipv6
ip netns exec order-1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl order-1/net.ipv4.ip_unprivileged_port_start
ip netns exec order-1 sysctl -qw net.ipv4.ip_unprivileged_port_start=1024

# link v-order-1
ip link add v-order-1 mtu 1500 group 8101 type veth peer name eth0 netns order-1 address 02:4c:0a:4d:02:28 mtu 1500
ip -n order-1 link set eth0 group 8101 up
ip link set v-order-1 master br-backend up

# sysctl net.ipv6.conf.v-order-1.disable_ipv6
sysctl -qw net.ipv6.conf.v-order-1.disable_ipv6=1

# address 10.77.2.40/24 on order-1/eth0
ip -n order-1 address add 10.77.2.40/24 broadcast + dev eth0

# route order-1/0.0.0.0/0
ip -n order-1 route add default via 10.77.2.1 dev eth0 proto 201

# file /etc/netns/order-1/resolv.conf
mkdir -p /etc/netns/order-1
cat > /etc/netns/order-1/resolv.conf <<'END'
# Made by Underlay, phase1.
nameserver 10.77.2.1
search shop.internal
options timeout:1 attempts:2
END

# namespace redis-1
ip netns add redis-1
ip -n redis-1 link set lo group 8101 up

# sysctl redis-1/net.ipv6.conf.all.disable_ipv6
ip netns exec redis-1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl redis-1/net.ipv6.conf.default.disable_ipv6
ip netns exec redis-1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl redis-1/net.ipv4.ip_unprivileged_port_start
ip netns exec redis-1 sysctl -qw net.ipv4.ip_unprivileged_port_start=1024

# link v-redis-1
ip link add v-redis-1 mtu 1500 group 8101 type veth peer name eth0 netns redis-1 address 02:4c:0a:4d:03:32 mtu 1500
ip -n redis-1 link set eth0 group 8101 up
ip link set v-redis-1 master br-data up

# sysctl net.ipv6.conf.v-redis-1.disable_ipv6
sysctl -qw net.ipv6.conf.v-redis-1.disable_ipv6=1

# address 10.77.3.50/24 on redis-1/eth0
ip -n redis-1 address add 10.77.3.50/24 broadcast + dev eth0

# route redis-1/0.0.0.0/0
ip -n redis-1 route add default via 10.77.3.1 dev eth0 proto 201

# file /etc/netns/redis-1/resolv.conf
mkdir -p /etc/netns/redis-1
cat > /etc/netns/redis-1/resolv.conf <<'END'
# Made by Underlay, phase1.
nameserver 10.77.3.1
search shop.internal
options timeout:1 attempts:2
END

# namespace postgres-1
ip netns add postgres-1
ip -n postgres-1 link set lo group 8101 up

# sysctl postgres-1/net.ipv6.conf.all.disable_ipv6
ip netns exec postgres-1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1

# sysctl postgres-1/net.ipv6.conf.default.disable_ipv6
ip netns exec postgres-1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# sysctl postgres-1/net.ipv4.ip_unprivileged_port_start
ip netns exec postgres-1 sysctl -qw net.ipv4.ip_unprivileged_port_start=1024

# link v-postgres-1
ip link add v-postgres-1 mtu 1500 group 8101 type veth peer name eth0 netns postgres-1 address 02:4c:0a:4d:03:3c mtu 1500
ip -n postgres-1 link set eth0 group 8101 up
ip link set v-postgres-1 master br-data up

# sysctl net.ipv6.conf.v-postgres-1.disable_ipv6
sysctl -qw net.ipv6.conf.v-postgres-1.disable_ipv6=1

# address 10.77.3.60/24 on postgres-1/eth0
ip -n postgres-1 address add 10.77.3.60/24 broadcast + dev eth0

# route postgres-1/0.0.0.0/0
ip -n postgres-1 route add default via 10.77.3.1 dev eth0 proto 201

# file /etc/netns/postgres-1/resolv.conf
mkdir -p /etc/netns/postgres-1
cat > /etc/netns/postgres-1/resolv.conf <<'END'
# Made by Underlay, phase1.
nameserver 10.77.3.1
search shop.internal
options timeout:1 attempts:2
END


# 6. Names
#
# One dnsmasq serves the plan's names to all namespaces of the host, as Docker's embedded DNS does for
# containers. A service's name gives the addresses of all its replicas.

# directory /etc/underlay/phase1
install -d -m 755 -o root -g root /etc/underlay/phase1

# directory /etc/underlay/phase1/dns
install -d -m 755 -o root -g root /etc/underlay/phase1/dns

# file /etc/underlay/phase1/dns/hosts
mkdir -p /etc/underlay/phase1/dns
cat > /etc/underlay/phase1/dns/hosts <<'END'
# Made by Underlay, phase1.
10.77.1.10 edge-1 edge
10.77.1.20 gateway-1 gateway
10.77.1.21 gateway-2 gateway
10.77.2.30 product-1 product
10.77.2.31 product-2 product
10.77.2.40 order-1 order
10.77.3.50 redis-1 redis
10.77.3.60 postgres-1 postgres
END

# file /etc/underlay/phase1/dns/dnsmasq.conf
mkdir -p /etc/underlay/phase1/dns
cat > /etc/underlay/phase1/dns/dnsmasq.conf <<'END'
# Made by Underlay, phase1.
keep-in-foreground
log-facility=-
pid-file
user=dnsmasq
bind-interfaces
listen-address=10.77.1.1
listen-address=10.77.2.1
listen-address=10.77.3.1
no-resolv
no-hosts
local=/#/
addn-hosts=/etc/underlay/phase1/dns/hosts
expand-hosts
domain=shop.internal
END

# program dns
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/dns.conf <<'END'
; Made by Underlay, phase1. Inputs: c8fec252a477
[program:dns]
command=dnsmasq --conf-file=/etc/underlay/phase1/dns/dnsmasq.conf
directory=/
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/dns.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update dns
supervisorctl start dns &


# 7. A user for each service
#
# Processes of one user may read each other's memory and files, past every rule of the network. So no
# two services share one. Docker's containers share root unless their images name a user.

# user shop-edge
useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --comment 'underlay phase1' shop-edge

# user shop-gateway
useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --comment 'underlay phase1' shop-gateway

# user shop-product
useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --comment 'underlay phase1' shop-product

# user shop-order
useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --comment 'underlay phase1' shop-order

# user shop-redis
useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --comment 'underlay phase1' shop-redis

# user shop-postgres
useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --comment 'underlay phase1' shop-postgres


# 8. The data
#
# Redis is a cache and keeps nothing on disk. PostgreSQL gets a cluster of its own; it lets each of
# the shop's services in under a role of its own, with a password that only that service can read.

# directory /etc/underlay/phase1/secrets
install -d -m 755 -o root -g root /etc/underlay/phase1/secrets

# file /etc/underlay/phase1/secrets/product
python3 -m provision secret product /etc/underlay/phase1/secrets/product --owner shop-product

# file /etc/underlay/phase1/secrets/order
python3 -m provision secret order /etc/underlay/phase1/secrets/order --owner shop-order

# directory /etc/underlay/phase1/roles
install -d -m 700 -o root -g root /etc/underlay/phase1/roles

# file /etc/underlay/phase1/roles/product
python3 -m provision secret product /etc/underlay/phase1/roles/product --owner root

# file /etc/underlay/phase1/roles/order
python3 -m provision secret order /etc/underlay/phase1/roles/order --owner root

# file /etc/underlay/phase1/seal
python3 -m provision secret seal /etc/underlay/phase1/seal --owner root

# directory /run/underlay/phase1
install -d -m 755 -o root -g root /run/underlay/phase1

# directory /run/underlay/phase1/redis-1
install -d -m 700 -o shop-redis -g shop-redis /run/underlay/phase1/redis-1

# program redis-1
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/redis-1.conf <<'END'
; Made by Underlay, phase1. Inputs: e3b0c44298fc
[program:redis-1]
command=ip netns exec redis-1 /vagrant/provision/run-as shop-redis redis-server --bind 10.77.3.50 --port 6379 --protected-mode no --save '' --appendonly no --maxmemory 64mb --maxmemory-policy allkeys-lru --dir /run/underlay/phase1/redis-1
directory=/
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/redis-1.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update redis-1
supervisorctl start redis-1 &

# directory /etc/underlay/phase1/postgres-1
install -d -m 755 -o root -g root /etc/underlay/phase1/postgres-1

# directory /run/underlay/phase1
install -d -m 755 -o root -g root /run/underlay/phase1

# directory /run/underlay/phase1/postgres-1
install -d -m 700 -o shop-postgres -g shop-postgres /run/underlay/phase1/postgres-1

# file /etc/underlay/phase1/postgres-1/pg_hba.conf
mkdir -p /etc/underlay/phase1/postgres-1
cat > /etc/underlay/phase1/postgres-1/pg_hba.conf <<'END'
# Made by Underlay, phase1.
local all postgres peer map=lab
host shop product 10.77.2.30/32 scram-sha-256
host shop product 10.77.2.31/32 scram-sha-256
host shop order 10.77.2.40/32 scram-sha-256
END

# file /etc/underlay/phase1/postgres-1/pg_ident.conf
mkdir -p /etc/underlay/phase1/postgres-1
cat > /etc/underlay/phase1/postgres-1/pg_ident.conf <<'END'
# Made by Underlay, phase1.
lab root postgres
lab shop-postgres postgres
END

# data /var/lib/underlay/phase1/postgres-1
install -d -m 700 -o shop-postgres -g shop-postgres /var/lib/underlay/phase1/postgres-1
setpriv --reuid=shop-postgres --regid=shop-postgres --init-groups -- /usr/lib/postgresql/17/bin/initdb --pgdata /var/lib/underlay/phase1/postgres-1 --no-sync --no-instructions --username=postgres --encoding=UTF8 --locale=C.UTF-8 --auth-local=peer --auth-host=reject
sync --file-system /var/lib/underlay/phase1/postgres-1

# program postgres-1
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/postgres-1.conf <<'END'
; Made by Underlay, phase1. Inputs: 660f68ba0c92
[program:postgres-1]
command=ip netns exec postgres-1 /vagrant/provision/run-as shop-postgres /usr/lib/postgresql/17/bin/postgres -D /var/lib/underlay/phase1/postgres-1 -c listen_addresses=10.77.3.60 -c port=5432 -c unix_socket_directories=/run/underlay/phase1/postgres-1 -c hba_file=/etc/underlay/phase1/postgres-1/pg_hba.conf -c ident_file=/etc/underlay/phase1/postgres-1/pg_ident.conf -c shared_buffers=32MB -c max_connections=100
directory=/
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=INT
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/postgres-1.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update postgres-1
supervisorctl start postgres-1 &

# database shop of postgres-1
until psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --host /run/underlay/phase1/postgres-1 --port 5432 --username postgres --dbname postgres --command 'SELECT 1' >/dev/null 2>&1; do sleep 0.1; done
psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --host /run/underlay/phase1/postgres-1 --port 5432 --username postgres --dbname postgres --command 'CREATE DATABASE "shop"'
psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --host /run/underlay/phase1/postgres-1 --port 5432 --username postgres --dbname shop <<'END'
SET log_min_error_statement = panic;
\set password `cat /etc/underlay/phase1/roles/product`
SELECT 'CREATE ROLE "product" LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'product') \gexec
ALTER ROLE "product" PASSWORD :'password';
\set product_role product
\set password `cat /etc/underlay/phase1/roles/order`
SELECT 'CREATE ROLE "order" LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'order') \gexec
ALTER ROLE "order" PASSWORD :'password';
\set order_role order
-- The shop's tables and first products. Running it again changes nothing.
--
-- Run with psql by the owner of the database; the two roles must exist:
--   psql -v product_role=NAME -v order_role=NAME -f schema.sql DATABASE
\set ON_ERROR_STOP on
SET client_min_messages = warning;
BEGIN;

CREATE TABLE IF NOT EXISTS products (
    id    integer PRIMARY KEY CHECK (id > 0),
    name  text NOT NULL UNIQUE CHECK (name <> ''),
    price numeric(10,2) NOT NULL CHECK (price >= 0),
    -- With this limit a total has 15 digits at most, which clients' floating point numbers carry exactly.
    stock integer NOT NULL CHECK (stock BETWEEN 0 AND 100000)
);

CREATE TABLE IF NOT EXISTS orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id integer NOT NULL CHECK (customer_id > 0),
    product_id  integer NOT NULL REFERENCES products (id),
    quantity    integer NOT NULL CHECK (quantity > 0),
    unit_price  numeric(10,2) NOT NULL CHECK (unit_price >= 0),
    total_price numeric(15,2) NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT orders_total_check CHECK (total_price = unit_price * quantity)
);

INSERT INTO products (id, name, price, stock) VALUES
    (1, 'Laptop', 999.99, 50),
    (2, 'Mouse', 29.99, 200),
    (3, 'Keyboard', 79.99, 150)
ON CONFLICT DO NOTHING;

-- Each service may do what it does and no more: nobody changes a price, an order is never changed or deleted.
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
-- Rights that an earlier version gave go, too.
REVOKE ALL ON products, orders FROM :"product_role", :"order_role";
GRANT SELECT ON products TO :"product_role";
GRANT SELECT, UPDATE (stock) ON products TO :"order_role";
GRANT SELECT, INSERT ON orders TO :"order_role";

COMMIT;

\set seal `cat /etc/underlay/phase1/seal`
\set comment '0564f08e064fb6b5d81065740a1da8aad38ac30dacbf65715dd3ff7f2b73e64c ' :seal
COMMENT ON DATABASE "shop" IS :'comment';
END


# 9. The shop
#
# Each replica is a process in its own namespace, without privileges, told by its environment where to
# listen and whom to ask. That it can reach only what the plan allows is not its own merit: the rules
# see to it.

# program product-1
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/product-1.conf <<'END'
; Made by Underlay, phase1. Inputs: e3b0c44298fc
[program:product-1]
command=ip netns exec product-1 /vagrant/provision/run-as shop-product python3 -m services.product
directory=/vagrant
environment=BIND_ADDRESS="10.77.2.30",CACHE_TTL="300",DATABASE_CONNECT_TIMEOUT="2",DATABASE_HOST="postgres",DATABASE_NAME="shop",DATABASE_PASSWORD_FILE="/etc/underlay/phase1/secrets/product",DATABASE_PORT="5432",DATABASE_STATEMENT_TIMEOUT="2",DATABASE_USER="product",DATABASE_WAIT_TIMEOUT="2",PORT="5000",PYTHONDONTWRITEBYTECODE="1",REDIS_HOST="redis",REDIS_PORT="6379",REPLICA="product-1"
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/product-1.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update product-1
supervisorctl start product-1 &

# program product-2
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/product-2.conf <<'END'
; Made by Underlay, phase1. Inputs: e3b0c44298fc
[program:product-2]
command=ip netns exec product-2 /vagrant/provision/run-as shop-product python3 -m services.product
directory=/vagrant
environment=BIND_ADDRESS="10.77.2.31",CACHE_TTL="300",DATABASE_CONNECT_TIMEOUT="2",DATABASE_HOST="postgres",DATABASE_NAME="shop",DATABASE_PASSWORD_FILE="/etc/underlay/phase1/secrets/product",DATABASE_PORT="5432",DATABASE_STATEMENT_TIMEOUT="2",DATABASE_USER="product",DATABASE_WAIT_TIMEOUT="2",PORT="5000",PYTHONDONTWRITEBYTECODE="1",REDIS_HOST="redis",REDIS_PORT="6379",REPLICA="product-2"
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/product-2.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update product-2
supervisorctl start product-2 &

# program order-1
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/order-1.conf <<'END'
; Made by Underlay, phase1. Inputs: e3b0c44298fc
[program:order-1]
command=ip netns exec order-1 /vagrant/provision/run-as shop-order python3 -m services.order
directory=/vagrant
environment=BIND_ADDRESS="10.77.2.40",DATABASE_CONNECT_TIMEOUT="2",DATABASE_HOST="postgres",DATABASE_NAME="shop",DATABASE_PASSWORD_FILE="/etc/underlay/phase1/secrets/order",DATABASE_PORT="5432",DATABASE_STATEMENT_TIMEOUT="2",DATABASE_USER="order",DATABASE_WAIT_TIMEOUT="2",PORT="5000",PYTHONDONTWRITEBYTECODE="1",REPLICA="order-1"
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/order-1.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update order-1
supervisorctl start order-1 &

# program gateway-1
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/gateway-1.conf <<'END'
; Made by Underlay, phase1. Inputs: e3b0c44298fc
[program:gateway-1]
command=ip netns exec gateway-1 /vagrant/provision/run-as shop-gateway python3 -m services.gateway
directory=/vagrant
environment=BIND_ADDRESS="10.77.1.20",ORDER_URL="http://order:5000",PORT="3000",PRODUCT_URL="http://product:5000",PYTHONDONTWRITEBYTECODE="1",REPLICA="gateway-1",UPSTREAM_CONNECT_TIMEOUT="2",UPSTREAM_READ_TIMEOUT="5",UPSTREAM_TOTAL_TIMEOUT="6.5"
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/gateway-1.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update gateway-1
supervisorctl start gateway-1 &

# program gateway-2
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/gateway-2.conf <<'END'
; Made by Underlay, phase1. Inputs: e3b0c44298fc
[program:gateway-2]
command=ip netns exec gateway-2 /vagrant/provision/run-as shop-gateway python3 -m services.gateway
directory=/vagrant
environment=BIND_ADDRESS="10.77.1.21",ORDER_URL="http://order:5000",PORT="3000",PRODUCT_URL="http://product:5000",PYTHONDONTWRITEBYTECODE="1",REPLICA="gateway-2",UPSTREAM_CONNECT_TIMEOUT="2",UPSTREAM_READ_TIMEOUT="5",UPSTREAM_TOTAL_TIMEOUT="6.5"
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/gateway-2.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update gateway-2
supervisorctl start gateway-2 &

# directory /etc/underlay/phase1/edge-1
install -d -m 755 -o root -g root /etc/underlay/phase1/edge-1

# directory /run/underlay/phase1
install -d -m 755 -o root -g root /run/underlay/phase1

# directory /run/underlay/phase1/edge-1
install -d -m 700 -o shop-edge -g shop-edge /run/underlay/phase1/edge-1

# file /etc/underlay/phase1/edge-1/nginx.conf
mkdir -p /etc/underlay/phase1/edge-1
cat > /etc/underlay/phase1/edge-1/nginx.conf <<'END'
# Made by Underlay, phase1.
# The edge of the shop: nginx in front of the gateways. It runs without any privilege.
#
# Names with an at sign and braces are filled in by whoever starts it:
#   listen_address, port   where to listen
#   upstream_servers       the gateways, one line each: server ADDRESS:PORT max_fails=1 fail_timeout=2s;
#   connect_timeout        for one connection attempt to a gateway; each time is one of nginx's, like 2s or 500ms
#   gateway_timeout        for one gateway, longer than it waits for those behind it
#   customer_timeout       after which no other gateway is tried
#   run_dir                a directory of the user that runs nginx: pid file, temporary files
#   replica                the name of this edge in answers and logs
# SIGQUIT stops it when the requests in flight are answered, SIGTERM at once.

daemon off;
# One process turns through the gateways in one order, so that the balance is exact.
worker_processes 1;
worker_rlimit_nofile 8192;
pid /run/underlay/phase1/edge-1/nginx.pid;
error_log stderr warn;

events {
    worker_connections 4096;
}

http {
    client_body_temp_path /run/underlay/phase1/edge-1/client_body;
    proxy_temp_path /run/underlay/phase1/edge-1/proxy;
    fastcgi_temp_path /run/underlay/phase1/edge-1/fastcgi;
    uwsgi_temp_path /run/underlay/phase1/edge-1/uwsgi;
    scgi_temp_path /run/underlay/phase1/edge-1/scgi;

    server_tokens off;
    default_type application/json;
    client_max_body_size 16k;
    client_body_buffer_size 16k;
    client_header_timeout 10s;
    client_body_timeout 10s;
    send_timeout 10s;
    keepalive_timeout 30s;

    log_format json escape=json
        '{"time":"$time_iso8601","level":"info","service":"edge","replica":"edge-1","logger":"access",'
        '"message":"request","request_id":"$shop_request_id","method":"$request_method","path":"$request_uri",'
        '"status":$status,"seconds":$request_time,"remote_addr":"$remote_addr",'
        '"upstream_addr":"$upstream_addr","upstream_status":"$upstream_status"}';
    access_log /dev/stdout json;

    # A client may name its request; other texts are replaced, so that logs cannot be forged.
    map $http_x_request_id $shop_request_id {
        default $request_id;
        "~^[A-Za-z0-9._-]{1,64}$" $http_x_request_id;
    }

    # Answers that come from no gateway are served by the edge itself. An empty header is not sent.
    map $upstream_http_x_served_by $shop_served_by {
        default "";
        "" "edge-1";
    }

    # A gateway's own answer has the header already.
    map "$upstream_http_allow:$status:$request_uri" $shop_allow {
        default "";
        "~^:405:/health(\?|$)" "GET, HEAD";
        "~^:405:/api/orders(\?|$)" "POST";
        "~^:405:/api/" "GET, HEAD";
    }

    # Methods of RFC 9110 and RFC 5789; a gateway's parser would call others no HTTP at all.
    map $request_method $shop_method {
        default unknown;
        "~^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)$" known;
    }

    map $status $shop_error {
        default '"code":"bad_request","message":"the edge cannot read this request"';
        404 '"code":"not_found","message":"there is nothing at this path"';
        405 '"code":"method_not_allowed","message":"this path does not take this method"';
        408 '"code":"request_timeout","message":"the request took too long to arrive"';
        413 '"code":"payload_too_large","message":"the body is larger than 16384 bytes"';
        414 '"code":"uri_too_long","message":"the path is too long"';
        500 '"code":"internal","message":"something went wrong at the edge; its log has it under this X-Request-Id"';
        501 '"code":"not_implemented","message":"the edge does not know this method or encoding"';
        502 '"code":"bad_gateway","message":"no gateway gave an answer; try again later"';
        503 '"code":"unavailable","message":"the edge is too busy; try again later"';
        504 '"code":"gateway_timeout","message":"no gateway answered in time; try again later"';
        505 '"code":"http_version_not_supported","message":"the edge speaks HTTP/1.0 and HTTP/1.1"';
    }

    upstream gateways {
        server 10.77.1.20:3000 max_fails=1 fail_timeout=2s;
        server 10.77.1.21:3000 max_fails=1 fail_timeout=2s;
        keepalive 16;
        # Shorter than the gateways keep an idle connection (75 s), so that this side closes first.
        keepalive_timeout 30s;
    }

    server {
        listen 10.77.1.10:80;
        add_header X-Edge "edge-1" always;
        add_header X-Client-Address $remote_addr always;
        add_header X-Request-Id $shop_request_id always;
        add_header X-Served-By $shop_served_by always;
        add_header Allow $shop_allow always;

        # To a path and not to a named location: nginx refuses the latter for a request whose path it could not read
        # (414) and would answer 500 in HTML.
        error_page 400 403 404 405 408 411 412 413 414 415 416 421 429 494 /error;
        error_page 500 501 502 503 504 505 507 /error;

        location /api/ {
            if ($shop_method = unknown) {
                return 405;
            }
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_redirect off;
            proxy_hide_header X-Request-Id;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_set_header X-Request-Id $shop_request_id;
            # The edge is the first that can be trusted: what a client says of its own address is dropped.
            proxy_set_header X-Forwarded-For $remote_addr;
            # The next gateway is tried if no connection can be made, and for requests that change nothing also if
            # one breaks. A POST that has been sent is never sent again (that would need "non_idempotent").
            proxy_next_upstream error timeout;
            # Longer than the wait for one gateway, so that a request that changes nothing outlives one that hangs.
            proxy_next_upstream_timeout 10s;
            proxy_connect_timeout 2s;
            # A gateway answers in less even if nothing behind it does.
            proxy_send_timeout 7s;
            proxy_read_timeout 7s;
        }

        location = /health {
            if ($request_method !~ "^(GET|HEAD)$") {
                return 405;
            }
            return 200 '{"status":"ok","service":"edge","replica":"edge-1","dependencies":{}}\n';
        }

        location / {
            return 404;
        }

        # Without this one nginx would answer with a redirect to /api/.
        location = /api {
            return 404;
        }

        location = /error {
            internal;
            # Sent with the status of the error, not with 200: error_page keeps it.
            return 200 '{"error":{$shop_error,"details":[]}}\n';
        }
    }
}
END

# program edge-1
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/edge-1.conf <<'END'
; Made by Underlay, phase1. Inputs: ee44f4776d0e
[program:edge-1]
command=ip netns exec edge-1 /vagrant/provision/run-as shop-edge nginx -e stderr -c /etc/underlay/phase1/edge-1/nginx.conf
directory=/
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=QUIT
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/edge-1.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update edge-1
supervisorctl start edge-1 &


# The supervisor watches a program for a second before it calls it running.
wait
