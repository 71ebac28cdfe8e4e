"""Questions on SQuAD 1.1 and 2.0 → windows of their contexts → inputs of the model.

Training, evaluation and single questions all use it; :mod:`bert.squad.answers` turns the model's logits back into text
by means of these features::

    examples = read_squad_examples("train-v1.1.json", is_training=True, version_2_with_negative=False)
    features = convert_examples_to_features(examples, tokenizer, 384, 128, 64, is_training=True)
    sequences = features_to_sequences(features)         # labels "start" and "end"

Each distinct word is cut into pieces once, and each paragraph once for all its questions.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain

import numpy as np

from bert.errors import UsageError
from bert.ragged import offsets_of, ranges
from bert.sequences import Sequences
from bert.squad.examples import SquadExample, Words
from bert.squad.windows import Context, InputFeatures, Windows, improve_answer_span, spans
from bert.tokenization import BertTokenizer
from bert.tokenization.offsets import encode_with_offsets

FIRST_UNIQUE_ID = 1_000_000_000


def convert_examples_to_features(
    examples: Sequence[SquadExample],
    tokenizer: BertTokenizer,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
    is_training: bool,
) -> list[InputFeatures]:
    """Cut each question's context into windows of ``max_seq_length`` tokens that begin ``doc_stride`` pieces apart.

    In training the positions are (0, 0), those of ``[CLS]``, where a window does not hold the whole answer or the
    question has none. Raises UsageError if the lengths leave no room for a context.
    """
    check_lengths(max_seq_length, doc_stride, max_query_length)
    contexts = encode_contexts(examples, tokenizer)
    queries = tokenizer.encode_batch([example.question_text for example in examples])
    # By offsets the pieces of an answer are known without cutting it.
    texts = [(is_training and each.answer_span is None and each.orig_answer_text) or "" for each in examples]
    answers = tokenizer.encode_batch(texts)
    features: list[InputFeatures] = []
    for index, example in enumerate(examples):
        query = [tokenizer.cls_id, *queries[index][:max_query_length], tokenizer.sep_id]
        context = contexts[index]
        cut = spans(len(context.ids), max_seq_length - len(query) - 1, doc_stride)
        windows = Windows(tokenizer, max_seq_length, np.array(query, np.int32), context, cut)
        answer = _answer_pieces(example, context, answers[index]) if is_training else None
        for number in range(len(cut)):
            positions = windows.positions(number, answer) if is_training else (None, None)
            features.append(InputFeatures(FIRST_UNIQUE_ID + len(features), index, number, windows, *positions))
    return features


def check_lengths(max_seq_length: int, doc_stride: int, max_query_length: int) -> None:
    """Raise UsageError unless a window has room for the context and the next one begins after it."""
    if max_query_length < 0:
        raise UsageError(f"--max_query_length {max_query_length}: expected at least 0")
    if max_seq_length <= max_query_length + 3:
        raise UsageError(
            f"--max_seq_length {max_seq_length}: expected more than --max_query_length {max_query_length} + 3, "
            "for [CLS] and two [SEP]"
        )
    if doc_stride < 1:
        raise UsageError(f"--doc_stride {doc_stride}: expected at least 1")


def features_to_sequences(features: Sequence[InputFeatures]) -> Sequences:
    """Lay the windows end to end without padding; for training with the labels "start" and "end", [n] int64.

    A label is the position of the answer's first or last token in its window, 0 if the window does not hold it.
    """
    ids = [feature.ids for feature in features]
    lengths = np.array([len(each) for each in ids], np.int64)
    tokens = np.concatenate([np.zeros(0, np.int32), *ids])
    segment_starts = np.array([feature.segment_start for feature in features], np.int32)
    labels = {}
    if features and features[0].start_position is not None:
        labels["start"] = np.array([feature.start_position for feature in features], np.int64)
        labels["end"] = np.array([feature.end_position for feature in features], np.int64)
    return Sequences(tokens, offsets_of(lengths), segment_starts, labels)


def encode_contexts(examples: Sequence[SquadExample], tokenizer: BertTokenizer) -> list[Context]:
    """Cut the context of each example into pieces; examples that share a list of words share the Context too."""
    distinct: dict[int, Words] = {}
    for example in examples:
        if id(example.doc_tokens) not in distinct:
            distinct[id(example.doc_tokens)] = example.words or Words.joined(example.doc_tokens)
    if any(character.isspace() for token in tokenizer.extra_tokens for character in token["content"]):
        parts = [Words(words.text, [words.text], array("i", [0])) for words in distinct.values()]  # may join words
    else:
        parts = list(distinct.values())
    numbers = {text: i for i, text in enumerate(dict.fromkeys(chain.from_iterable(each.texts for each in parts)))}
    cut = encode_with_offsets(tokenizer, list(numbers))

    of_part = np.fromiter((numbers[text] for each in parts for text in each.texts), np.int64)
    starts = np.concatenate([np.zeros(0, np.int32), *(each.starts for each in parts)])
    sizes = np.diff(cut.offsets)[of_part]
    bounds = offsets_of(sizes)[offsets_of([len(each.texts) for each in parts])]  # of contexts, in pieces
    chosen = ranges(cut.offsets[of_part], sizes)
    ids, spans = cut.ids[chosen], cut.spans[chosen] + np.repeat(starts, sizes)[:, None]
    made = {}
    for (key, words), low, high in zip(distinct.items(), bounds[:-1], bounds[1:], strict=True):
        numbers_of_words = np.searchsorted(words.starts, spans[low:high, 0], "right").astype(np.int32) - 1
        made[key] = Context(words.text, ids[low:high], spans[low:high], numbers_of_words)
    return [made[id(example.doc_tokens)] for example in examples]


def _answer_pieces(example: SquadExample, context: Context, answer: list[int]) -> tuple[int, int] | None:
    """Return (first, last) piece of the answer in the context, or None for an impossible question."""
    if example.is_impossible or example.start_position is None or example.end_position is None:
        return None
    if example.answer_span is not None:
        return context.pieces_of(example.answer_span)
    first = int(np.searchsorted(context.words, example.start_position))
    last = int(np.searchsorted(context.words, example.end_position, "right")) - 1
    return improve_answer_span(context.ids, first, last, answer)
