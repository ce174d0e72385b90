"""Orders: taken and kept in PostgreSQL."""
