"""Tables, figures, the report, exports: what people look at."""
