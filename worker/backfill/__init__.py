"""Judging images that lie in a bucket already: a listing comes in, verdicts go into Parquet files."""
