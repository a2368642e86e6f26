"""Reading a run's log: the shared feed, the order of chunks, cursors, and the frames that viewers get."""
