"""Text → words with blanks between them, as the published implementations clean and lower-case it.

Two things differ from the ``tokenizers`` library's own normalizer: a capital sigma at the end of a word becomes ς, and
the first 256 ideographs of CJK extension E are spaced like the others. A special token stays whole between blanks.
"""

import re
from collections.abc import Iterable
from itertools import groupby

from tokenizers.normalizers import BertNormalizer

# Ideographs that a typo in the library's table leaves out (2B920 for 2B820).
_UNSPACED_IDEOGRAPH = "[\U0002b820-\U0002b91f]"


class WordNormalizer:
    """Text → text with blanks between words: BERT's cleaning and casing, before the split at punctuation."""

    def __init__(
        self,
        do_lower_case: bool = True,
        strip_accents: bool | None = None,
        never_split: Iterable[str] = (),
        spaced_ideographs: bool = True,
    ):
        self._never_split = frozenset(never_split)
        self._lower = do_lower_case
        self._clean = BertNormalizer(True, handle_chinese_chars=spaced_ideographs, strip_accents=False, lowercase=False)
        self.rest = BertNormalizer(True, spaced_ideographs, strip_accents, do_lower_case)
        starts = "|".join(re.escape(start) for start in sorted({token[:1] for token in self._never_split}))
        unspaced = _UNSPACED_IDEOGRAPH if spaced_ideographs else ""
        self._unspaced = re.compile(unspaced or "(?!)")
        self._careful = re.compile("|".join(filter(None, (starts, "Σ" if do_lower_case else "", unspaced))) or "(?!)")

    def __call__(self, text: str) -> str:
        """Normalise ``text``, except for ``never_split`` words."""
        return " ".join(run if kept else self.rest.normalize_str(run) for kept, run in self.runs(text))

    def runs(self, text: str) -> list[tuple[bool, str]]:
        """Cut ``text`` into ``(kept, run)``: a kept run is one special token, any other still needs ``rest``."""
        if not self._careful.search(text):
            return [(False, text)]
        cleaned = self._unspaced.sub(r" \g<0> ", self._clean.normalize_str(text))
        runs: list[tuple[bool, str]] = []
        for kept, words in groupby(cleaned.split(), key=self._never_split.__contains__):
            if kept:
                runs.extend((True, word) for word in words)
            else:
                # str.lower knows the word-final sigma; the library lower-cases letter by letter.
                run = " ".join(words)
                runs.append((False, run.lower() if self._lower else run))
        return runs
