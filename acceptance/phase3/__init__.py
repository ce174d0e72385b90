"""Phase 3: across two hosts."""
