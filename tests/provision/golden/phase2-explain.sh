#!/bin/sh
# Made by Underlay, phase2.
# phase2 on host1, one command at a time. Run it as root, in /vagrant, on a host without it.
# To take it away again: python3 -m provision remove phase2
set -eu

# Write down how the host's own settings are now, so that they can be put back.
python3 -m provision note phase2


# 1. The guard, before there is a container
#
# Docker alone lets every container connect to every other one on its bridges, to all of the host, and
# to what stands on other bridges of the host. The same rules as in phase 1 deny all but the plan's
# flows: from DOCKER-USER, which Docker asks first and whose rules it keeps when it starts again; from
# INPUT, which Docker leaves open; and once more in the security table, where nobody comes before.
# Whether there was anything of Docker's in the kernel before is written down, so that it can go with
# the phase.

# Docker's own chains and bridge

# iptables security
iptables-restore --noflush <<'END'
*security
:PHASE2-GUARD - [0:0]
:PHASE2-FROM - [0:0]
:PHASE2-TO - [0:0]
:PHASE2-EGRESS - [0:0]
:PHASE2-DENY - [0:0]
-A PHASE2-GUARD -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-frontend -p udp -m udp --dport 53 -j RETURN
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-frontend -p tcp -m tcp --dport 53 -j RETURN
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-backend -p udp -m udp --dport 53 -j RETURN
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-backend -p tcp -m tcp --dport 53 -j RETURN
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-data -p udp -m udp --dport 53 -j RETURN
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-data -p tcp -m tcp --dport 53 -j RETURN
-A PHASE2-GUARD -s 10.79.1.20/32 -p tcp -m tcp --dport 9080 -j RETURN
-A PHASE2-GUARD -s 10.79.2.41/32 -p tcp -m tcp --dport 9080 -j RETURN
-A PHASE2-GUARD -s 10.79.1.21/32 -p tcp -m tcp --dport 9080 -j RETURN
-A PHASE2-GUARD -s 10.79.2.42/32 -p tcp -m tcp --dport 9080 -j RETURN
-A PHASE2-GUARD -s 10.79.2.40/32 -p tcp -m tcp --dport 9080 -j RETURN
-A PHASE2-GUARD -s 10.79.3.63/32 -p tcp -m tcp --dport 9080 -j RETURN
-A PHASE2-GUARD -j PHASE2-DENY
-A PHASE2-FROM -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A PHASE2-FROM -s 10.79.1.10/32 -d 10.79.1.20/32 -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-1" -j RETURN
-A PHASE2-FROM -s 10.79.1.10/32 -d 10.79.1.21/32 -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-2" -j RETURN
-A PHASE2-FROM -s 10.79.2.41/32 -d 10.79.2.30/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-1" -j RETURN
-A PHASE2-FROM -s 10.79.2.41/32 -d 10.79.2.31/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-2" -j RETURN
-A PHASE2-FROM -s 10.79.2.42/32 -d 10.79.2.30/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-1" -j RETURN
-A PHASE2-FROM -s 10.79.2.42/32 -d 10.79.2.31/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-2" -j RETURN
-A PHASE2-FROM -s 10.79.2.41/32 -d 10.79.2.40/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to order-1" -j RETURN
-A PHASE2-FROM -s 10.79.2.42/32 -d 10.79.2.40/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to order-1" -j RETURN
-A PHASE2-FROM -s 10.79.3.61/32 -d 10.79.3.50/32 -p tcp -m tcp --dport 6379 -m comment --comment "product-1 to redis-1" -j RETURN
-A PHASE2-FROM -s 10.79.3.62/32 -d 10.79.3.50/32 -p tcp -m tcp --dport 6379 -m comment --comment "product-2 to redis-1" -j RETURN
-A PHASE2-FROM -s 10.79.3.61/32 -d 10.79.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "product-1 to postgres-1" -j RETURN
-A PHASE2-FROM -s 10.79.3.62/32 -d 10.79.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "product-2 to postgres-1" -j RETURN
-A PHASE2-FROM -s 10.79.3.63/32 -d 10.79.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "order-1 to postgres-1" -j RETURN
-A PHASE2-FROM -s 10.79.1.20/32 -g PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.2.41/32 -g PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.1.21/32 -g PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.2.42/32 -g PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.2.40/32 -g PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.3.63/32 -g PHASE2-EGRESS
-A PHASE2-FROM -j PHASE2-DENY
-A PHASE2-TO -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A PHASE2-TO -s 10.79.1.10/32 -d 10.79.1.20/32 -i p2-frontend -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-1" -j RETURN
-A PHASE2-TO -s 10.79.1.10/32 -d 10.79.1.21/32 -i p2-frontend -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-2" -j RETURN
-A PHASE2-TO -s 10.79.2.41/32 -d 10.79.2.30/32 -i p2-backend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-1" -j RETURN
-A PHASE2-TO -s 10.79.2.41/32 -d 10.79.2.31/32 -i p2-backend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-2" -j RETURN
-A PHASE2-TO -s 10.79.2.42/32 -d 10.79.2.30/32 -i p2-backend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-1" -j RETURN
-A PHASE2-TO -s 10.79.2.42/32 -d 10.79.2.31/32 -i p2-backend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-2" -j RETURN
-A PHASE2-TO -s 10.79.2.41/32 -d 10.79.2.40/32 -i p2-backend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to order-1" -j RETURN
-A PHASE2-TO -s 10.79.2.42/32 -d 10.79.2.40/32 -i p2-backend -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to order-1" -j RETURN
-A PHASE2-TO -s 10.79.3.61/32 -d 10.79.3.50/32 -i p2-data -p tcp -m tcp --dport 6379 -m comment --comment "product-1 to redis-1" -j RETURN
-A PHASE2-TO -s 10.79.3.62/32 -d 10.79.3.50/32 -i p2-data -p tcp -m tcp --dport 6379 -m comment --comment "product-2 to redis-1" -j RETURN
-A PHASE2-TO -s 10.79.3.61/32 -d 10.79.3.60/32 -i p2-data -p tcp -m tcp --dport 5432 -m comment --comment "product-1 to postgres-1" -j RETURN
-A PHASE2-TO -s 10.79.3.62/32 -d 10.79.3.60/32 -i p2-data -p tcp -m tcp --dport 5432 -m comment --comment "product-2 to postgres-1" -j RETURN
-A PHASE2-TO -s 10.79.3.63/32 -d 10.79.3.60/32 -i p2-data -p tcp -m tcp --dport 5432 -m comment --comment "order-1 to postgres-1" -j RETURN
-A PHASE2-TO -d 10.79.1.10/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT --ctorigdstport 9080 -j RETURN
-A PHASE2-TO -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.79.1.10/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT --ctorigdstport 9080 -j RETURN
-A PHASE2-EGRESS -d 10.77.1.0/24 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.77.2.0/24 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.77.3.0/24 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.79.0.0/16 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.80.0.0/16 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.78.0.0/24 -j PHASE2-DENY
-A PHASE2-EGRESS -d 192.168.56.0/24 -p udp -m udp --dport 4789 -j PHASE2-DENY
-A PHASE2-EGRESS -j RETURN
-A PHASE2-DENY -j DROP
-I FORWARD -o p2-data -m comment --comment "underlay phase2" -j PHASE2-TO
-I FORWARD -o p2-backend -m comment --comment "underlay phase2" -j PHASE2-TO
-I FORWARD -o p2-frontend -m comment --comment "underlay phase2" -j PHASE2-TO
-I FORWARD -i p2-data -m comment --comment "underlay phase2" -j PHASE2-FROM
-I FORWARD -i p2-backend -m comment --comment "underlay phase2" -j PHASE2-FROM
-I FORWARD -i p2-frontend -m comment --comment "underlay phase2" -j PHASE2-FROM
-I INPUT -i p2-data -m comment --comment "underlay phase2" -j PHASE2-GUARD
-I INPUT -i p2-backend -m comment --comment "underlay phase2" -j PHASE2-GUARD
-I INPUT -i p2-frontend -m comment --comment "underlay phase2" -j PHASE2-GUARD
COMMIT
END

# iptables filter
iptables-restore --noflush <<'END'
*filter
:FORWARD DROP [0:0]
:PHASE2-GUARD - [0:0]
:PHASE2-FROM - [0:0]
:PHASE2-TO - [0:0]
:PHASE2-EGRESS - [0:0]
:PHASE2-DENY - [0:0]
:DOCKER-USER - [0:0]
-A PHASE2-GUARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-frontend -p udp -m udp --dport 53 -j ACCEPT
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-frontend -p tcp -m tcp --dport 53 -j ACCEPT
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-backend -p udp -m udp --dport 53 -j ACCEPT
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-backend -p tcp -m tcp --dport 53 -j ACCEPT
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-data -p udp -m udp --dport 53 -j ACCEPT
-A PHASE2-GUARD -d 10.79.0.1/32 -i p2-data -p tcp -m tcp --dport 53 -j ACCEPT
-A PHASE2-GUARD -s 10.79.1.20/32 -p tcp -m tcp --dport 9080 -j ACCEPT
-A PHASE2-GUARD -s 10.79.2.41/32 -p tcp -m tcp --dport 9080 -j ACCEPT
-A PHASE2-GUARD -s 10.79.1.21/32 -p tcp -m tcp --dport 9080 -j ACCEPT
-A PHASE2-GUARD -s 10.79.2.42/32 -p tcp -m tcp --dport 9080 -j ACCEPT
-A PHASE2-GUARD -s 10.79.2.40/32 -p tcp -m tcp --dport 9080 -j ACCEPT
-A PHASE2-GUARD -s 10.79.3.63/32 -p tcp -m tcp --dport 9080 -j ACCEPT
-A PHASE2-GUARD -j PHASE2-DENY
-A PHASE2-FROM -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PHASE2-FROM -s 10.79.1.10/32 -d 10.79.1.20/32 -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.1.10/32 -d 10.79.1.21/32 -p tcp -m tcp --dport 3000 -m comment --comment "edge-1 to gateway-2" -j ACCEPT
-A PHASE2-FROM -s 10.79.2.41/32 -d 10.79.2.30/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.2.41/32 -d 10.79.2.31/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to product-2" -j ACCEPT
-A PHASE2-FROM -s 10.79.2.42/32 -d 10.79.2.30/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.2.42/32 -d 10.79.2.31/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to product-2" -j ACCEPT
-A PHASE2-FROM -s 10.79.2.41/32 -d 10.79.2.40/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-1 to order-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.2.42/32 -d 10.79.2.40/32 -p tcp -m tcp --dport 5000 -m comment --comment "gateway-2 to order-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.3.61/32 -d 10.79.3.50/32 -p tcp -m tcp --dport 6379 -m comment --comment "product-1 to redis-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.3.62/32 -d 10.79.3.50/32 -p tcp -m tcp --dport 6379 -m comment --comment "product-2 to redis-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.3.61/32 -d 10.79.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "product-1 to postgres-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.3.62/32 -d 10.79.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "product-2 to postgres-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.3.63/32 -d 10.79.3.60/32 -p tcp -m tcp --dport 5432 -m comment --comment "order-1 to postgres-1" -j ACCEPT
-A PHASE2-FROM -s 10.79.1.20/32 -j PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.2.41/32 -j PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.1.21/32 -j PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.2.42/32 -j PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.2.40/32 -j PHASE2-EGRESS
-A PHASE2-FROM -s 10.79.3.63/32 -j PHASE2-EGRESS
-A PHASE2-FROM -j PHASE2-DENY
-A PHASE2-TO -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PHASE2-TO -d 10.79.1.10/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT --ctorigdstport 9080 -j ACCEPT
-A PHASE2-TO -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.79.1.10/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT --ctorigdstport 9080 -j ACCEPT
-A PHASE2-EGRESS -d 10.77.1.0/24 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.77.2.0/24 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.77.3.0/24 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.79.0.0/16 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.80.0.0/16 -j PHASE2-DENY
-A PHASE2-EGRESS -d 10.78.0.0/24 -j PHASE2-DENY
-A PHASE2-EGRESS -d 192.168.56.0/24 -p udp -m udp --dport 4789 -j PHASE2-DENY
-A PHASE2-EGRESS -j ACCEPT
-A PHASE2-DENY -p tcp -j REJECT --reject-with tcp-reset
-A PHASE2-DENY -j DROP
-I DOCKER-USER -o p2-data -m comment --comment "underlay phase2" -j PHASE2-TO
-I DOCKER-USER -o p2-backend -m comment --comment "underlay phase2" -j PHASE2-TO
-I DOCKER-USER -o p2-frontend -m comment --comment "underlay phase2" -j PHASE2-TO
-I DOCKER-USER -i p2-data -m comment --comment "underlay phase2" -j PHASE2-FROM
-I DOCKER-USER -i p2-backend -m comment --comment "underlay phase2" -j PHASE2-FROM
-I DOCKER-USER -i p2-frontend -m comment --comment "underlay phase2" -j PHASE2-FROM
-I INPUT -i p2-data -m comment --comment "underlay phase2" -j PHASE2-GUARD
-I INPUT -i p2-backend -m comment --comment "underlay phase2" -j PHASE2-GUARD
-I INPUT -i p2-frontend -m comment --comment "underlay phase2" -j PHASE2-GUARD
COMMIT
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


# 3. A registry
#
# Where images come from. It serves those that the workstation built, read-only, and shows who it is
# by a certificate of the lab's own authority, which is derived from the lab's secret as passwords
# are. Docker trusts an authority for one registry if it finds it below certs.d.

# directory /etc/underlay/phase2
install -d -m 755 -o root -g root /etc/underlay/phase2

# directory /etc/underlay/phase2/registry
install -d -m 755 -o root -g root /etc/underlay/phase2/registry

# file /etc/underlay/phase2/registry/host.key
python3 -m provision certificate key host1 /etc/underlay/phase2/registry/host.key --headline '# Made by Underlay, phase2.' --owner docker-registry

# file /etc/underlay/phase2/registry/host.crt
python3 -m provision certificate certificate host1 /etc/underlay/phase2/registry/host.crt --headline '# Made by Underlay, phase2.' --address 192.168.56.11 --owner root

# file /etc/underlay/phase2/registry/config.yml
mkdir -p /etc/underlay/phase2/registry
cat > /etc/underlay/phase2/registry/config.yml <<'END'
# Made by Underlay, phase2.
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: /srv/underlay/shop/registry}
  maintenance: {readonly: {enabled: true}}
http:
  addr: 192.168.56.11:5000
  tls: {certificate: /etc/underlay/phase2/registry/host.crt, key: /etc/underlay/phase2/registry/host.key}
END

# file /etc/docker/certs.d/host1:5000/ca.crt
python3 -m provision certificate authority host1 /etc/docker/certs.d/host1:5000/ca.crt --headline '# Made by Underlay, phase2.' --owner root

# program registry
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/registry.conf <<'END'
; Made by Underlay, phase2. Inputs: 4dd31d5209fe
[program:registry]
command=/vagrant/provision/run-as docker-registry docker-registry serve /etc/underlay/phase2/registry/config.yml
directory=/
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/registry.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update registry
supervisorctl start registry &
until curl --silent --show-error --fail --cacert /etc/docker/certs.d/host1:5000/ca.crt https://host1:5000/v2/ >/dev/null 2>&1; do sleep 0.1; done


# 4. Docker
#
# Its daemon, with addresses from the plan's pool alone. A container asks Docker for names; what
# Docker does not know it asks on, here of a name server that knows nothing: so an unknown name is
# told to be none at once, instead of after the 8 seconds in which nobody answers, and no name of the
# lab leaks.

# file /etc/underlay/phase2/docker.json
mkdir -p /etc/underlay/phase2
cat > /etc/underlay/phase2/docker.json <<'END'
{
  "bip": "10.79.0.1/24",
  "default-address-pools": [
    {
      "base": "10.79.0.0/16",
      "size": 24
    }
  ],
  "dns": [
    "10.79.0.1"
  ],
  "log-driver": "json-file",
  "log-opts": {
    "max-size": "1m",
    "max-file": "2"
  },
  "mtu": 1500
}
END

# program docker
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/docker.conf <<'END'
; Made by Underlay, phase2. Inputs: a7e9972e5584
[program:docker]
command=dockerd --config-file /etc/underlay/phase2/docker.json
directory=/
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=15
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/docker.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update docker
supervisorctl start docker &
until docker version >/dev/null 2>&1; do sleep 0.1; done

# file /etc/underlay/phase2/dnsmasq.conf
mkdir -p /etc/underlay/phase2
cat > /etc/underlay/phase2/dnsmasq.conf <<'END'
# Made by Underlay, phase2.
keep-in-foreground
log-facility=-
pid-file
user=dnsmasq
bind-interfaces
listen-address=10.79.0.1
no-resolv
no-hosts
local=/#/
END

# program resolver
mkdir -p /etc/supervisor/conf.d
cat > /etc/supervisor/conf.d/resolver.conf <<'END'
; Made by Underlay, phase2. Inputs: 2e70db007e71
[program:resolver]
command=dnsmasq --conf-file=/etc/underlay/phase2/dnsmasq.conf
directory=/
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal=TERM
stopwaitsecs=10
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/resolver.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
END
supervisorctl update resolver
supervisorctl start resolver &


# 5. Images
#
# Pulled by digest: the name of what is inside. A tag can be moved, a digest cannot.

# Docker image host1:5000/underlay/gateway@sha256:0000000000000000000000000000000000000000000000000000000000000000
docker pull --quiet host1:5000/underlay/gateway@sha256:0000000000000000000000000000000000000000000000000000000000000000

# Docker image host1:5000/underlay/product@sha256:0000000000000000000000000000000000000000000000000000000000000001
docker pull --quiet host1:5000/underlay/product@sha256:0000000000000000000000000000000000000000000000000000000000000001

# Docker image host1:5000/underlay/order@sha256:0000000000000000000000000000000000000000000000000000000000000002
docker pull --quiet host1:5000/underlay/order@sha256:0000000000000000000000000000000000000000000000000000000000000002

# Docker image host1:5000/underlay/edge@sha256:0000000000000000000000000000000000000000000000000000000000000003
docker pull --quiet host1:5000/underlay/edge@sha256:0000000000000000000000000000000000000000000000000000000000000003

# Docker image host1:5000/underlay/cache@sha256:0000000000000000000000000000000000000000000000000000000000000004
docker pull --quiet host1:5000/underlay/cache@sha256:0000000000000000000000000000000000000000000000000000000000000004

# Docker image host1:5000/underlay/database@sha256:0000000000000000000000000000000000000000000000000000000000000005
docker pull --quiet host1:5000/underlay/database@sha256:0000000000000000000000000000000000000000000000000000000000000005


# 6. A network for each tier
#
# What phase 1 does with a bridge, an address and rules, Docker does with one command. The bridges
# have names that a person can read, and containers on one bridge do not reach each other unless a
# rule lets them (icc). Where nobody is to go out or come in, the network is internal: it has no way
# to anywhere.

# Docker network shop_frontend
docker network create --driver bridge --subnet 10.79.1.0/24 --gateway 10.79.1.1 --opt com.docker.network.bridge.name=p2-frontend --opt com.docker.network.bridge.enable_icc=false --opt com.docker.network.driver.mtu=1500 --label com.docker.compose.network=frontend --label com.docker.compose.project=shop --label underlay.phase=phase2 shop_frontend

# sysctl net.ipv6.conf.p2-frontend.disable_ipv6
sysctl -qw net.ipv6.conf.p2-frontend.disable_ipv6=1

# sysctl net.ipv4.conf.p2-frontend.route_localnet
sysctl -qw net.ipv4.conf.p2-frontend.route_localnet=0

# Docker network shop_backend
docker network create --driver bridge --subnet 10.79.2.0/24 --gateway 10.79.2.1 --opt com.docker.network.bridge.name=p2-backend --opt com.docker.network.bridge.enable_icc=false --opt com.docker.network.driver.mtu=1500 --label com.docker.compose.network=backend --label com.docker.compose.project=shop --label underlay.phase=phase2 shop_backend

# sysctl net.ipv6.conf.p2-backend.disable_ipv6
sysctl -qw net.ipv6.conf.p2-backend.disable_ipv6=1

# sysctl net.ipv4.conf.p2-backend.route_localnet
sysctl -qw net.ipv4.conf.p2-backend.route_localnet=0

# Docker network shop_data
docker network create --driver bridge --subnet 10.79.3.0/24 --gateway 10.79.3.1 --internal --opt com.docker.network.bridge.name=p2-data --opt com.docker.network.bridge.enable_icc=false --opt com.docker.network.driver.mtu=1500 --label com.docker.compose.network=data --label com.docker.compose.project=shop --label underlay.phase=phase2 shop_data

# sysctl net.ipv6.conf.p2-data.disable_ipv6
sysctl -qw net.ipv6.conf.p2-data.disable_ipv6=1

# sysctl net.ipv4.conf.p2-data.route_localnet
sysctl -qw net.ipv4.conf.p2-data.route_localnet=0

# Docker rules


# 7. The shop
#
# A container for each replica, at its planned address and by the names of the plan, started by
# Compose when those it needs are healthy. Each may use half a processor and a fixed part of memory,
# has no rights, and writes in one place of its own, in memory. Passwords are files that one user can
# read.

# directory /etc/underlay/phase2/secrets
install -d -m 755 -o root -g root /etc/underlay/phase2/secrets

# file /etc/underlay/phase2/secrets/postgres.product
python3 -m provision secret 'phase2 product' /etc/underlay/phase2/secrets/postgres.product --owner 10006

# file /etc/underlay/phase2/secrets/postgres.order
python3 -m provision secret 'phase2 order' /etc/underlay/phase2/secrets/postgres.order --owner 10006

# file /etc/underlay/phase2/secrets/product
python3 -m provision secret 'phase2 product' /etc/underlay/phase2/secrets/product --owner 10002

# file /etc/underlay/phase2/secrets/order
python3 -m provision secret 'phase2 order' /etc/underlay/phase2/secrets/order --owner 10003

# directory /etc/underlay/phase2/postgres-1
install -d -m 755 -o root -g root /etc/underlay/phase2/postgres-1

# file /etc/underlay/phase2/postgres-1/pg_hba.conf
mkdir -p /etc/underlay/phase2/postgres-1
cat > /etc/underlay/phase2/postgres-1/pg_hba.conf <<'END'
# Made by Underlay, phase2.
local all postgres peer map=lab
host shop product 10.79.3.61/32 scram-sha-256
host shop product 10.79.3.62/32 scram-sha-256
host shop order 10.79.3.63/32 scram-sha-256
END

# file /etc/underlay/phase2/postgres-1/pg_ident.conf
mkdir -p /etc/underlay/phase2/postgres-1
cat > /etc/underlay/phase2/postgres-1/pg_ident.conf <<'END'
# Made by Underlay, phase2.
lab postgres postgres
END

# file /etc/underlay/phase2/postgres-1/database.sql
mkdir -p /etc/underlay/phase2/postgres-1
cat > /etc/underlay/phase2/postgres-1/database.sql <<'END'
SET log_min_error_statement = panic;
\set password `cat /run/secrets/product`
SELECT 'CREATE ROLE "product" LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'product') \gexec
ALTER ROLE "product" PASSWORD :'password';
\set product_role product
\set password `cat /run/secrets/order`
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
END

# directory /etc/underlay/phase2/edge-1
install -d -m 755 -o root -g root /etc/underlay/phase2/edge-1

# file /etc/underlay/phase2/edge-1/nginx.conf
mkdir -p /etc/underlay/phase2/edge-1
cat > /etc/underlay/phase2/edge-1/nginx.conf <<'END'
# Made by Underlay, phase2.
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
pid /run/shop/nginx.pid;
error_log stderr warn;

events {
    worker_connections 4096;
}

http {
    client_body_temp_path /run/shop/client_body;
    proxy_temp_path /run/shop/proxy;
    fastcgi_temp_path /run/shop/fastcgi;
    uwsgi_temp_path /run/shop/uwsgi;
    scgi_temp_path /run/shop/scgi;

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
        server 10.79.1.20:3000 max_fails=1 fail_timeout=2s;
        server 10.79.1.21:3000 max_fails=1 fail_timeout=2s;
        keepalive 16;
        # Shorter than the gateways keep an idle connection (75 s), so that this side closes first.
        keepalive_timeout 30s;
    }

    server {
        listen 10.79.1.10:80;
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

# Docker volume shop_postgres-1
docker volume create --label com.docker.compose.project=shop --label com.docker.compose.volume=postgres-1 --label underlay.phase=phase2 shop_postgres-1

# file /etc/underlay/phase2/compose.yaml
mkdir -p /etc/underlay/phase2
cat > /etc/underlay/phase2/compose.yaml <<'END'
# Made by Underlay, phase2.
# The shop in containers. Everything in here follows from the plan; a change is undone by the next converge.
#   docker compose --file /etc/underlay/phase2/compose.yaml ps
name: shop

# What all of them have in common: no rights, a root that nobody writes in, and an end to what they may use.
x-confined: &confined
  # Not unless-stopped: a daemon that was killed stops, when it is back, what still runs, and leaves it so.
  restart: always
  read_only: true
  cap_drop: [ALL]
  security_opt: ['no-new-privileges:true']
  # A core dump would have the passwords.
  ulimits: {core: 0}
  logging: {driver: json-file, options: {max-size: 1m, max-file: '2'}}

services:
  postgres-1:
    <<: *confined
    image: host1:5000/underlay/database@sha256:0000000000000000000000000000000000000000000000000000000000000005
    container_name: postgres-1
    hostname: postgres-1
    command:
      - "-c"
      - "listen_addresses=10.79.3.60"
      - "-c"
      - "port=5432"
      - "-c"
      - "unix_socket_directories=/run/shop"
      - "-c"
      - "hba_file=/etc/shop/pg_hba.conf"
      - "-c"
      - "ident_file=/etc/shop/pg_ident.conf"
      - "-c"
      - "shared_buffers=32MB"
      - "-c"
      - "max_connections=100"
    environment:
      BIND_ADDRESS: "10.79.3.60"
      DATABASE_NAME: "shop"
      DATABASE_SCRIPT: "/etc/shop/database.sql"
      PORT: "5432"
      REPLICA: "postgres-1"
    networks:
      data:
        ipv4_address: 10.79.3.60
        aliases: [postgres, postgres.shop.internal, postgres-1.shop.internal]
    cpus: 0.5
    mem_limit: 256m
    memswap_limit: 256m
    pids_limit: 256
    healthcheck:
      start_interval: 500ms
      start_period: 30s
      interval: 5s
      timeout: 5s
      retries: 3
    tmpfs: ["/run/shop:uid=10006,gid=10006,mode=700,size=16m"]
    volumes:
      - /etc/underlay/phase2/postgres-1/pg_hba.conf:/etc/shop/pg_hba.conf:ro
      - /etc/underlay/phase2/postgres-1/pg_ident.conf:/etc/shop/pg_ident.conf:ro
      - /etc/underlay/phase2/postgres-1/database.sql:/etc/shop/database.sql:ro
      - postgres-1:/var/lib/shop/postgresql
    secrets:
      - {source: postgres.product, target: product}
      - {source: postgres.order, target: order}
    labels: {underlay.phase: phase2, underlay.inputs: "7ad8b6ba5fed"}

  redis-1:
    <<: *confined
    image: host1:5000/underlay/cache@sha256:0000000000000000000000000000000000000000000000000000000000000004
    container_name: redis-1
    hostname: redis-1
    command:
      - "redis-server"
      - "--bind"
      - "10.79.3.50"
      - "--port"
      - "6379"
      - "--protected-mode"
      - "no"
      - "--save"
      - ""
      - "--appendonly"
      - "no"
      - "--maxmemory"
      - "64mb"
      - "--maxmemory-policy"
      - "allkeys-lru"
      - "--dir"
      - "/run/shop"
    environment:
      BIND_ADDRESS: "10.79.3.50"
      PORT: "6379"
      REPLICA: "redis-1"
    networks:
      data:
        ipv4_address: 10.79.3.50
        aliases: [redis, redis.shop.internal, redis-1.shop.internal]
    cpus: 0.5
    mem_limit: 128m
    memswap_limit: 128m
    pids_limit: 64
    healthcheck:
      start_interval: 500ms
      start_period: 30s
      interval: 5s
      timeout: 5s
      retries: 3
    tmpfs: ["/run/shop:uid=10005,gid=10005,mode=700,size=16m"]
    labels: {underlay.phase: phase2, underlay.inputs: "e3b0c44298fc"}

  product-1:
    <<: *confined
    image: host1:5000/underlay/product@sha256:0000000000000000000000000000000000000000000000000000000000000001
    container_name: product-1
    hostname: product-1
    environment:
      BIND_ADDRESS: "10.79.2.30"
      CACHE_TTL: "300"
      DATABASE_CONNECT_TIMEOUT: "2"
      DATABASE_HOST: "postgres"
      DATABASE_NAME: "shop"
      DATABASE_PASSWORD_FILE: "/run/secrets/password"
      DATABASE_PORT: "5432"
      DATABASE_STATEMENT_TIMEOUT: "2"
      DATABASE_USER: "product"
      DATABASE_WAIT_TIMEOUT: "2"
      PORT: "5000"
      REDIS_HOST: "redis"
      REDIS_PORT: "6379"
      REPLICA: "product-1"
    networks:
      backend:
        ipv4_address: 10.79.2.30
        aliases: [product, product.shop.internal, product-1.shop.internal]
      data:
        ipv4_address: 10.79.3.61
    cpus: 0.5
    mem_limit: 128m
    memswap_limit: 128m
    pids_limit: 64
    healthcheck:
      start_interval: 500ms
      start_period: 30s
      interval: 5s
      timeout: 5s
      retries: 3
    tmpfs: ["/run/shop:uid=10002,gid=10002,mode=700,size=16m"]
    secrets:
      - {source: product, target: password}
    depends_on:
      redis-1: {condition: service_healthy}
      postgres-1: {condition: service_healthy}
    labels: {underlay.phase: phase2, underlay.inputs: "e3b0c44298fc"}

  product-2:
    <<: *confined
    image: host1:5000/underlay/product@sha256:0000000000000000000000000000000000000000000000000000000000000001
    container_name: product-2
    hostname: product-2
    environment:
      BIND_ADDRESS: "10.79.2.31"
      CACHE_TTL: "300"
      DATABASE_CONNECT_TIMEOUT: "2"
      DATABASE_HOST: "postgres"
      DATABASE_NAME: "shop"
      DATABASE_PASSWORD_FILE: "/run/secrets/password"
      DATABASE_PORT: "5432"
      DATABASE_STATEMENT_TIMEOUT: "2"
      DATABASE_USER: "product"
      DATABASE_WAIT_TIMEOUT: "2"
      PORT: "5000"
      REDIS_HOST: "redis"
      REDIS_PORT: "6379"
      REPLICA: "product-2"
    networks:
      backend:
        ipv4_address: 10.79.2.31
        aliases: [product, product.shop.internal, product-2.shop.internal]
      data:
        ipv4_address: 10.79.3.62
    cpus: 0.5
    mem_limit: 128m
    memswap_limit: 128m
    pids_limit: 64
    healthcheck:
      start_interval: 500ms
      start_period: 30s
      interval: 5s
      timeout: 5s
      retries: 3
    tmpfs: ["/run/shop:uid=10002,gid=10002,mode=700,size=16m"]
    secrets:
      - {source: product, target: password}
    depends_on:
      redis-1: {condition: service_healthy}
      postgres-1: {condition: service_healthy}
    labels: {underlay.phase: phase2, underlay.inputs: "e3b0c44298fc"}

  order-1:
    <<: *confined
    image: host1:5000/underlay/order@sha256:0000000000000000000000000000000000000000000000000000000000000002
    container_name: order-1
    hostname: order-1
    environment:
      BIND_ADDRESS: "10.79.2.40"
      DATABASE_CONNECT_TIMEOUT: "2"
      DATABASE_HOST: "postgres"
      DATABASE_NAME: "shop"
      DATABASE_PASSWORD_FILE: "/run/secrets/password"
      DATABASE_PORT: "5432"
      DATABASE_STATEMENT_TIMEOUT: "2"
      DATABASE_USER: "order"
      DATABASE_WAIT_TIMEOUT: "2"
      PORT: "5000"
      REPLICA: "order-1"
    networks:
      backend:
        ipv4_address: 10.79.2.40
        aliases: [order, order.shop.internal, order-1.shop.internal]
      data:
        ipv4_address: 10.79.3.63
    cpus: 0.5
    mem_limit: 128m
    memswap_limit: 128m
    pids_limit: 64
    healthcheck:
      start_interval: 500ms
      start_period: 30s
      interval: 5s
      timeout: 5s
      retries: 3
    tmpfs: ["/run/shop:uid=10003,gid=10003,mode=700,size=16m"]
    secrets:
      - {source: order, target: password}
    depends_on:
      postgres-1: {condition: service_healthy}
    labels: {underlay.phase: phase2, underlay.inputs: "e3b0c44298fc"}

  gateway-1:
    <<: *confined
    image: host1:5000/underlay/gateway@sha256:0000000000000000000000000000000000000000000000000000000000000000
    container_name: gateway-1
    hostname: gateway-1
    environment:
      BIND_ADDRESS: "10.79.1.20"
      ORDER_URL: "http://order:5000"
      PORT: "3000"
      PRODUCT_URL: "http://product:5000"
      REPLICA: "gateway-1"
      UPSTREAM_CONNECT_TIMEOUT: "2"
      UPSTREAM_READ_TIMEOUT: "5"
      UPSTREAM_TOTAL_TIMEOUT: "6.5"
    networks:
      frontend:
        ipv4_address: 10.79.1.20
        aliases: [gateway, gateway.shop.internal, gateway-1.shop.internal]
      backend:
        ipv4_address: 10.79.2.41
    cpus: 0.5
    mem_limit: 128m
    memswap_limit: 128m
    pids_limit: 64
    healthcheck:
      start_interval: 500ms
      start_period: 30s
      interval: 5s
      timeout: 5s
      retries: 3
    tmpfs: ["/run/shop:uid=10001,gid=10001,mode=700,size=16m"]
    depends_on:
      product-1: {condition: service_healthy}
      product-2: {condition: service_healthy}
      order-1: {condition: service_healthy}
    labels: {underlay.phase: phase2, underlay.inputs: "e3b0c44298fc"}

  gateway-2:
    <<: *confined
    image: host1:5000/underlay/gateway@sha256:0000000000000000000000000000000000000000000000000000000000000000
    container_name: gateway-2
    hostname: gateway-2
    environment:
      BIND_ADDRESS: "10.79.1.21"
      ORDER_URL: "http://order:5000"
      PORT: "3000"
      PRODUCT_URL: "http://product:5000"
      REPLICA: "gateway-2"
      UPSTREAM_CONNECT_TIMEOUT: "2"
      UPSTREAM_READ_TIMEOUT: "5"
      UPSTREAM_TOTAL_TIMEOUT: "6.5"
    networks:
      frontend:
        ipv4_address: 10.79.1.21
        aliases: [gateway, gateway.shop.internal, gateway-2.shop.internal]
      backend:
        ipv4_address: 10.79.2.42
    cpus: 0.5
    mem_limit: 128m
    memswap_limit: 128m
    pids_limit: 64
    healthcheck:
      start_interval: 500ms
      start_period: 30s
      interval: 5s
      timeout: 5s
      retries: 3
    tmpfs: ["/run/shop:uid=10001,gid=10001,mode=700,size=16m"]
    depends_on:
      product-1: {condition: service_healthy}
      product-2: {condition: service_healthy}
      order-1: {condition: service_healthy}
    labels: {underlay.phase: phase2, underlay.inputs: "e3b0c44298fc"}

  edge-1:
    <<: *confined
    image: host1:5000/underlay/edge@sha256:0000000000000000000000000000000000000000000000000000000000000003
    container_name: edge-1
    hostname: edge-1
    environment:
      BIND_ADDRESS: "10.79.1.10"
      PORT: "80"
      REPLICA: "edge-1"
    networks:
      frontend:
        ipv4_address: 10.79.1.10
        aliases: [edge, edge.shop.internal, edge-1.shop.internal]
    ports: ["9080:80"]
    cpus: 0.5
    mem_limit: 128m
    memswap_limit: 128m
    pids_limit: 64
    healthcheck:
      start_interval: 500ms
      start_period: 30s
      interval: 5s
      timeout: 5s
      retries: 3
    tmpfs: ["/run/shop:uid=10004,gid=10004,mode=700,size=16m"]
    volumes:
      - /etc/underlay/phase2/edge-1/nginx.conf:/etc/shop/nginx.conf:ro
    depends_on:
      gateway-1: {condition: service_healthy}
      gateway-2: {condition: service_healthy}
    labels: {underlay.phase: phase2, underlay.inputs: "7212f46d02f1"}

networks:
  frontend:
    ipam: {config: [{subnet: 10.79.1.0/24, gateway: 10.79.1.1}]}
    driver_opts:
      com.docker.network.bridge.name: "p2-frontend"
      com.docker.network.bridge.enable_icc: "false"
      com.docker.network.driver.mtu: "1500"
    labels: {underlay.phase: phase2}
  backend:
    ipam: {config: [{subnet: 10.79.2.0/24, gateway: 10.79.2.1}]}
    driver_opts:
      com.docker.network.bridge.name: "p2-backend"
      com.docker.network.bridge.enable_icc: "false"
      com.docker.network.driver.mtu: "1500"
    labels: {underlay.phase: phase2}
  data:
    internal: true
    ipam: {config: [{subnet: 10.79.3.0/24, gateway: 10.79.3.1}]}
    driver_opts:
      com.docker.network.bridge.name: "p2-data"
      com.docker.network.bridge.enable_icc: "false"
      com.docker.network.driver.mtu: "1500"
    labels: {underlay.phase: phase2}

volumes:
  postgres-1:
    labels: {underlay.phase: phase2}

secrets:
  postgres.product: {file: /etc/underlay/phase2/secrets/postgres.product}
  postgres.order: {file: /etc/underlay/phase2/secrets/postgres.order}
  product: {file: /etc/underlay/phase2/secrets/product}
  order: {file: /etc/underlay/phase2/secrets/order}
END

# container postgres-1
docker compose --env-file /dev/null --file /etc/underlay/phase2/compose.yaml up --detach --quiet-pull --pull never --no-build postgres-1

# container redis-1
docker compose --env-file /dev/null --file /etc/underlay/phase2/compose.yaml up --detach --quiet-pull --pull never --no-build redis-1

# container product-1
docker compose --env-file /dev/null --file /etc/underlay/phase2/compose.yaml up --detach --quiet-pull --pull never --no-build product-1

# container product-2
docker compose --env-file /dev/null --file /etc/underlay/phase2/compose.yaml up --detach --quiet-pull --pull never --no-build product-2

# container order-1
docker compose --env-file /dev/null --file /etc/underlay/phase2/compose.yaml up --detach --quiet-pull --pull never --no-build order-1

# container gateway-1
docker compose --env-file /dev/null --file /etc/underlay/phase2/compose.yaml up --detach --quiet-pull --pull never --no-build gateway-1

# container gateway-2
docker compose --env-file /dev/null --file /etc/underlay/phase2/compose.yaml up --detach --quiet-pull --pull never --no-build gateway-2

# container edge-1
docker compose --env-file /dev/null --file /etc/underlay/phase2/compose.yaml up --detach --quiet-pull --pull never --no-build edge-1


# The supervisor watches a program for a second before it calls it running.
wait
