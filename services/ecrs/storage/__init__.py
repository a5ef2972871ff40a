"""Stores: user and item records in Redis, item vectors in faiss or Milvus, each behind a Protocol."""
