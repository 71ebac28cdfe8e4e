"""WordPiece: the tokenizer as one value, its files, and how it is found.

tokenizer = open_tokenizer("vocab.txt", TokenizerFlags(do_lower_case=True))
write_tokenizer(folder, tokenizer, longest=512)            # as transformers reads it
"""

from bert.tokenization.files import write_tokenizer
from bert.tokenization.normalizer import WordNormalizer
from bert.tokenization.opening import Stated, TokenizerFlags, expect_same, guesses, open_tokenizer
from bert.tokenization.tokenizer import BertTokenizer
from bert.tokenization.vocabulary import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK, looks_uncased, read_vocabulary

__all__ = [
    "CLS",
    "MASK",
    "PAD",
    "SEP",
    "SPECIAL_TOKENS",
    "UNK",
    "BertTokenizer",
    "Stated",
    "TokenizerFlags",
    "WordNormalizer",
    "expect_same",
    "guesses",
    "looks_uncased",
    "open_tokenizer",
    "read_vocabulary",
    "write_tokenizer",
]
