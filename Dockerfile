# The training suite in a container: bash scripts/docker/build.sh, then bash scripts/docker/launch.sh
#
# On NVIDIA's image PyTorch, apex, dllogger and NCCL are the image's own; on a plain Python image (3.11 or later, with its
# venv module) PyTorch for CPUs is installed:  bash scripts/docker/build.sh --base python:3.11-slim
ARG FROM_IMAGE_NAME=nvcr.io/nvidia/pytorch:26.03-py3
FROM ${FROM_IMAGE_NAME}

# Packages go to an environment that sees the image's own and changes none of them.
ENV VENV=/opt/bert \
    PATH=/opt/bert/bin:${PATH} \
    BERT_PREP_WORKING_DIR=/data \
    HOME=/home/bert \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /workspace/bert

# Before the rest of the code, so that this layer is made again only where the requirements have changed.
COPY pyproject.toml constraints.txt ./
COPY bert/__init__.py bert/
COPY scripts/setup.sh scripts/
COPY scripts/docker/constraints.py scripts/docker/
RUN python3 -m venv --system-site-packages "$VENV" \
    && python scripts/docker/constraints.py constraints.txt > /opt/bert/constraints.txt \
    && CONSTRAINTS=/opt/bert/constraints.txt PIP_NO_CACHE_DIR=1 bash scripts/setup.sh finetune prepare report

COPY . .

# Any user may run it, as launch.sh does with the caller's number; the mounts give the results their owner.
RUN mkdir -p "$HOME" "$BERT_PREP_WORKING_DIR" results \
    && chmod 1777 "$HOME" "$BERT_PREP_WORKING_DIR" results
USER 1000:1000

HEALTHCHECK --interval=10m --timeout=1m --start-period=1m CMD ["python", "-m", "bert.doctor"]
CMD ["bash"]
