"""OFRecord shards as OneFlow's BERT reads them: the features of :mod:`bert.data.tfrecord`, int32 in place of int64.

OneFlow finds the files of a data set by their names alone: ``part-0``, ``part-1``, ..., or ``part-00000``, ...
"""

from bert.data.examples import Examples
from bert.data.records import OFRECORD

EXAMPLES = Examples(OFRECORD, integers=(4, 5), is_wrapped=False)  # int32; int64 is read too

inspect, read, write, splice = EXAMPLES.inspect, EXAMPLES.read, EXAMPLES.write, EXAMPLES.splice
