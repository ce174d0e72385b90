"""The kernel's network stack as the resources see it."""
