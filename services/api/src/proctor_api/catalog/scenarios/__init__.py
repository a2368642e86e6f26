"""Scenarios: installers, versions and projects under one name, with scores and trust indicators."""
