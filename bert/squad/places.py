"""Where in its context an answer stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bert.squad.answers import Candidate
from bert.squad.windows import InputFeatures

Scored = Iterable[tuple[InputFeatures, NDArray]]  # the windows of a question and their start logits [T]


def locate(candidate: Candidate, words: Sequence[str], windows: Scored) -> tuple[int, int] | None:
    """Return the characters (start, end) of the candidate's text in ``words`` joined by blanks.

    If the text occurs several times, the answer is the one at its start logit. None if it has no text.
    """
    text = " ".join(words)
    for word in _first_words(candidate, windows) if candidate.text else ():
        begin = len(" ".join([*words[:word], ""]))
        place = text.find(candidate.text, begin, begin + len(words[word]) + len(candidate.text))
        if place >= 0:
            return place, place + len(candidate.text)
    return None


def _first_words(candidate: Candidate, windows: Scored) -> list[int]:
    """Return the words of the context where an answer with the candidate's start logit may begin."""
    found = []
    for feature, start_logits in windows:
        logits = start_logits[feature.segment_start : len(feature.ids) - 1]
        found += feature.words[(logits == np.float32(candidate.start_logit)) & feature.is_max_context].tolist()
    return found
