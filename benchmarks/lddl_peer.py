"""lddl's side of the loader benchmark: runs under a Python with lddl and reads an epoch for every line on stdin.

    echo '{"input_dir": "shards", "vocab_file": "vocab.txt", "batch_size": 64, "num_workers": 2}' | python lddl_peer.py

Answers each line with ``{"sequences": 80000, "tokens": 9912345, "seconds": 9.1}``. Imports nothing from this suite.
"""

import json
import logging
import sys
import time

import lddl.torch  # type: ignore[import-not-found]
import lddl.torch.bert  # type: ignore[import-not-found]


class Loader(lddl.torch.bert.DataLoader):
    """lddl always asks for persistent workers, which torch refuses without workers."""

    def __init__(self, *args, **kwargs):
        if kwargs.get("num_workers", 0) == 0:
            kwargs["persistent_workers"] = False
        super().__init__(*args, **kwargs)


def make_loader(request):
    lddl.torch.bert.DataLoader = Loader  # the factory compares the class with this one
    return lddl.torch.get_bert_pretrain_data_loader(
        request["input_dir"],
        vocab_file=request["vocab_file"],
        data_loader_class=Loader,
        data_loader_kwargs={"batch_size": request["batch_size"], "num_workers": request["num_workers"]},
        log_level=logging.CRITICAL,
    )


def main():
    loader = None
    for line in sys.stdin:
        loader = loader or make_loader(json.loads(line))
        sequences = tokens = 0
        begin = time.perf_counter()
        for batch in loader:
            sequences += len(batch["input_ids"])
            tokens += int(batch["attention_mask"].sum())
        seconds = time.perf_counter() - begin
        print(json.dumps({"sequences": sequences, "tokens": tokens, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
