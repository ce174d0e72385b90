"""What makes a machine a host of the lab, before any phase."""
