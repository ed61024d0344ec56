#!/bin/bash
# fastgan on several machines under SLURM: sbatch slurm.sh
# One task a node starts torchrun, which starts a process a GPU. Five minutes before its time is
# over the job is told to save; it is queued again, and goes on with its run then.
#SBATCH --job-name=gan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

RUN=/shared/runs/mine            # where all nodes see it
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# TERM goes to every torchrun, which hands it on: fastgan finishes its step and saves, within 30 s.
srun --kill-on-bad-exit=0 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "slurm-$SLURM_JOB_ID" \
    -m fastgan train --out "$RUN" --data /shared/my_images --size 64 --batch-size 2048 --steps 200000
code=$?

# Queued again it has the same number, by which it knows its run.
if [ "$code" -ne 0 ] && [ -e "$RUN/run.json" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
