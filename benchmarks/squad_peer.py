"""SQuAD as users of transformers run it, for the comparison in ``squad``.

``PEERS`` has the ways in which they do::

    peer = Peer("sorted", model_config, precision, device, compiled=True)
    peer.train(peer.padded(streams))
    columns = convert("train-v1.1.json", peer_tokenizer("vocab.txt", do_lower_case=True), 384, 128)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bert.batch import TaskBatch
from bert.errors import UsageError
from bert.memory import HostCopy
from bert.model.config import BertConfig
from bert.train.precision import Precision, PrecisionConfig

AT_ONCE = 1000  # questions per call of the tokenizer, as in datasets.map
MULTIPLE = 8  # of which a batch's length is one, as pad_to_multiple_of in run_qa.py

Inputs = dict[str, Tensor]  # name -> [S, length], or [S] for labels


@dataclass(frozen=True)
class Style:
    """How transformers is run."""

    title: str
    sorted: bool = True  # batches of near-equal lengths, padded to the longest; otherwise to --max_seq_length
    compiled: bool = False
    attention: str = "sdpa"
    same_precision: bool = True  # as this suite; otherwise fp32


PEERS = {
    "example": Style("transformers as in its example", sorted=False),  # run_qa.py
    "sorted": Style("transformers, sorted and compiled", compiled=True),
    "unpadded": Style("transformers, sorted, FlashAttention 2", attention="flash_attention_2"),
    "eager": Style("transformers in fp32", sorted=False, same_precision=False),
}


def library() -> Any:
    """Return transformers; raises UsageError if it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise UsageError("transformers is not installed (pip install transformers), or use --peers none") from error
    return transformers


def missing(name: str, precision: Precision) -> str | None:
    """Return what a peer lacks here, or None."""
    if PEERS[name].attention != "flash_attention_2":
        return None
    if precision.device.type != "cuda":
        return "flash_attn needs a GPU"
    if precision.dtype == torch.float32:
        return "flash_attn needs --bf16 or --fp16"
    return None if library().utils.is_flash_attn_2_available() else "flash_attn is not installed"


def pad(batch: TaskBatch, length: int | None = None) -> Inputs:
    """Convert the sequences to transformers' format, padded to ``length`` or to the longest."""
    lengths = batch.cu_seqlens.diff()
    longest = length or -(-int(lengths.max()) // MULTIPLE) * MULTIPLE
    real = torch.arange(longest) < lengths[:, None]

    def rows(values: Tensor) -> Tensor:
        return torch.zeros(real.shape, dtype=values.dtype).masked_scatter_(real, values)

    ids = {"input_ids": rows(batch.input_ids), "token_type_ids": rows(batch.token_type_ids)}
    labels = {f"{name}_positions": values for name, values in batch.labels.items()}
    return {**ids, "attention_mask": real.long(), **labels}


class Peer:
    """transformers' model and fused AdamW, as one of ``PEERS``."""

    def __init__(
        self, name: str, model_config: BertConfig, precision: PrecisionConfig, device: torch.device, compiled: bool
    ) -> None:
        torch.manual_seed(0)
        self.style, self.device = PEERS[name], device
        self.precision = Precision(precision if self.style.same_precision else PrecisionConfig(), device)
        transformers = library()
        config = transformers.BertConfig(**model_config.to_dict(), attn_implementation=self.style.attention)
        self.model: Any = transformers.BertForQuestionAnswering(config).to(device)
        self.forward = torch.compile(self.model) if self.style.compiled and compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)

    def train(self, batches: Sequence[Inputs]) -> None:
        """Take an optimizer step on each."""
        self.model.train()
        for inputs in batches:
            with self.precision.autocast():
                loss = self.forward(**self._copied(inputs)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def predict(self, batches: Sequence[TaskBatch], length: int) -> list[Tensor]:
        """Return the start and end logits of each batch, [S, longest, 2]; all are queued before any is read."""
        self.model.eval()
        copies = []
        for inputs in self.padded(batches, length):
            with self.precision.autocast():
                outputs = self.forward(**self._copied(inputs))
            copies.append(HostCopy(torch.stack([outputs.start_logits, outputs.end_logits], -1).float()))
        return [copy.wait() for copy in copies]

    def padded(self, batches: Sequence[TaskBatch], length: int) -> Iterator[Inputs]:
        """Pad each batch as this peer does, into page-locked memory if there is a GPU."""
        for batch in batches:
            inputs = pad(batch, None if self.style.sorted else length)
            yield {n: v.pin_memory() for n, v in inputs.items()} if self.device.type == "cuda" else inputs

    def _copied(self, inputs: Inputs) -> Inputs:
        return {name: value.to(self.device, non_blocking=True) for name, value in inputs.items()}


def peer_tokenizer(vocab_file: str, do_lower_case: bool) -> Any:
    """Return transformers' fast tokenizer with a vocabulary."""
    return library().BertTokenizerFast.from_pretrained(str(Path(vocab_file).parent), do_lower_case=do_lower_case)


def check_stride(input_file: str, tokenizer: Any, max_seq_length: int, stride: int) -> None:
    """Raise UsageError if windows that overlap by ``stride`` are impossible beside the longest question."""
    questions, _, _ = _read(input_file)
    longest = max(map(len, tokenizer(questions, add_special_tokens=False)["input_ids"]), default=0)
    room = max_seq_length - longest - 3  # [CLS] and two [SEP]
    if stride >= room:
        expected = f"expected less than the {room} pieces of context beside the longest question"
        raise UsageError(f"--doc_stride {stride}: {expected} in --max_seq_length {max_seq_length}")


def convert(input_file: str, tokenizer: Any, max_seq_length: int, stride: int) -> dict[str, list[Any]]:
    """Read the questions and answers of a SQuAD file and cut them into padded windows that overlap by ``stride``.

    Returns columns with a row per window: input_ids, token_type_ids, attention_mask, start_positions, end_positions.
    """
    questions, contexts, answers = _read(input_file)
    columns: dict[str, list[Any]] = {}
    for start in range(0, len(questions), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        encoded = tokenizer(
            questions[part],
            contexts[part],
            truncation="only_second",
            max_length=max_seq_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding="max_length",
        )
        owners, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
        spans = [
            _positions(offsets[row], encoded.sequence_ids(row), answers[start + owner])
            for row, owner in enumerate(owners)
        ]
        positions = {"start_positions": [s for s, _ in spans], "end_positions": [e for _, e in spans]}
        for name, values in {**encoded, **positions}.items():
            columns.setdefault(name, []).extend(values)
    return columns


def _read(input_file: str) -> tuple[list[str], list[str], list[tuple[int, int] | None]]:
    """Return questions, their contexts and the answers as (first character, one past the last)."""
    questions, contexts, answers = [], [], []
    for article in json.loads(Path(input_file).read_text(encoding="utf8"))["data"]:
        for paragraph in article["paragraphs"]:
            for each in paragraph["qas"]:
                questions.append(each["question"].lstrip())
                contexts.append(paragraph["context"])
                found = [(a["answer_start"], a["answer_start"] + len(a["text"])) for a in each["answers"]]
                answers.append(found[0] if found else None)
    return questions, contexts, answers


def _positions(
    offsets: list[tuple[int, int]], sequence_ids: list[int | None], answer: tuple[int, int] | None
) -> tuple[int, int]:
    """Return the (first, last) token of the answer in a window, (0, 0) if the window does not contain it."""
    if answer is None:
        return 0, 0
    start = sequence_ids.index(1)
    end = len(sequence_ids) - 1
    while sequence_ids[end] != 1:
        end -= 1
    if offsets[start][0] > answer[0] or offsets[end][1] < answer[1]:
        return 0, 0
    last_of_window = end
    while start <= last_of_window and offsets[start][0] <= answer[0]:
        start += 1
    while offsets[end][1] >= answer[1]:
        end -= 1
    return start - 1, end + 1
