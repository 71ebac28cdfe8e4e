"""SQuAD as users of transformers run it, for the comparison in ``squad``.

All inputs are padded to one length, the model runs in eager fp32, the fast tokenizer cuts the windows, and a loop over
its offsets finds the answers::

    peer = Peer(model_config, device)
    peer.train(pad(batch, 384, device))
    columns = convert("train-v1.1.json", peer_tokenizer("vocab.txt", do_lower_case=True), 384, 128)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bert.batch import TaskBatch
from bert.errors import UsageError
from bert.model.config import BertConfig

AT_ONCE = 1000  # questions per call of the tokenizer, as in datasets.map

Inputs = dict[str, Tensor]  # name -> [S, max_seq_length], or [S] for labels


def library() -> Any:
    """Return transformers; raises UsageError if it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise UsageError("transformers is not installed (pip install transformers)") from error
    return transformers


def pad(batch: TaskBatch, max_seq_length: int, device: torch.device) -> Inputs:
    """Convert the sequences to transformers' format."""
    lengths = batch.cu_seqlens.diff().tolist()

    def rows(values: Tensor) -> Tensor:
        table = pad_sequence(list(values.split(lengths)), batch_first=True)
        return F.pad(table, (0, max_seq_length - table.shape[1])).to(device)

    labels = {f"{name}_positions": values.to(device) for name, values in batch.labels.items()}
    ids = {"input_ids": rows(batch.input_ids), "token_type_ids": rows(batch.token_type_ids)}
    return {**ids, "attention_mask": rows(torch.ones_like(batch.input_ids)), **labels}


class Peer:
    """transformers' model and AdamW."""

    def __init__(self, model_config: BertConfig, device: torch.device) -> None:
        torch.manual_seed(0)
        transformers = library()
        self.model: Any = transformers.BertForQuestionAnswering(transformers.BertConfig(**model_config.to_dict()))
        self.model.to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)

    def train(self, inputs: Inputs) -> None:
        """Take an optimizer step."""
        self.model.train()
        self.model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def predict(self, batches: Sequence[Inputs]) -> Tensor:
        """Return the start and end logits of all windows, [n, max_seq_length, 2]."""
        self.model.eval()
        outputs = [self.model(**inputs) for inputs in batches]
        return torch.cat([torch.stack([each.start_logits, each.end_logits], -1).cpu() for each in outputs])


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
