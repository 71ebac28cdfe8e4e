"""GLUE, XNLI and your own classification or regression data: tasks, files, scores and results.

::

    from bert.glue import encode, find_task, read_examples
"""

from bert.glue.examples import Example, Task, encode, read_examples
from bert.glue.tasks import TASKS, GlueConfig, build_task, find_task
