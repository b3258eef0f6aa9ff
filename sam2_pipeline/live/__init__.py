"""`sam2-pipeline live`: a stream's masks shown and written while it runs."""
