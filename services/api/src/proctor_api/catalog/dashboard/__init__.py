"""What the results of a test case say when they are put in a row: graphs, bars, rates, trust."""
