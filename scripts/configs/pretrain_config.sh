#!/usr/bin/env bash
# Presets for scripts/run_pretraining.sh: each function prints its values in order of position.
#
#   source scripts/configs/pretrain_config.sh && bash scripts/run_pretraining.sh $(dgxa100-80g_8gpu_fp16)
#
# What a preset does not print (data directories, vocabulary) keeps its default or is added as name=value.

# recipe <precision> <GPUs> <accumulation, phase 1> <phase 2> <fp16 all-reduce> [sequences per GPU, phase 1] [phase 2]
# The published two-phase recipe: 65,536 sequences a step over 8 GPUs, then 32,768.
recipe() {
  echo "${6:-8192}" 6e-3 "$1" "$2" 0.2843 7038 200 false true true "$3" 42 bert_lamb_pretraining true "$5" \
    "${7:-4096}" 4e-3 0.128 1563 "$4"
}

# 8 x A100 80 GB, BERT-large: micro-batches of 256 and 32 sequences (fp16, bf16), 128 and 16 (tf32).
dgxa100-80g_8gpu_fp16() { recipe fp16 8 32 128 true; }
dgxa100-80g_8gpu_bf16() { recipe bf16 8 32 128 false; }
dgxa100-80g_8gpu_tf32() { recipe tf32 8 64 256 false; }

# 8 x V100 32 GB, BERT-large: micro-batches of 128 and 16 sequences (fp16), 64 and 8 (fp32).
dgx1-32g_8gpu_fp16() { recipe fp16 8 64 256 true; }
dgx1-32g_8gpu_fp32() { recipe fp32 8 128 512 false; }

# One 24 GB GPU, BERT-large: the same global batches and so the same training in micro-batches of 64 and 8, but one step
# takes as long as the work of eight GPUs does on one.
24g_1gpu_bf16() { recipe bf16 1 1024 4096 false 65536 32768; }

# One 8 GB GPU, BERT-base, micro-batches of 32 and 4. Global batches of 4,096 and 2,048, a sixteenth of the published
# ones, so a quarter of the learning rates (the square root), and fewer sequences in all: a start, not a measured result.
8g_1gpu_fp16() {
  echo 4096 1.5e-3 fp16 1 0.2843 25000 500 false true true 128 42 bert_base_pretraining true false \
    2048 1e-3 0.128 5000 512 BERT_CONFIG=bert_configs/base.json
}

# The CPU, a small model: to see that everything works, in minutes.
cpu_fp32() {
  echo 256 1e-3 fp32 0 0.1 200 100 false true true 8 42 bert_small_pretraining false false \
    64 5e-4 0.1 50 8 BERT_CONFIG=bert_configs/small.json num_workers=1
}
