#!/bin/bash
# SLURM: detection and tracking of many recordings as an array of jobs. Job n of N does every N-th recording.
#
#   sbatch --array=1-40 batch_array.sh FOLDER_OR_LIST model.onnx RESULTS [options of liveptv batch]
#
# Submit the same again to do what is missing: what is done is not done twice. When all jobs have ended,
# `liveptv batch FOLDER_OR_LIST -m model.onnx -o RESULTS` writes one table of all of them.
#SBATCH --job-name=liveptv
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=liveptv-%A-%a.txt
set -euo pipefail

part=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1))
exec liveptv batch "$1" --model "$2" --output "$3" --only "$part/$SLURM_ARRAY_TASK_COUNT" \
  --workers "${SLURM_CPUS_PER_TASK:-1}" "${@:4}"
