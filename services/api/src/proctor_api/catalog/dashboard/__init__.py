"""Statistics of results: graphs and bars per test case, rates over time, trust."""
