#!/bin/sh
# A cluster over SSH: sh ssh.sh head node1 node2 ...; platelayer at the same path on every host; Ctrl-C ends it all.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
HEAD=$1; shift
trap 'kill 0' INT TERM EXIT
ssh "$HEAD" "SCHEDULER=tcp://$HEAD:8786 sh -s scheduler" < "$HERE/hosts.sh" &
sleep 5
for node in "$@"; do
    kind=$(ssh "$node" 'command -v nvidia-smi >/dev/null && echo gpu || echo cpu')
    ssh "$node" "SCHEDULER=tcp://$HEAD:8786 sh -s $kind" < "$HERE/hosts.sh" &
done
wait
