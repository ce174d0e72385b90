"""Phase 1, by hand from kernel primitives: what the plan promises, shown by traffic and counters."""
