"""One module per report: a frozen report in, lines of text out. Nothing here reads files or prints."""
