"""What a study found: tables, tests, figures, files and the page. Imports no torch."""
