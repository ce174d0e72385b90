"""Products: read from PostgreSQL, cached in Redis."""
