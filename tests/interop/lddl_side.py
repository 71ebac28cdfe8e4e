"""What tests/interop/test_lddl.py has lddl do, in a process that has it. Not a test.

python lddl_side.py write FOLDER VOCAB masking|dynamic BIN_SIZE     pairs and shards by lddl, pairs.json for us
python lddl_side.py pairs FOLDER VOCAB LENGTH PASSES                 drawn.json of the documents in documents.json
python lddl_side.py read FOLDER VOCAB                               sequences.json from lddl's loader
"""

import io
import json
import os
import random
import sys


def write(folder, vocab_file, masking, bin_size):
    import dask
    import dask.bag
    import numpy as np
    from lddl.dask.bert.pretrain import Document, Sentence, _save_parquet, create_pairs_from_document

    with open(vocab_file, encoding="utf8") as file:
        words = file.read().split("\n")[:-1]
    random.seed(0)
    lengths = [[random.randint(3, 25) for _ in range(random.randint(2, 20))] for _ in range(30)]
    documents = [
        Document(i, [Sentence(random.choices(words[5:], k=length)) for length in sentences])
        for i, sentences in enumerate(lengths)
    ]
    pairs = []
    for index in range(len(documents)):
        pairs += create_pairs_from_document(
            documents, index, max_seq_length=64, masking=masking == "masking", vocab_words=words
        )
    with dask.config.set(scheduler="synchronous"):
        _save_parquet(
            dask.bag.from_sequence(pairs, npartitions=3),
            folder,
            bin_size=bin_size or None,
            target_seq_length=64,
            masking=masking == "masking",
        )
    for pair in pairs:
        if "masked_lm_positions" in pair:
            pair["masked_lm_positions"] = np.load(io.BytesIO(pair["masked_lm_positions"])).tolist()
    with open(os.path.join(folder, "pairs.json"), "w") as file:
        json.dump(pairs, file)


def pairs(folder, vocab_file, length, passes):
    """Write [length, label, masked pieces] of every pair that lddl draws, with static masks."""
    import numpy as np
    from lddl.dask.bert.pretrain import Document, Sentence, create_pairs_from_document

    with open(vocab_file, encoding="utf8") as file:
        words = file.read().split("\n")[:-1]
    with open(os.path.join(folder, "documents.json"), encoding="utf8") as file:
        texts = json.load(file)
    documents = [Document(i, [Sentence(sentence) for sentence in text]) for i, text in enumerate(texts)]
    random.seed(0)
    drawn = []
    for index in list(range(len(documents))) * passes:
        for pair in create_pairs_from_document(
            documents, index, max_seq_length=length, masking=True, vocab_words=words
        ):
            masked = len(np.load(io.BytesIO(pair["masked_lm_positions"])))
            drawn.append([pair["num_tokens"], int(pair["is_random_next"]), masked])
    with open(os.path.join(folder, "drawn.json"), "w") as file:
        json.dump(drawn, file)


def read(folder, vocab_file):
    from lddl_peer import make_loader

    sequences = []
    request = {"input_dir": folder, "vocab_file": vocab_file, "batch_size": 7, "num_workers": 0}
    for batch in make_loader(request):
        for row in range(len(batch["input_ids"])):
            length = int(batch["attention_mask"][row].sum())
            sequence = [batch[key][row, :length].tolist() for key in ("input_ids", "token_type_ids", "labels")]
            sequences.append([*sequence, int(batch["next_sentence_labels"][row])])
    with open(os.path.join(folder, "sequences.json"), "w") as file:
        json.dump(sequences, file)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(*sys.argv[2:5], int(sys.argv[5]))
    elif sys.argv[1] == "pairs":
        pairs(*sys.argv[2:4], *map(int, sys.argv[4:6]))
    else:
        read(*sys.argv[2:4])
