#!/usr/bin/env bash
# Trains a recipe on every device of one node (two processes where there is no GPU).
# Run:  bash recipes/launch/node.sh RECIPE.yaml [key=value ...]      PROCESSES=4 to choose how many
set -euo pipefail
PROCESSES="${PROCESSES:-$(nvidia-smi -L 2>/dev/null | wc -l)}"
if [ "$PROCESSES" -eq 0 ]; then PROCESSES=2; export DS_ACCELERATOR=cpu; fi
exec torchrun --standalone --nproc_per_node "$PROCESSES" -m alignment train "$@"
