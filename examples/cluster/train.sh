#!/bin/bash
# SLURM: training of one network on several computers, by torchrun.
#
#   sbatch --nodes=4 train.sh calibration.h5 model.onnx [options of liveptv train]
#
# A process for each GPU, or for each core where there is none. The checkpoint is beside the model: submit the same
# again, with any number of nodes, and the training goes on and replaces the model. SLURM ends it ten minutes before the
# time is over, and the best network so far is written.
#SBATCH --job-name=liveptv-train
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=2G
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@600
#SBATCH --output=liveptv-train-%j.txt
set -euo pipefail

processes=${SLURM_GPUS_ON_NODE:-${SLURM_CPUS_PER_TASK:-1}}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=540 # seconds in which the network is written after such an end
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)

srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$processes" --rdzv-backend c10d \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:${PORT:-29500}" \
  -m liveptv train "$1" --output "$2" --checkpoint "$2.checkpoint" --overwrite "${@:3}"
