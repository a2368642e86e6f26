"""What tests stand on: real NATS, PostgreSQL and SSH servers, child processes, and waiting for conditions."""
