"""Shard formats: HDF5, Parquet, TFRecord and OFRecord, behind one table."""
