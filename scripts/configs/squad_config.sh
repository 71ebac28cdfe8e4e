#!/usr/bin/env bash
# Presets for scripts/run_squad.sh: each function prints name=value words.
#
#   source scripts/configs/squad_config.sh && bash scripts/run_squad.sh $(dgxa100-80g_8gpu_fp16)
#
# What a preset does not print (checkpoint, data, mode) keeps its default or is added as name=value.

# recipe <precision> <GPUs> <sequences per GPU> [accumulation steps]
# The published recipe of BERT-large: 256 sequences a step over 8 GPUs.
recipe() {
  echo "precision=$1 num_gpu=$2 batch_size=$3 gradient_accumulation_steps=${4:-1}" \
    learning_rate=4.6e-5 warmup_proportion=0.2 epochs=2.0
}

# 8 x A100 80 GB.
dgxa100-80g_8gpu_fp16() { recipe fp16 8 32; }
dgxa100-80g_8gpu_bf16() { recipe bf16 8 32; }
dgxa100-80g_8gpu_tf32() { recipe tf32 8 32; }

# 8 x V100 32 GB; in fp32 half as many sequences a step.
dgx1-32g_8gpu_fp16() { recipe fp16 8 32; }
dgx1-32g_8gpu_fp32() { recipe fp32 8 16; }

# One 24 GB GPU: the same steps as eight of the above take, in micro-batches of 8.
24g_1gpu_bf16() { recipe bf16 1 256 32; }

# One 12 GB GPU, BERT-base: Google's recipe, published with F1 88.4 and exact match 81.2.
12g_1gpu_fp32() {
  echo precision=fp32 num_gpu=1 batch_size=12 learning_rate=3e-5 warmup_proportion=0.1 epochs=2.0 \
    CONFIG_FILE=bert_configs/base.json
}

# The CPU, a small model: to see that everything works.
cpu_fp32() {
  echo precision=fp32 num_gpu=0 batch_size=32 learning_rate=1e-4 warmup_proportion=0.1 epochs=2.0 \
    CONFIG_FILE=bert_configs/small.json
}
