"""Text sources: files, dumps and data sets, read as documents of sentences."""
