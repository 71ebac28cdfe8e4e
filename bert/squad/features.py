"""Question answering on SQuAD 1.1 and 2.0: questions → windows of a context → inputs of the model.

One copy serves training, evaluation, a single question and a server; ``answers`` turns the model's logits back into
text, by the features that are made here::

    examples = read_squad_examples("train-v1.1.json", is_training=True, version_2_with_negative=False)
    features = convert_examples_to_features(examples, tokenizer, 384, 128, 64, is_training=True)
    sequences = features_to_sequences(features)         # labels "start" and "end"

Every distinct word of all contexts is cut into pieces once, and a paragraph once for all its questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from bert.errors import UsageError
from bert.ragged import columns_of, offsets_of, ranges
from bert.sequences import Sequences
from bert.squad.examples import SquadExample, example_from_text, read_squad_examples
from bert.squad.windows import Context, InputFeatures, Span, Windows, improve_answer_span, spans
from bert.tokenization import BertTokenizer

__all__ = [
    "InputFeatures",
    "SquadExample",
    "convert_examples_to_features",
    "example_from_text",
    "features_to_sequences",
    "read_squad_examples",
]

FIRST_UNIQUE_ID = 1_000_000_000


def convert_examples_to_features(
    examples: Sequence[SquadExample],
    tokenizer: BertTokenizer,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
    is_training: bool,
) -> list[InputFeatures]:
    """Cut each question into windows of ``max_seq_length`` tokens, ``doc_stride`` pieces of the context apart.

    In training a window that does not hold the whole answer gets the positions (0, 0), its ``[CLS]``, as an impossible
    question does. Raises UsageError where no context would fit.
    """
    check_lengths(max_seq_length, doc_stride, max_query_length)
    contexts = encode_contexts([example.doc_tokens for example in examples], tokenizer)
    queries = tokenizer.encode_batch([example.question_text for example in examples])
    answers = tokenizer.encode_batch([example.orig_answer_text or "" for example in examples] if is_training else [])
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
    """Raise UsageError unless every window has room for a piece of the context and the next one begins behind it."""
    if max_query_length < 0:
        raise UsageError(f"--max_query_length {max_query_length}: expected at least 0")
    if max_seq_length <= max_query_length + 3:
        raise UsageError(
            f"--max_seq_length {max_seq_length}: expected more than --max_query_length {max_query_length} + 3, "
            "the tokens [CLS] and twice [SEP]"
        )
    if doc_stride < 1:
        raise UsageError(f"--doc_stride {doc_stride}: expected at least 1")


def features_to_sequences(features: Sequence[InputFeatures]) -> Sequences:
    """Lay the windows end to end without padding; those of training with labels "start" and "end", [n] int64.

    A label is the position of the answer's first or last token in its window, 0 where the window does not hold it.
    """
    parts = [part for feature in features for part in feature.parts]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts)).reshape(-1, 3).sum(axis=1)
    tokens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    segment_starts = np.array([feature.segment_start for feature in features], np.int32)
    labels = {}
    if features and features[0].start_position is not None:
        labels["start"] = np.array([feature.start_position for feature in features], np.int64)
        labels["end"] = np.array([feature.end_position for feature in features], np.int64)
    return Sequences(tokens, offsets_of(lengths), segment_starts, labels)


def encode_contexts(contexts: Sequence[list[str]], tokenizer: BertTokenizer) -> list[Context]:
    """Cut the words of each context into pieces; a list of words that several questions share is cut once."""
    distinct = {id(words): words for words in contexts}
    numbers = {word: number for number, word in enumerate(dict.fromkeys(chain.from_iterable(distinct.values())))}
    cut = tokenizer.encode_words(list(numbers))
    table = np.fromiter(chain.from_iterable(cut), np.int32)
    sizes = np.fromiter(map(len, cut), np.int64, len(cut))
    starts = offsets_of(sizes)[:-1]

    of_word = np.fromiter((numbers[word] for words in distinct.values() for word in words), np.int64)
    bounds = offsets_of([len(words) for words in distinct.values()])  # of contexts, in words
    first = offsets_of(sizes[of_word])  # of words, in pieces
    ids = table[ranges(starts[of_word], sizes[of_word])]
    words = np.repeat(columns_of(bounds).astype(np.int32), sizes[of_word])
    made = {
        key: Context(ids[first[a] : first[b]], words[first[a] : first[b]], first[a : b + 1] - first[a])
        for key, a, b in zip(distinct, bounds[:-1], bounds[1:], strict=True)
    }
    return [made[id(words)] for words in contexts]


def _answer_pieces(example: SquadExample, context: Context, answer: list[int]) -> Span | None:
    """Return (first, last) piece of the answer in the context, None for an impossible question."""
    if example.is_impossible or example.start_position is None or example.end_position is None:
        return None
    first = int(context.first_pieces[example.start_position])
    last = int(context.first_pieces[example.end_position + 1]) - 1
    start, end = improve_answer_span(context.ids[first : last + 1].tolist(), 0, last - first, answer)
    return first + start, first + end
