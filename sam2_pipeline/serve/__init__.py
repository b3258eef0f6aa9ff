"""Review and annotate in the browser: a local web application over tables and videos; begin with `app`."""
