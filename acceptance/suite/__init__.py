"""What must hold in every phase: written once, and given each phase's stage."""
