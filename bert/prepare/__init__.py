"""From text to shards: vocabulary, sentence pairs, masks, and the pipeline that runs them."""
