#!/usr/bin/env bash
# Runs systemd-resolved with a configuration in namespaces of its own, beside a
# DNS server on 127.0.0.1:1053, and prints its answer for a name.
#   resolved.sh RESOLVED CONF NAME SERVER...
# The caller runs it in new mount and network namespaces.
set -euo pipefail
resolved=$1 conf=$2 name=$3
shift 3

# systemd-resolved forwards only on a machine that has a network.
ip link set lo up
ip link add up0 type veth peer name up1
ip addr add 10.9.0.1/24 dev up0
ip link set up0 up
ip link set up1 up
ip route add default dev up0

mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/resolved.conf.d
cp "$conf" /run/systemd/resolved.conf.d/fluid.conf
if ! id systemd-resolve >/dev/null 2>&1; then
  for file in passwd group; do cp /etc/$file /run/$file; done
  echo 'systemd-resolve:x:990:990::/:/usr/sbin/nologin' >>/run/passwd
  echo 'systemd-resolve:x:990:' >>/run/group
  for file in passwd group; do mount --bind /run/$file /etc/$file; done
fi

trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
"$@" &
"$resolved" &
for _ in $(seq 100); do
  answer=$(dig @127.0.0.53 "$name" A +short +time=1 +tries=1 || true)
  if [[ $answer =~ ^[0-9.]+$ ]]; then echo "answer: $answer"; exit 0; fi
  sleep 0.1
done
echo "no answer within 10 s"
exit 1
