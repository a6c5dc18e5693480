"""What commands print: bars, tables, lines of news."""
