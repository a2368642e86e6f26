"""The Test API's own store: pods, projects, test cases, results, and what is made of them. SQL lives here."""
