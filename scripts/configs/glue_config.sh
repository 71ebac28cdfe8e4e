#!/usr/bin/env bash
# Presets for scripts/run_glue.sh: each function takes a task (mrpc by default) and prints name=value words.
#
#   source scripts/configs/glue_config.sh && bash scripts/run_glue.sh $(dgxa100-80g_8gpu_fp16 sst-2)
#
# What a preset does not print (checkpoint, data, mode) keeps its default or is added as name=value.

# recipe <task> <precision> <GPUs> <sequences that a GPU holds> [sequences per step of SST-2]
# The published recipes of BERT-large for MRPC and SST-2; another task gets the script's batch, rate and warm-up. The
# sequences per GPU are cut into as many micro-batches, a power of two, as make them fit.
recipe() {
  local task=${1:-mrpc} global_batch=128 accumulation=1 rate=2.4e-5 warmup=0.1
  case $task in
    mrpc | MRPC) rate=1.8e-5 warmup=0.3 ;;
    sst-2 | SST-2) global_batch=${5:-1024} rate=1e-5 ;;
  esac
  local processes=$(($3 > 0 ? $3 : 1))
  local batch=$((global_batch / processes))
  while ((batch / accumulation > $4)); do
    accumulation=$((accumulation * 2))
  done
  echo "task_name=$task precision=$2 num_gpu=$3 batch_size=$batch gradient_accumulation_steps=$accumulation" \
    "learning_rate=$rate warmup_proportion=$warmup epochs=3"
}

# 8 x A100 80 GB.
dgxa100-80g_8gpu_fp16() { recipe "${1:-}" fp16 8 256; }
dgxa100-80g_8gpu_bf16() { recipe "${1:-}" bf16 8 256; }
dgxa100-80g_8gpu_tf32() { recipe "${1:-}" tf32 8 128; }

# 8 x V100 32 GB.
dgx1-32g_8gpu_fp16() { recipe "${1:-}" fp16 8 128; }
dgx1-32g_8gpu_fp32() { recipe "${1:-}" fp32 8 64 512; }

# One 24 GB GPU: the same steps as eight of the above take.
24g_1gpu_bf16() { recipe "${1:-}" bf16 1 64; }

# The CPU, a small model: to see that everything works.
cpu_fp32() { echo "$(recipe "${1:-}" fp32 0 32)" learning_rate=1e-4 config_file=bert_configs/small.json; }
