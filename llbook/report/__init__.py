"""What runs say: numbers, tables and verdicts, held against the paper's."""
