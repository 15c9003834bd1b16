"""Where records come from: drawn, tables, questions, images, released pairs."""
