"""Checkpoints: save in the background, prune, find the last good one, load.

A save stops training for one copy of the state to host memory; a thread writes the file. A checkpoint holds tensors and
plain values only, is written atomically, and is verified before a run continues from it::

    path = resolve_resume(config, output_dir, notice=print)      # None: start fresh
    state = load(path) if path else None
    with build_checkpoint_writer(config, output_dir, is_main=True) as writer:
        writer.save(step, {"model": model.state_dict(), "optimizer": ..., "phase": 1})

    print(load_weights(model, load("large.pt"), "--init_checkpoint large.pt", allow_missing=["classifier.*"]))
"""

from bert.checkpoint.files import checkpoint_step, find_damage, list_checkpoints, load, read_description
from bert.checkpoint.pieces import Pieces, agree_on_pieces
from bert.checkpoint.resume import CheckpointConfig, Found, find_checkpoint, find_latest, resolve_resume
from bert.checkpoint.weights import LoadReport, load_weights, match_weights, shorten
from bert.checkpoint.writer import CheckpointWriter, NullCheckpointWriter, build_checkpoint_writer, copy_state
