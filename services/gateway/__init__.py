"""The gateway: the shop's public API, in front of products and orders."""
