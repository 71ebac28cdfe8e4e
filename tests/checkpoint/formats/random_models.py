"""Models whose every number is drawn, as what can be written in any format."""

import torch

from bert.checkpoint.formats import HEADS, BertWithHeads, Weights
from bert.model.config import BertConfig
from bert.model.names import DECODER
from bert.tokenization import BertTokenizer

HEAD_SETS = [(), ("cls.predictions", "cls.seq_relationship"), ("qa_outputs",), ("classifier",), HEADS]


def random_model(config: BertConfig, heads=HEADS, num_labels: int = 3, seed: int = 0) -> BertWithHeads:
    """Return a model whose every number is drawn, but for the padding of its vocabulary, which is 0."""
    torch.manual_seed(seed)
    model = BertWithHeads(config, heads, num_labels).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[config.vocab_size :] = 0
        if "cls.predictions" in heads:
            model.cls.predictions.bias[config.vocab_size :] = 0
    return model


def weights_of(model: BertWithHeads, tokenizer: BertTokenizer | None = None, **facts) -> Weights:
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != DECODER}
    return Weights(tensors, model.config, tokenizer, facts)
