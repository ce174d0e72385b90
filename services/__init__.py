"""The shop: a gateway, products and orders. Ordinary services, configured by environment variables alone."""
