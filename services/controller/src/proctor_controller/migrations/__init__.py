"""The chain of revisions of schema ``control``."""
