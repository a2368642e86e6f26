"""``proctor init``: the keys, certificates, passwords and the first token of an installation, each made once."""
