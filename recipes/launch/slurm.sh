#!/usr/bin/env bash
# Trains a recipe on several nodes under SLURM, one task a node, every GPU of each.
# Run:  sbatch --nodes 2 recipes/launch/slurm.sh RECIPE.yaml [key=value ...]
#SBATCH --job-name=clinalign
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --output=clinalign-%j.log
set -euo pipefail
HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-8}" \
  --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$HEAD:29500" -m alignment train "$@"
