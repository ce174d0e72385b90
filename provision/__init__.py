"""What runs on a host, as root: each phase is a list of resources, and one engine for all of them."""
