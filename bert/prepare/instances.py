"""Tokenised documents → next-sentence pairs with masked pieces; reproduces the published scripts' random draws exactly.

A document is a list of sentences and a sentence an ``array("i")`` of piece ids. All random numbers come from one
``random.Random``, and the order of the draws is part of the format: the same seed and documents give the sequences
that Google's and NVIDIA's ``create_pretraining_data.py`` write::

    shard = make_instances(documents, tokenizer, InstanceConfig(max_seq_length=512), Random(12345))

Source: Devlin et al. 2018, arXiv:1810.04805, appendix A.2; whole-word masking from google-research/bert, May 2019.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import iadd
from random import Random

import numpy as np

from bert.config import flag
from bert.data.shard import Shard, select
from bert.ragged import offsets_of
from bert.tokenization import BertTokenizer

Document = list[array]

PARTNER_TRIES = 10  # draws of another document for a random second segment


@dataclass
class InstanceConfig:
    """How sequences are cut from documents and masked."""

    max_seq_length: int = flag(128, "Maximum sequence length in pieces, including [CLS] and two [SEP].", minimum=5)
    max_predictions_per_seq: int = flag(20, "Maximum number of masked pieces in a sequence.", minimum=1)
    masked_lm_prob: float = flag(0.15, "Share of a sequence's pieces to mask.", minimum=0, maximum=1)
    short_seq_prob: float = flag(
        0.1, "Share of documents to cut into shorter sequences, as fine-tuning will see.", minimum=0, maximum=1
    )
    dupe_factor: int = flag(10, "Passes over the text, each with new pairs and masks.", minimum=1)
    do_whole_word_mask: bool = flag(False, "Mask all pieces of a word or none.")
    label_same_document_random: bool = flag(
        False,
        "Where 10 draws find no other document, label the pair as random although both segments are of the same one, "
        "as Google's script does; NVIDIA's labels it as next.",
    )


def make_instances(
    documents: Sequence[Document],
    tokenizer: BertTokenizer,
    config: InstanceConfig,
    rng: Random,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Shard:
    """Cut, pair and mask all ``documents``, none of them empty, and shuffle the sequences.

    ``watch`` wraps the sequence of visits to a document, for a progress bar.
    """
    documents = list(documents)
    shuffle(documents, rng)
    # Sequences end to end: 4 bytes a piece where lists would take 36. A row: length, start of B, label, masked pieces.
    tokens, masked_positions, masked_labels, rows = (array("i") for _ in range(4))
    for visit in watch(range(config.dupe_factor * len(documents))):
        # The generator draws for a pair and pauses; the pair's masks are drawn before the next pair.
        for a, b, is_random in pairs_of_document(documents, visit % len(documents), config, rng):
            ids = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
            positions, labels = mask_tokens(ids, tokenizer, config, rng)
            tokens.extend(ids)
            masked_positions.extend(positions)
            masked_labels.extend(labels)
            rows.extend((len(ids), len(a) + 2, is_random, len(positions)))
    lengths, segment_starts, next_labels, masked_counts = np.array(rows, np.int32).reshape(-1, 4).T
    shard = Shard(
        tokens=np.array(tokens, np.int32),
        offsets=offsets_of(lengths),
        segment_starts=segment_starts,
        next_sentence_labels=next_labels.astype(np.int8),
        masked_positions=np.array(masked_positions, np.int32),
        masked_labels=np.array(masked_labels, np.int32),
        masked_offsets=offsets_of(masked_counts),
    )
    order = list(range(shard.num_samples))
    shuffle(order, rng)
    return select(shard, np.array(order, np.int64))


def pairs_of_document(
    documents: Sequence[Document], index: int, config: InstanceConfig, rng: Random
) -> Iterator[tuple[array, array, bool]]:
    """Cut ``documents[index]`` into chunks of about one sequence; yield (A, B, whether B is random) of each."""
    document, room = documents[index], config.max_seq_length - 3
    target = rng.randint(2, room) if rng.random() < config.short_seq_prob else room
    start = end = length = 0  # the chunk is document[start:end], of ``length`` pieces
    while end < len(document):
        length += len(document[end])
        end += 1
        if end < len(document) and length < target:
            continue
        a_end = start + (rng.randint(1, end - start - 1) if end - start >= 2 else 1)
        a = reduce(iadd, document[start:a_end], array("i"))
        if end - start == 1 or rng.random() < 0.5:
            b, same = _random_segment(documents, index, target - len(a), rng)
            is_random = not same or config.label_same_document_random
            end = a_end  # the unused sentences begin the next chunk
        else:
            b, is_random = reduce(iadd, document[a_end:end], array("i")), False
        yield *truncate_pair(a, b, room, rng), is_random
        start, length = end, 0


def truncate_pair(a: array, b: array, room: int, rng: Random) -> tuple[array, array]:
    """Drop pieces from the longer segment (B if equal), at random from front or back, until both fit in ``room``."""
    a_start, a_end, b_start, b_end = 0, len(a), 0, len(b)
    while a_end - a_start + b_end - b_start > room:
        front = rng.random() < 0.5
        if a_end - a_start > b_end - b_start:
            a_start, a_end = a_start + front, a_end - (not front)
        else:
            b_start, b_end = b_start + front, b_end - (not front)
    return a[a_start:a_end], b[b_start:b_end]


def group_whole_words(ids: Sequence[int], tokenizer: BertTokenizer) -> list[list[int]]:
    """Group positions into words; special tokens belong to none.

    A "##" piece joins the word before it even across a [SEP], where truncation cut off the word's first piece.
    """
    cls_id, sep_id, is_continuation = tokenizer.cls_id, tokenizer.sep_id, tokenizer.is_continuation
    groups: list[list[int]] = []
    for position, piece in enumerate(ids):
        if piece in (cls_id, sep_id):
            continue
        if groups and is_continuation[piece]:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def mask_tokens(
    ids: list[int], tokenizer: BertTokenizer, config: InstanceConfig, rng: Random
) -> tuple[list[int], list[int]]:
    """Mask ``ids`` in place and return the sorted positions and the original ids there.

    80 % become [MASK], 10 % do not change and 10 % become any piece of the vocabulary.
    """
    if config.do_whole_word_mask:
        groups = group_whole_words(ids, tokenizer)
    else:
        cls_id, sep_id = tokenizer.cls_id, tokenizer.sep_id
        groups = [[position] for position, piece in enumerate(ids) if piece != cls_id and piece != sep_id]
    shuffle(groups, rng)
    budget = min(config.max_predictions_per_seq, max(1, round(len(ids) * config.masked_lm_prob)))
    original: dict[int, int] = {}
    for group in groups:
        if len(original) >= budget:
            break
        if len(original) + len(group) > budget:
            continue
        for position in group:
            original[position] = ids[position]
            if rng.random() < 0.8:
                ids[position] = tokenizer.mask_id
            elif rng.random() >= 0.5:
                ids[position] = tokenizer.used_ids.item(rng.randint(0, len(tokenizer.used_ids) - 1))
    positions = sorted(original)
    return positions, [original[position] for position in positions]


def shuffle(items: list, rng: Random) -> None:
    """Shuffle in place with the draws of ``Random.shuffle``, twice as fast; it would take half of all time."""
    draw = rng.getrandbits
    for last in range(len(items) - 1, 0, -1):
        bits = (last + 1).bit_length()
        other = draw(bits)
        while other > last:
            other = draw(bits)
        items[last], items[other] = items[other], items[last]


def _random_segment(documents: Sequence[Document], index: int, length: int, rng: Random) -> tuple[array, bool]:
    """Return at least ``length`` pieces (or up to the end) of another document, and whether it is ``index`` again."""
    other = index
    for _ in range(PARTNER_TRIES):
        other = rng.randint(0, len(documents) - 1)
        if other != index:
            break
    document = documents[other]
    segment = array("i")
    for sentence in range(rng.randint(0, len(document) - 1), len(document)):
        segment += document[sentence]
        if len(segment) >= length:
            break
    return segment, other == index
