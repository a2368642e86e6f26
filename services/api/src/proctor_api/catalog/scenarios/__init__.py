"""Scenarios: which installers, versions and projects stand behind a name, with their scores and trust indicators."""
