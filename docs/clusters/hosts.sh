#!/bin/sh
# Scheduler and workers as plain processes, on any hosts that see the stores: run the lines on their hosts.
#   SCHEDULER=tcp://head:8786 sh hosts.sh scheduler     on one host
#   SCHEDULER=tcp://head:8786 sh hosts.sh cpu           on each host without a GPU: decodes, joins, paints
#   SCHEDULER=tcp://head:8786 sh hosts.sh gpu           on each host with GPUs: one worker per GPU
#   platelayer segment plate.zarr --executor tcp://head:8786 --output s3://...
# The same platelayer must be installed everywhere; a difference is refused by name.
set -eu
export OMP_NUM_THREADS=1
case "$1" in
scheduler) exec dask scheduler --port "${SCHEDULER##*:}" ;;
cpu) exec dask worker "$SCHEDULER" --nworkers "$(nproc)" --nthreads 1 --memory-limit 0 ;;
gpu)
    for gpu in $(nvidia-smi --query-gpu=index --format=csv,noheader); do
        CUDA_VISIBLE_DEVICES=$gpu dask worker "$SCHEDULER" --nthreads 3 --resources "GPU=1" --memory-limit 0 &
    done
    wait ;;
*) echo "expected scheduler, cpu or gpu" >&2; exit 2 ;;
esac
