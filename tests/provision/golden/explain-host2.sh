#!/bin/sh
# Made by Underlay, phase1.
# phase1 on host2, one command at a time. Run it as root, in /vagrant, on a host without it.
# To take it away again: python3 -m provision remove phase1
set -eu
