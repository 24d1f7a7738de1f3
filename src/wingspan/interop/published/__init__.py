"""Published figures of whole engines and of exchange libraries: a table, row by row."""
