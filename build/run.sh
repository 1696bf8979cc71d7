#!/usr/bin/env bash
# Starts CoreDNS and an agent on loopback, registers a demo app, asks for it by
# DNS, and stays until Ctrl-C. All state is in a temporary directory.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/build/bin
dir=$(mktemp -d "${TMPDIR:-/tmp}/fluid.XXXXXX")
dns=127.0.0.1:1053

export FLUID_DATA_DIR=$dir/agent FLUID_SOCKET=$dir/run/agent.sock
export GOSSIP_IMPL=${GOSSIP_IMPL:-crdt} # of both, see Corefile.example
export FLUID_HTTP_BIND=${FLUID_HTTP_BIND:-127.0.0.1:18080}
export FLUID_ADDR=http://$FLUID_HTTP_BIND
pids=()

stop() {
  trap - INT TERM EXIT
  echo
  echo "stopping"
  local code=0
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
  rm -rf "$dir"
  exit "$code"
}
die() {
  echo "$1" >&2
  tail -n 20 "$dir"/*.log >&2
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait || true
  rm -rf "$dir"
  exit 1
}
until_true() { # until_true WHAT COMMAND...: retry for 15 s
  local what=$1
  shift
  for _ in $(seq 150); do
    "$@" >/dev/null 2>&1 && return
    for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null || die "$what: a process ended"; done
    sleep 0.1
  done
  die "$what: not within 15 s"
}

"$bin/fluid-agent" >"$dir/agent.log" 2>&1 &
pids+=($!)
"$bin/coredns" -conf "$root/Corefile.example" >"$dir/coredns.log" 2>&1 &
pids+=($!)
trap stop INT TERM

until_true "agent" "$bin/fluidctl" status
"$bin/fluidctl" -app checkout -ip 10.0.0.9
until_true "answer" "$bin/fluidctl" resolve checkout --dns "$dns"

echo
"$bin/fluidctl" resolve checkout --dns "$dns"
cat <<MESSAGE

Fluid runs. Ask it:

  dig @127.0.0.1 -p 1053 checkout.fluid.internal A +short

  agent    $FLUID_ADDR (curl $FLUID_ADDR/v1/services/checkout)
  dns      $dns, metrics on 127.0.0.1:9153, ready on 127.0.0.1:8181
  logs     $dir/agent.log, $dir/coredns.log
  fluidctl build/bin/fluidctl register web --ip 10.0.0.10 --port 8080

Ctrl-C stops both.
MESSAGE

set +e
wait -n "${pids[@]}"
die "a process ended by itself"
