"""BERT on a token stream: configuration, layers, heads, attention and objectives."""
