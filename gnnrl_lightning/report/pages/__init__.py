"""Reports as HTML pages: figures, tables and text, made from the files of runs."""
