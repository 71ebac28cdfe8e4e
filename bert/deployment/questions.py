"""A SQuAD file as padded batches, and logits back to scores: what NVIDIA's scripts call data loader and metrics.

    for ids, x, _ in get_dataloader_fn(predict_file="dev-v1.1.json", vocab_file="vocab.txt")():
        metrics.update(ids, {"output__0": start, "output__1": end})
    metrics.metrics                                         # {"f1": 88.1, "exact_match": 80.5}

Names and defaults of the parameters become flags of the commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.squad.answers import AnswerConfig, RawResult, find_answers
from bert.squad.examples import OFFSETS, SquadExample, read_squad_examples
from bert.squad.features import convert_examples_to_features
from bert.squad.metrics import evaluate_v1, evaluate_v2, read_gold, run_eval_script
from bert.squad.windows import InputFeatures
from bert.tokenization import BertTokenizer

Batch = tuple[list[int], dict[str, NDArray], dict[str, NDArray]]  # ids, inputs, labels (zeros: there are none)


def get_dataloader_fn(
    precision: str = "fp32",
    batch_size: int = 8,
    vocab_file: str = "",
    do_lower_case: bool = True,
    predict_file: str = "",
    max_len: int = 512,
    max_seq_length: int = 384,
    doc_stride: int = 128,
    max_query_length: int = 64,
    version_2_with_negative: bool = False,
    pad_to_batch_size: bool = True,
) -> Callable[[], Iterator[Batch]]:
    """Return a function that yields the windows of --predict-file, [batch_size, max_seq_length] int32.

    The last batch is filled up with copies of its last window unless ``pad_to_batch_size`` is false.
    """
    del max_len  # a limit of NVIDIA's tokenizer
    lengths = (max_seq_length, doc_stride, max_query_length)
    _, features = _read(predict_file, vocab_file, do_lower_case, lengths, version_2_with_negative)
    dtype = np.float16 if precision == "fp16" else np.float32

    def batches() -> Iterator[Batch]:
        for begin in range(0, len(features), batch_size):
            chosen = features[begin : begin + batch_size]
            if pad_to_batch_size:
                chosen += [chosen[-1]] * (batch_size - len(chosen))
            columns = ("input_ids", "segment_ids", "input_mask")
            x = {f"input__{k}": _column(chosen, name) for k, name in enumerate(columns)}
            zeros = np.zeros((len(chosen), max_seq_length), dtype)
            yield [each.unique_id for each in chosen], x, {"output__0": zeros, "output__1": zeros}

    return batches


def _column(features: Sequence[InputFeatures], name: str) -> NDArray[np.int32]:
    return np.array([getattr(feature, name) for feature in features], np.int32)


def _read(
    predict_file: str, vocab_file: str, lower: bool, lengths: tuple[int, int, int], version_2: bool
) -> tuple[list[SquadExample], list[InputFeatures]]:
    for name, value in (("--predict-file", predict_file), ("--vocab-file", vocab_file)):
        if not value:
            raise UsageError(f"{name}: expected a file")
    examples = read_squad_examples(predict_file, False, version_2)
    tokenizer = BertTokenizer(vocab_file, lower)
    return examples, convert_examples_to_features(examples, tokenizer, *lengths, is_training=False)


class MetricsCalculator:
    """Scores of start and end logits. The answers go to predictions.json in ``output_dir``."""

    def __init__(
        self,
        eval_script: str = "",
        predict_file: str = "",
        output_dir: str = "./",
        n_best_size: int = 20,
        max_answer_length: int = 30,
        version_2_with_negative: bool = False,
        max_seq_length: int = 384,
        doc_stride: int = 128,
        max_query_length: int = 64,
        vocab_file: str = "",
        do_lower_case: bool = True,
        max_len: int = 512,
        answer_alignment: str = OFFSETS,
    ) -> None:
        del max_len
        lengths = (max_seq_length, doc_stride, max_query_length)
        self._examples, self._features = _read(
            predict_file, vocab_file, do_lower_case, lengths, version_2_with_negative
        )
        self._config = AnswerConfig(
            n_best_size, max_answer_length, version_2_with_negative, answer_alignment=answer_alignment
        )
        self._lower, self._file, self._script = do_lower_case, predict_file, eval_script
        self._output = Path(output_dir) / "predictions.json"
        self._results: dict[int, RawResult] = {}

    def update(self, ids: Sequence[int], y_pred: dict[str, NDArray], x: Any = None, y_real: Any = None) -> None:
        """Take the logits of a batch, [B, L] each. A window may come twice: batches are filled up."""
        del x, y_real
        for row in zip(ids, y_pred["output__0"], y_pred["output__1"], strict=True):
            self._results[int(row[0])] = RawResult(int(row[0]), *row[1:])

    @property
    def metrics(self) -> dict[str, float]:
        """F1 and exact match in percent, by --eval-script or, without one, the built-in rules."""
        results = list(self._results.values())
        answers = find_answers(self._examples, self._features, results, self._lower, self._config)
        texts = {each.qas_id: each.text for each in answers}
        with naming_os_errors(f"--output-dir {self._output.parent}"), replacing(self._output) as temporary:
            temporary.write_text(json.dumps(texts, indent=4) + "\n", encoding="utf8")
        if self._script:
            found = run_eval_script(self._script, self._file, self._output)
        else:
            evaluate = evaluate_v2 if self._config.version_2_with_negative else evaluate_v1
            found = evaluate(read_gold(self._file), texts)
        return {"f1": found["f1"], "exact_match": found.get("exact_match", found.get("exact", 0.0))}
