#!/usr/bin/env bash
# Both stages, one after the other, then the scores. Run it again to go on with what was stopped.
#   recipes/train.sh python                                     one GPU
#   BATCH1=80 BATCH2=16 recipes/train.sh torchrun --nproc_per_node 8    eight
# The arguments start Python on a module. SHARDS and RUNS are the folders of the shards and of the
# runs; BATCH1 and BATCH2 are the rows of a step over all GPUs, which must divide them. MICRO=1 takes
# one row at a time and recomputes activations, for GPUs of 24 GB. EVALUATE=0 leaves the scores out.
# Exit status 75: a stage was stopped before its end and has saved where it was.
set -euo pipefail
shards=${SHARDS:-shards} runs=${RUNS:-runs}
launcher=("$@") memory=()
if [ -n "${MICRO:-}" ]; then memory=(--micro-batch "$MICRO" --checkpointing); fi

# The launcher gets Ctrl-C and SIGTERM once, from here, and has a process group of its own: a rank
# that is told to stop twice stops at once, without saving.
set -m
child= told=
pass_on() {
    told=1
    [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null || true
}
for name in INT TERM; do
    trap "pass_on $name" "$name"
done

launch() {
    local status=0
    "${launcher[@]}" -m "$@" &
    child=$!
    wait "$child" || status=$?
    while kill -0 "$child" 2>/dev/null; do # a trap ended the wait, not the child
        status=0
        wait "$child" || status=$?
    done
    child=
    return "$status"
}

has_ended() { compgen -G "$1/deepencoder_*.safetensors" >/dev/null; }

stage() {
    local name=$1 run=$runs/$1-full resume=() status=0
    shift
    if has_ended "$run"; then return; fi
    if [ -e "$run/config.json" ]; then resume=(--resume); fi
    launch "ocrtrain.$name" --out "$run" "$@" "${memory[@]}" "${resume[@]}" || status=$?
    if has_ended "$run"; then return; fi
    if [ -n "$told" ] || [ "$status" = 0 ] || [ "$status" = 130 ]; then exit 75; fi
    exit "$status"
}

stage stage1 --shards "$shards/chartqa.json" --batch "${BATCH1:-10}"
encoder=$(compgen -G "$runs/stage1-full/deepencoder_*.safetensors" | tail -n 1)
stage stage2 --shards "$shards/chartqa.json" --text "$shards/smoltalk-train.json" \
    --val-text "$shards/smoltalk-test.json[:100]" --deepencoder "$encoder" \
    --batch "${BATCH2:-2}"
if [ "${EVALUATE:-1}" = 1 ]; then # one process does it, on one GPU
    python -m ocrtrain.evaluate --checkpoint "$runs/stage2-full" --exchange \
        --shards "$shards/chartqa.json[18000:18100]"
fi
