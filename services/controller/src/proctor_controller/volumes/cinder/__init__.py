"""Volumes in OpenStack: identity by keystoneauth1 (the extra ``openstack``), block storage by our own few calls."""
