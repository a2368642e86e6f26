"""The data of the Test API, with its SQL: pods, projects, test cases, results, scenarios and dashboards."""
