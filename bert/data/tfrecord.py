"""TFRecord shards as google-research/bert's ``create_pretraining_data.py`` writes them: one Example per sequence.

====================  ==========  =================================================
input_ids             int64 [S]
input_mask            int64 [S]   1 = a token, 0 = padding
segment_ids           int64 [S]   1 = segment B
masked_lm_positions   int64 [P]
masked_lm_ids         int64 [P]
masked_lm_weights     float [P]   1.0 = a prediction, 0.0 = the place is not used
next_sentence_labels  int64 [1]   1 = segment B is random
====================  ==========  =================================================

Files whose records have none of the three ``masked_lm`` features hold sequences that are masked while loading.
"""

from bert.data.examples import Examples
from bert.data.records import TFRECORD

EXAMPLES = Examples(TFRECORD, integers=(3,), is_wrapped=True)

inspect, read, write, splice = EXAMPLES.inspect, EXAMPLES.read, EXAMPLES.write, EXAMPLES.splice
