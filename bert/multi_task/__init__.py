"""One encoder for several tasks at once: which task a step trains, the data of all tasks, scores and the best model."""
