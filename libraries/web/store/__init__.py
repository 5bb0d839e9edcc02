"""Images copied from an object store, such as S3, by fsspec; the store is only read."""
