#!/usr/bin/env bash
#SBATCH --job-name=ocr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=02:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ocr-%j.log
# Both stages on two nodes of eight GPUs: sbatch recipes/two-nodes/slurm.sh, from the folder of the
# project, which all nodes must see, as SHARDS and RUNS. Two minutes before the time is up the ranks
# get SIGUSR1 and save; the job is queued again and goes on.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Slurm signals every process of a step. torchrun would end at SIGUSR1, so it ignores it; the ranks
# handle it.
status=0
BATCH1=160 BATCH2=32 recipes/train.sh \
    srun --cpus-per-task "$SLURM_CPUS_PER_TASK" bash -c 'trap "" USR1; exec "$@"' bash \
    torchrun --nnodes "$SLURM_NNODES" --nproc_per_node 8 --max-restarts 3 \
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$first:29500" || status=$?
if [ "$status" = 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
