"""What only Phase 2 has."""
