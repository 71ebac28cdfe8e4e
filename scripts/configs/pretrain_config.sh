#!/usr/bin/env bash
# Presets for scripts/run_pretraining.sh: each function prints the name=value words of a job in configurations.yml.
#
#   source scripts/configs/pretrain_config.sh && bash scripts/run_pretraining.sh $(dgxa100-80g_8gpu_fp16)
#
# What a preset does not print (data directories, vocabulary) keeps its default or is added as name=value.

# preset <job>
preset() (
  CODEDIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  # shellcheck source=scripts/launch.sh
  source "$CODEDIR/scripts/launch.sh"
  "$(find_python)" "$CODEDIR/scripts/launch.py" --config "$CODEDIR/configurations.yml" --preset "$1"
)

# 8 x A100 80 GB, BERT-large.
dgxa100-80g_8gpu_fp16() { preset "${FUNCNAME[0]}"; }
dgxa100-80g_8gpu_bf16() { preset "${FUNCNAME[0]}"; }
dgxa100-80g_8gpu_tf32() { preset "${FUNCNAME[0]}"; }

# V100, BERT-large: 8 of 32 GB, 8 of 16 GB, 16 of 32 GB.
dgx1-32g_8gpu_fp16() { preset "${FUNCNAME[0]}"; }
dgx1-32g_8gpu_fp32() { preset "${FUNCNAME[0]}"; }
dgx1-16g_8gpu_fp16() { preset "${FUNCNAME[0]}"; }
dgx2-32g_16gpu_fp16() { preset "${FUNCNAME[0]}"; }

# One GPU, BERT-large and BERT-base; the CPU, a small model.
24g_1gpu_bf16() { preset "${FUNCNAME[0]}"; }
8g_1gpu_fp16() { preset "${FUNCNAME[0]}"; }
cpu_fp32() { preset "${FUNCNAME[0]}"; }
