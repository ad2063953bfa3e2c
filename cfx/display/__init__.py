"""What people look at, whatever it shows: pictures, templates, tables, and the catalogue of metrics."""
