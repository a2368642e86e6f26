"""What the three services and the command line share: names, messages, the bus, settings, the database session."""
