"""SQL of the volume pool: schema ``control``, tables volumes, vnfps, pools and pool_*."""
