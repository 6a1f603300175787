#!/bin/sh
# A distributed job without train/launch.py: which environment each process needs. Here all of them
# run on this machine; Slurm, Kubernetes or any other launcher sets the same variables on its nodes.
#
#     PYTHON=.venv/bin/python WORKERS=2 SERVERS=1 train/distributed/by_hand.sh --config ... --data-root ...
#
# DMLC_PS_ROOT_URI is the address of the scheduler's node, DMLC_INTERFACE each node's (private!)
# network device. Servers and scheduler take no arguments and end with the workers.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
export DMLC_NUM_WORKER="${WORKERS:-2}" DMLC_NUM_SERVER="${SERVERS:-1}"
export DMLC_PS_ROOT_URI="${ROOT_URI:-127.0.0.1}" DMLC_PS_ROOT_PORT="${ROOT_PORT:-9091}"
export DMLC_INTERFACE="${INTERFACE:-lo}"
[ "$DMLC_INTERFACE" != lo ] || export DMLC_NODE_HOST=127.0.0.1

trap '' TERM INT USR1 # the workers save on them; this shell and the servers wait for that
DMLC_ROLE=scheduler "$python" -c 'import mxnet' &
for rank in $(seq "$DMLC_NUM_SERVER"); do
    DMLC_ROLE=server "$python" -c 'import mxnet' &
done
workers=
for rank in $(seq "$DMLC_NUM_WORKER"); do
    DMLC_ROLE=worker DMLC_RANK=$((rank - 1)) "$python" "$here/../train_model.py" "$@" &
    workers="$workers $!"
done
code=0
for worker in $workers; do
    wait "$worker" || code=$?
done
exit "$code"
