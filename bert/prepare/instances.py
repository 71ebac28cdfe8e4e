"""Tokenised documents → next-sentence pairs with masked pieces, drawn call for call as the published scripts draw them.

A document is a list of sentences and a sentence an ``array("i")`` of piece ids. All chance comes from one
``random.Random``, and the order of its calls is part of the format: the same seed and documents give the sequences
that Google's and NVIDIA's ``create_pretraining_data.py`` write::

    shard = make_instances(documents, pieces_of(tokenizer), InstanceConfig(max_seq_length=512), Random(12345))

Source: Devlin et al. 2018, arXiv:1810.04805, appendix A.2; whole-word masking from google-research/bert, May 2019.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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

    max_seq_length: int = flag(128, "Longest sequence in pieces, with [CLS] and two [SEP].", minimum=5)
    max_predictions_per_seq: int = flag(20, "Most masked pieces in a sequence.", minimum=1)
    masked_lm_prob: float = flag(0.15, "Share of a sequence's pieces to mask.", minimum=0, maximum=1)
    short_seq_prob: float = flag(
        0.1, "Share of documents cut into shorter sequences than fit, as fine-tuning will see.", minimum=0, maximum=1
    )
    dupe_factor: int = flag(10, "Passes over the text, each with other pairs and masks.", minimum=1)
    do_whole_word_mask: bool = flag(False, "Mask all pieces of a word or none.")
    label_same_document_random: bool = flag(
        False,
        "Label a pair as random even where both segments come from the same document, as Google's script does when it "
        "finds no other document in 10 draws; NVIDIA's labels it as next.",
    )


@dataclass(frozen=True)
class Pieces:
    """What masking needs to know of a vocabulary."""

    cls_id: int
    sep_id: int
    mask_id: int
    is_continuation: Sequence[bool]  # by id: "##" pieces, which belong to the word before them


@dataclass(frozen=True)
class Pair:
    """Two segments that fit a sequence with its three special tokens."""

    a: array
    b: array
    is_random: bool


def pieces_of(tokenizer: BertTokenizer) -> Pieces:
    """Take from ``tokenizer`` what masking needs."""
    continuation = [piece.startswith("##") for piece in tokenizer.vocab]
    return Pieces(tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, continuation)


def make_instances(
    documents: Sequence[Document],
    pieces: Pieces,
    config: InstanceConfig,
    rng: Random,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Shard:
    """Cut, pair and mask all ``documents``, none of them empty, and shuffle the sequences.

    ``watch`` wraps the sequence of visits to a document, for a progress bar.
    """
    documents = list(documents)
    shuffle(documents, rng)
    columns = _Columns()
    for visit in watch(range(config.dupe_factor * len(documents))):
        # The generator draws for a pair and stops; its masks are drawn before it goes on to the next pair.
        for pair in pairs_of_document(documents, visit % len(documents), config, rng):
            ids = [pieces.cls_id, *pair.a, pieces.sep_id, *pair.b, pieces.sep_id]
            positions, labels = mask_tokens(ids, pieces, config, rng)
            columns.append(ids, len(pair.a) + 2, pair.is_random, positions, labels)
    order = list(range(len(columns.lengths)))
    shuffle(order, rng)
    return select(columns.shard(), np.array(order, dtype=np.int64))


def pairs_of_document(documents: Sequence[Document], index: int, config: InstanceConfig, rng: Random) -> Iterator[Pair]:
    """Cut ``documents[index]`` into chunks of about a sequence and split each in two; half get a random second part."""
    document, room = documents[index], config.max_seq_length - 3
    target = rng.randint(2, room) if rng.random() < config.short_seq_prob else room
    start = end = length = 0  # the chunk is document[start:end], of so many pieces
    while end < len(document):
        length += len(document[end])
        end += 1
        if end < len(document) and length < target:
            continue
        a_end = start + (rng.randint(1, end - start - 1) if end - start >= 2 else 1)
        a = _join(document, start, a_end)
        if end - start == 1 or rng.random() < 0.5:
            b, same = _random_segment(documents, index, target - len(a), rng)
            is_random = not same or config.label_same_document_random
            end = a_end  # the sentences that were not used begin the next chunk
        else:
            b, is_random = _join(document, a_end, end), False
        yield Pair(*truncate_pair(a, b, room, rng), is_random)
        start, length = end, 0


def truncate_pair(a: array, b: array, room: int, rng: Random) -> tuple[array, array]:
    """Drop pieces from the longer segment (the second if equal), front or back by chance, until both fit ``room``."""
    a_start, a_end, b_start, b_end = 0, len(a), 0, len(b)
    while a_end - a_start + b_end - b_start > room:
        front = rng.random() < 0.5
        if a_end - a_start > b_end - b_start:
            a_start, a_end = a_start + front, a_end - (not front)
        else:
            b_start, b_end = b_start + front, b_end - (not front)
    return a[a_start:a_end], b[b_start:b_end]


def group_whole_words(ids: Sequence[int], pieces: Pieces) -> list[list[int]]:
    """Group positions into words; special tokens belong to none.

    A "##" piece joins the word before it even across a [SEP], where truncation cut off the word's first piece.
    """
    groups: list[list[int]] = []
    for position, piece in enumerate(ids):
        if piece in (pieces.cls_id, pieces.sep_id):
            continue
        if groups and pieces.is_continuation[piece]:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def mask_tokens(ids: list[int], pieces: Pieces, config: InstanceConfig, rng: Random) -> tuple[list[int], list[int]]:
    """Mask ``ids`` in place and return the sorted positions and the original ids there.

    80 % become [MASK], 10 % stay as they are and 10 % become any piece of the vocabulary.
    """
    if config.do_whole_word_mask:
        groups = group_whole_words(ids, pieces)
    else:
        cls_id, sep_id = pieces.cls_id, pieces.sep_id
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
                ids[position] = pieces.mask_id
            elif rng.random() >= 0.5:
                ids[position] = rng.randint(0, len(pieces.is_continuation) - 1)
    positions = sorted(original)
    return positions, [original[position] for position in positions]


def shuffle(items: list, rng: Random) -> None:
    """Shuffle in place with the draws of ``Random.shuffle``, in half its time; half of all time would go there."""
    draw = rng.getrandbits
    for last in range(len(items) - 1, 0, -1):
        bits = (last + 1).bit_length()
        other = draw(bits)
        while other > last:
            other = draw(bits)
        items[last], items[other] = items[other], items[last]


class _Columns:
    """Sequences as they are made, end to end: 4 bytes a piece where lists would take 36."""

    def __init__(self) -> None:
        self.tokens, self.lengths, self.segment_starts = array("i"), array("i"), array("i")
        self.masked_positions, self.masked_labels, self.masked_counts = array("i"), array("i"), array("i")
        self.next_sentence_labels = array("b")

    def append(
        self, ids: list[int], segment_start: int, is_random: bool, positions: list[int], labels: list[int]
    ) -> None:
        self.tokens.extend(ids)
        self.lengths.append(len(ids))
        self.segment_starts.append(segment_start)
        self.next_sentence_labels.append(is_random)
        self.masked_positions.extend(positions)
        self.masked_labels.extend(labels)
        self.masked_counts.append(len(positions))

    def shard(self) -> Shard:
        return Shard(
            tokens=np.array(self.tokens, dtype=np.int32),
            offsets=offsets_of(np.array(self.lengths)),
            segment_starts=np.array(self.segment_starts, dtype=np.int32),
            next_sentence_labels=np.array(self.next_sentence_labels, dtype=np.int8),
            masked_positions=np.array(self.masked_positions, dtype=np.int32),
            masked_labels=np.array(self.masked_labels, dtype=np.int32),
            masked_offsets=offsets_of(np.array(self.masked_counts)),
        )


def _join(document: Document, start: int, end: int) -> array:
    joined = array("i")
    for sentence in document[start:end]:
        joined += sentence
    return joined


def _random_segment(documents: Sequence[Document], index: int, length: int, rng: Random) -> tuple[array, bool]:
    """Return at least ``length`` pieces (or up to the end) from another document, and whether it is ``index`` again."""
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
