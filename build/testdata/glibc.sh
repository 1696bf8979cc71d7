#!/usr/bin/env bash
# Looks names up through glibc, whose resolver asks port 53 of what
# /etc/resolv.conf names: in namespaces of its own, beside a DNS server there.
#   glibc.sh "DATABASE NAME"... -- SERVER...
# It prints the code of each `getent DATABASE NAME` and the addresses it gave.
# The caller runs it in new mount and network namespaces.
set -euo pipefail
lookups=()
while [ "$1" != -- ]; do lookups+=("$1"); shift; done
shift

# getent asks for no family of which the machine has no address (AI_ADDRCONFIG).
ip link set lo up
ip link add up0 type veth peer name up1
ip addr add 10.9.0.1/24 dev up0
ip addr add fd09::1/64 dev up0 nodad
ip link set up0 up
ip link set up1 up

dir=$(mktemp -d)
printf 'nameserver 127.0.0.1\nsearch fluid.internal\noptions timeout:2\n' >"$dir/resolv.conf"
printf 'hosts: dns\n' >"$dir/nsswitch.conf"
for file in resolv.conf nsswitch.conf; do mount --bind "$dir/$file" "/etc/$file"; done

trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
"$@" &
for _ in $(seq 100); do
  getent ahostsv4 checkout.fluid.internal >/dev/null && break
  sleep 0.1
done
for lookup in "${lookups[@]}"; do
  code=0
  # shellcheck disable=SC2086 # two words
  out=$(getent $lookup) || code=$?
  echo "$lookup: code $code: $(awk '{print $1}' <<<"$out" | sort -u | xargs)"
done
