"""Result objects to tables, HTML pages and trace files; computes nothing about the model."""
