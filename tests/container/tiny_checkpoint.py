"""Write a question-answering checkpoint of random weights: python tests/container/tiny_checkpoint.py FILE"""

import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from bert.model.bert import BertForQuestionAnswering
from bert.model.config import BertConfig
from bert.tokenization import BertTokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "wrote", "it", "ada", ".", "?"]

with tempfile.TemporaryDirectory() as folder:
    vocab = Path(folder, "vocab.txt")
    vocab.write_text("\n".join(PIECES) + "\n")
    tokenizer = BertTokenizer(vocab)
torch.manual_seed(0)
config = BertConfig(len(PIECES), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
model = BertForQuestionAnswering(config)
state = {"model": model.state_dict(), "model_config": config.to_dict(), "tokenizer": tokenizer.state_dict()}
torch.save(state, sys.argv[1])
