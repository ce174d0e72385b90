"""Phase 1: the shop's network by hand from kernel primitives."""
