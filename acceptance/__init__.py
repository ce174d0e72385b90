"""Proves by traffic that the lab is as its plan says. Black box: nothing here knows how provisioning works."""
