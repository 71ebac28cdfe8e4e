"""Question answering on SQuAD 1.1 and 2.0: files, windows, answers and scores, under the published scripts' names.

::

    from bert.squad import RawResult, convert_examples_to_features, read_squad_examples, write_predictions
"""

from bert.squad.answers import RawResult, write_predictions
from bert.squad.examples import SquadExample, read_squad_examples
from bert.squad.features import convert_examples_to_features
from bert.squad.windows import InputFeatures
