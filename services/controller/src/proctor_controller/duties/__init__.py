"""What one controller at a time does again and again, under a lease with an epoch."""
