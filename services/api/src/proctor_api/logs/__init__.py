"""Reading a run's log: cursor, order, the reader that all viewers of a run share, the frames that they see."""
