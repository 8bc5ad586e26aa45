#!/bin/sh
# A cluster over SSH: sh ssh.sh head node1 node2 ...; platelayer at the same path on every host; Ctrl-C ends it all.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
HEAD=$1
trap 'trap - TERM; kill 0' INT TERM EXIT
start() {  # host, kind of process; with a terminal of its own, so that it ends with its connection
    ssh "$1" "cat > .platelayer-hosts.sh" < "$HERE/hosts.sh"
    ssh -tt "$1" "SCHEDULER=tcp://$HEAD:8786 sh .platelayer-hosts.sh $2" < /dev/null &
}
start "$HEAD" scheduler; shift
sleep 5
for node in "$@"; do
    start "$node" "$(ssh -n "$node" 'command -v nvidia-smi >/dev/null && echo gpu || echo cpu')"
done
wait
